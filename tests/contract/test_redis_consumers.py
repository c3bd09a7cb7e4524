"""How the consumers of the Redis queue share its entries: leases, takeovers, bounds."""

import asyncio

import pytest

from tests.support.engines import open_redis, redis_queue
from tests.support.queues import imported, read_record
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import (
    RENEWED_LEASE_S,
    SHORT_LEASE_S,
    Streams,
    let_lease_expire,
    opened,
    rejected,
    take_patiently,
    topic,
)
from worker.rules.outcome import History, Released


async def test_entries_of_a_silent_consumer_are_taken_over_in_doubt(server: RedisServer) -> None:
    one = await open_redis(server, "one", lease_s=SHORT_LEASE_S)
    two = await open_redis(server, "two", lease_s=SHORT_LEASE_S)
    await one.put([read_record(n) for n in range(1, 4)])
    held = await one.take(3)
    assert not await two.take(3)
    await let_lease_expire(one)
    taken = await two.take(3)
    assert [d.history.may_exist for d in taken] == [True] * 3
    await one.settle([imported(held[0].id), Released(held[1].id, History())])
    assert (await two.counts()).imported == 0, "the entries belong to the other consumer now"
    await two.settle([imported(d.id) for d in taken])
    counts = await two.counts()
    assert (counts.queued, counts.imported) == (0, 3)
    await one.close()
    await two.close()


async def test_entries_with_a_renewed_lease_are_not_taken_over(server: RedisServer) -> None:
    one = await open_redis(server, "one", lease_s=RENEWED_LEASE_S)
    two = await open_redis(server, "two", lease_s=RENEWED_LEASE_S)
    await one.put([read_record(1)])
    await one.take(1)
    for _ in range(4):
        await asyncio.sleep(RENEWED_LEASE_S / 2)
        assert not await two.take(1)
    await one.close()
    await two.close()


async def test_a_consumer_is_never_given_an_entry_it_holds(server: RedisServer) -> None:
    queue = await open_redis(server, lease_s=SHORT_LEASE_S)
    await queue.put([read_record(n) for n in range(1, 4)])
    taken = await queue.take(3)
    await let_lease_expire(queue)
    queue._own_unread_after = b"0"
    assert not await queue.take(3)
    await queue.settle([imported(d.id) for d in taken])
    assert (await queue.counts()).imported == 3
    await queue.close()


async def test_a_consumer_that_returns_continues_with_what_it_held(server: RedisServer) -> None:
    before = await open_redis(server, "one")
    await before.put([read_record(n) for n in range(1, 4)])
    await before.take(2)
    await before.close()
    after = await open_redis(server, "one")
    taken = [*await after.take(2), *await after.take(5), *await after.take(5)]
    assert [(d.topic.name, d.history.may_exist) for d in taken] == [
        ("topic 1", True), ("topic 2", True), ("topic 3", False),
    ]  # fmt: skip
    await after.close()


async def test_a_take_returns_no_more_than_was_asked_for(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_topics(20)
    async with opened(server, "one") as earlier, opened(server, "one") as later:
        await earlier.take(3)
        assert len(await later.take(2)) == 2
        await earlier.take(9)
        for expected in (4, 4, 4, 4, 2, 0):
            later._own_unread_after = b"0"
            assert len(await later.take(4)) == expected


async def test_outcomes_of_an_entry_that_was_taken_over_are_ignored(
    server: RedisServer, streams: Streams
) -> None:
    streams.add(topic())
    async with opened(server, "one", "two", lease_s=SHORT_LEASE_S) as (one, two):
        (late,) = await one.take(10)
        await one.fall_silent()
        (taken,) = await take_patiently(two)
        before = await two.counts()
        for outcome in (rejected(late), imported(late.id), Released(late.id, History())):
            one._held[late.id] = one._held.get(late.id) or next(iter(two._held.values()))
            await one.settle([outcome])
            assert await two.counts() == before
        assert list(streams.pending().values()) == ["two"]
        await two.settle([imported(taken.id)])
        assert (await two.counts()).imported == 1
    assert len(streams.lines("imported")) == 1
    assert streams.lines("dead") == []


async def test_consumers_that_hold_nothing_are_removed(
    server: RedisServer, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queues.redis.queue.FORGET_S", 0.0)
    streams.add(topic(1))
    streams.add(topic(2))
    async with opened(server, "holder") as holder, opened(server, "leaver") as leaver:
        await holder.take(1)
        (taken,) = await leaver.take(1)
        assert streams.consumers() == {"holder", "leaver"}
        await leaver.settle([imported(taken.id)])
    assert streams.consumers() == {"holder"}, "it still holds a record"
    streams.make_consumer("killed")
    async with opened(server, "next", lease_s=0.0):
        assert streams.consumers() <= {"holder", "next"}


async def test_a_queue_that_was_never_opened_has_no_consumers(
    server: RedisServer, streams: Streams
) -> None:
    queue = redis_queue(server)
    assert await queue.consumers() == {}
    streams.add(topic(1))
    assert await queue.consumers() == {}
    await queue.close()
