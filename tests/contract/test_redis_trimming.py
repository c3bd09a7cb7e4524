"""Entries that were trimmed off the Redis stream, and the queue's own trimming of results."""

import asyncio
from typing import Any

import pytest

from tests.support.engines import open_redis
from tests.support.queues import DEAD, imported, read_record
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import (
    RENEWED_LEASE_S,
    SHORT_LEASE_S,
    ReplyLost,
    Streams,
    opened,
    own_id,
    rejected,
    take_patiently,
    topic,
)
from worker.rules.counts import Counts
from worker.rules.outcome import History, Released


async def test_imported_results_are_trimmed_but_dead_letters_never(
    server: RedisServer, streams: Streams
) -> None:
    queue = await open_redis(server, keep=5)
    await queue.put([read_record(n) for n in range(1, 21)])
    taken = await queue.take(20)
    await queue.settle([imported(d.id) for d in taken[:12]])
    await queue.settle([DEAD(d.id, History(attempts=3)) for d in taken[12:]])
    _, lengths = await queue.look()
    assert lengths == {"queued": 0, "imported": 5, "dead": 8}
    assert streams.remembered_topics() == 5 + 8, "trimmed results take no room"
    await queue.close()


async def test_entries_trimmed_while_their_consumer_was_away_are_counted_lost(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_topics(3)
    async with opened(server, "one") as earlier:
        await earlier.take(2)
    streams.trim_all()
    async with opened(server, "one") as later:
        assert await later.take(10) == []
        assert (await later.counts()).lost == later.found["lost"] == 2
        assert streams.pending() == {}


async def test_an_entry_trimmed_while_held_keeps_its_outcome(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_topics(3)
    async with opened(server, "one") as queue:
        one, two, three = await queue.take(10)
        streams.trim_all()
        await queue._extend([held.entry_id for held in queue._held.values()])
        assert await queue.take(10) == []
        history = History(attempts=1, may_exist=True)
        await queue.settle([imported(one.id), rejected(two), Released(three.id, history)])
        counts = await queue.counts()
        assert (counts.imported, counts.dead, counts.queued, counts.read) == (1, 1, 1, 3)
        (again,) = await queue.take(10)
        assert (again.topic, again.history) == (three.topic, history)
        assert queue.found["lost"] == (await queue.counts()).lost == 0


async def test_an_entry_counted_lost_by_another_consumer_can_be_settled(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_topics(3)
    async with opened(server, "one", "two", lease_s=SHORT_LEASE_S) as (one, two):
        first, second, third = await one.take(10)
        await one.fall_silent()
        streams.trim_all()
        await asyncio.sleep(SHORT_LEASE_S * 1.2)
        # Redis 6.2 first transfers deleted entries; the next take finds that they are gone.
        assert [*await two.take(10), *await two.take(10)] == []
        assert (await two.counts()).lost == two.found["lost"] == 3
        history = History(attempts=1, may_exist=True)
        await one.settle([imported(first.id), rejected(second), Released(third.id, history)])
        counts = await one.counts()
        assert (counts.imported, counts.dead, counts.queued, counts.read) == (1, 1, 1, 3)
        assert (await one.counts()).lost == 0


async def test_a_trimmed_entry_is_not_lost_while_its_consumer_lives(
    server: RedisServer, streams: Streams
) -> None:
    streams.add(topic(1))
    async with opened(server, "one", "two", lease_s=RENEWED_LEASE_S) as (one, two):
        (taken,) = await one.take(10)
        streams.trim_all()
        for _ in range(8):
            assert await two.take(10) == []
            await asyncio.sleep(RENEWED_LEASE_S / 4)
        assert two.found["lost"] == (await two.counts()).lost == 0
        await one.settle([imported(taken.id)])
        assert await one.counts() == Counts(read=1, imported=1)


async def test_a_consumer_does_not_count_its_held_entries_lost(
    server: RedisServer, streams: Streams
) -> None:
    streams.add(topic(1))
    async with opened(server, "one", lease_s=SHORT_LEASE_S) as queue:
        (taken,) = await queue.take(10)
        await queue.fall_silent()
        streams.trim_all()
        await asyncio.sleep(SHORT_LEASE_S * 1.2)
        assert [*await queue.take(10), *await queue.take(10)] == []
        assert queue.found["lost"] == 0
        await queue.settle([imported(taken.id)])
        assert (await queue.counts()).imported == 1
        assert (await queue.counts()).lost == 0


async def test_a_lost_record_can_be_added_again(server: RedisServer, streams: Streams) -> None:
    streams.add(topic(1, TopicId=own_id("x")))
    async with opened(server, "one") as queue:
        await queue.put([read_record(1), read_record(2)])
        assert len(await queue.take(10)) == 3
    streams.trim_all()
    async with opened(server, "one") as queue:
        assert await queue.take(10) == []
        assert await queue.counts() == Counts(read=3, lost=3)
        streams.add(topic(1, TopicId=own_id("x")))
        assert await queue.put([read_record(1), read_record(2)]) == 2
        queue._scripts["register"] = ReplyLost(queue._scripts["register"])
        assert await queue.take(10) == []
        taken = await take_patiently(queue)
        assert [d.history.may_exist for d in taken] == [True] * 3
        assert await queue.counts() == Counts(read=3, queued=3)


@pytest.mark.parametrize("more", [{"Unknown": 1}, {"TopicName": "other"}])
async def test_another_record_with_a_lost_topic_id_leaves_it_lost(
    server: RedisServer, streams: Streams, more: dict[str, Any]
) -> None:
    streams.add(topic(1, TopicId=own_id("x")))
    async with opened(server, "one") as queue:
        await queue.take(10)
    streams.trim_all()
    async with opened(server, "one") as queue:
        assert await queue.take(10) == []
        streams.add(topic(1, TopicId=own_id("x"), **more) | more)
        assert [d.history.may_exist for d in await queue.take(10)] in ([], [False])
        counts = await queue.counts()
        assert (counts.read, counts.lost) == (2, 1)


async def test_a_deleted_stream_can_be_filled_again(server: RedisServer, streams: Streams) -> None:
    async with opened(server, "one") as queue:
        records = [read_record(n) for n in range(1, 4)]
        await queue.put(records)
        streams.add(topic(9, TopicId=own_id("x")))
        held = await queue.take(1)
        streams.delete_stream()
        assert await queue.take(1) == []
        await queue.settle([imported(held[0].id)])
        assert (await queue.counts()).imported == 1, "it was held"
        assert await queue.put(records) == 2
        streams.add(topic(9, TopicId=own_id("x")))
        assert len(await queue.take(10)) == 3
