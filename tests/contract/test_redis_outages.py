"""What the Redis queue does while Redis, or the disk of its copy, is away or full."""

import asyncio
from pathlib import Path

import pytest

from tests.support.engines import open_redis, running
from tests.support.queues import imported, read_record
from tests.support.redis_server import RedisServer, binaries
from tests.support.redis_streams import (
    RENEWED_LEASE_S,
    SHORT_LEASE_S,
    Disk,
    Streams,
    opened,
    take_patiently,
    topic,
)
from worker.queues.contract import QueueError
from worker.queues.redis.connection import ANSWER_TIMEOUT_S
from worker.rules.counts import Counts
from worker.rules.outcome import History, Released


async def test_settling_waits_for_redis_and_loses_nothing(durable: RedisServer) -> None:
    queue = await open_redis(durable)
    await queue.put([read_record(1), read_record(2)])
    (taken,) = await queue.take(1)
    durable.kill()
    settling = asyncio.create_task(queue.settle([imported(taken.id)]))
    assert await queue.take(1) == []
    assert queue.trouble is not None
    await asyncio.to_thread(durable.start)
    await settling
    assert (await queue.counts()).imported == 1
    assert len(await queue.take(5)) == 1
    assert queue.trouble is None
    await queue.close()


async def test_giving_up_stops_the_wait_for_redis(tmp_path: Path) -> None:
    with running(binaries()[0], tmp_path) as server:
        queue = await open_redis(server)
        await queue.put([read_record(1)])
        (taken,) = await queue.take(1)
        server.kill()
        queue.give_up()
        with pytest.raises(QueueError, match="Redis"):
            await queue.settle([imported(taken.id)])
        await queue.close()


async def test_a_consumer_that_joins_after_an_outage_takes_over_nothing(
    durable: RedisServer,
) -> None:
    async with opened(durable, "one", lease_s=RENEWED_LEASE_S) as one:
        await one.put([read_record(1)])
        (held,) = await one.take(1)
        durable.kill()
        await asyncio.sleep(RENEWED_LEASE_S)
        await asyncio.to_thread(durable.start)
        async with opened(durable, "two", lease_s=RENEWED_LEASE_S) as two:
            assert await two.take(1) == []
            assert len(await one.settle([imported(held.id)])) == 1


async def test_taken_entries_survive_a_restart_and_are_not_redelivered(
    durable: RedisServer,
) -> None:
    async with opened(durable, "one", "two") as (one, two):
        await one.put([read_record(n) for n in range(1, 4)])
        first, second = await one.take(2)
        durable.kill()
        assert await one.take(10) == []
        await asyncio.to_thread(durable.start)
        (third,) = await take_patiently(one)
        assert third.topic.name == "topic 3"
        assert await two.take(10) == []
        await one.settle([imported(d.id) for d in (first, second, third)])
        counts = await two.counts()
        assert (counts.read, counts.queued, counts.imported) == (3, 0, 3)


async def test_an_outage_longer_than_the_lease_causes_no_takeover(durable: RedisServer) -> None:
    async with opened(durable, "one", "two", lease_s=RENEWED_LEASE_S) as (one, two):
        await one.put([read_record(n) for n in range(1, 4)])
        held = await one.take(3)
        durable.kill()
        assert await two.take(3) == []
        await asyncio.sleep(RENEWED_LEASE_S)
        await asyncio.to_thread(durable.start)
        while two.trouble:
            assert await two.take(3) == []
        for _ in range(4):
            assert await two.take(3) == []
            await asyncio.sleep(RENEWED_LEASE_S / 4)
        await one.settle([imported(d.id) for d in held])
        assert (await two.counts()).imported == 3


async def test_a_full_redis_still_settles_and_causes_no_doubt(
    server: RedisServer, streams: Streams
) -> None:
    async with opened(server, "one") as queue:
        streams.add(topic(1))
        streams.add(topic(2))
        (first,) = await queue.take(1)
        streams.configure("maxmemory", 1)
        try:
            await queue.settle([imported(first.id)])
            assert (await queue.counts()).imported == 1, "reading is not refused"
            assert await queue.take(1) == []
            assert "raise its maxmemory" in str(queue.trouble)
        finally:
            streams.configure("maxmemory", 0)
        (second,) = await take_patiently(queue)
        assert second.history == History(), "nobody held it before"
        assert queue.trouble is None


async def test_giving_up_stops_the_wait_for_a_hanging_redis(durable: RedisServer) -> None:
    queue = await open_redis(durable, "one", lease_s=SHORT_LEASE_S)
    await queue.put([read_record(1), read_record(2)])
    (taken,) = await queue.take(1)
    with durable.hanging():
        settling = asyncio.create_task(queue.settle([imported(taken.id)]))
        taking = asyncio.create_task(queue.take(1))
        await asyncio.sleep(SHORT_LEASE_S)
        began_s = asyncio.get_running_loop().time()
        queue.give_up()
        with pytest.raises(QueueError, match="does not answer"):
            await settling
        assert await taking == []
        with pytest.raises(QueueError, match="does not answer"):
            await queue.counts()
        await queue.close()
        assert asyncio.get_running_loop().time() - began_s < ANSWER_TIMEOUT_S / 2


async def test_giving_up_still_settles_while_redis_answers(
    server: RedisServer, streams: Streams
) -> None:
    streams.add(topic(1))
    async with opened(server, "one") as queue:
        (taken,) = await queue.take(1)
        queue.give_up()
        await queue.settle([Released(taken.id, taken.history)])
        assert await queue.counts() == Counts(read=1, queued=1)


async def test_a_full_disk_stops_taking_and_loses_no_outcome(
    server: RedisServer, streams: Streams
) -> None:
    disk = Disk()
    queue = await open_redis(server, copy=disk)
    streams.add(topic(1))
    streams.add(topic(2))
    (taken,) = await queue.take(1)
    disk.is_full = True
    await queue.settle([imported(taken.id)])
    assert (await queue.counts()).imported == 1
    assert queue.trouble == "full"
    assert await queue.take(1) == []
    disk.is_full = False
    assert len(await queue.take(1)) == 1
    assert queue.trouble is None
    assert disk.lines == [line.encode() + b"\n" for line in streams.raw_lines("imported")]
    await queue.close()
