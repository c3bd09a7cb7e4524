"""What the Redis queue does when a command took effect but its reply was lost."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError  # noqa: A004 - Redis' own

from tests.support.engines import open_redis
from tests.support.queues import imported
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import (
    SHORT_LEASE_S,
    CallLost,
    Disk,
    ReplyLost,
    Streams,
    let_lease_expire,
    opened,
    rejected,
    take_patiently,
    topic,
)
from worker.queues.contract import QueueError
from worker.rules.outcome import History, Outcome, Released


async def test_settling_twice_after_a_lost_reply_counts_once(
    server: RedisServer, streams: Streams
) -> None:
    streams.add(topic(1))
    streams.add(topic(2))
    streams.add(topic(3))
    async with opened(server, "one") as queue:
        one, two, three = await queue.take(10)
        held = dict(queue._held)
        outcomes = [imported(one.id), rejected(two), Released(three.id, History(attempts=1))]
        for _ in range(2):
            queue._held = dict(held)
            await queue.settle(outcomes)
        counts = await queue.counts()
        assert (counts.read, counts.queued, counts.imported, counts.dead) == (3, 1, 1, 1)
        await queue.dead_letters()
        assert len(streams.lines("imported")) == 1
        (again,) = await queue.take(10)
        assert (again.topic.name, again.history.attempts) == ("topic 3", 1)


async def test_an_outcome_whose_reply_was_lost_is_still_copied(
    server: RedisServer, streams: Streams
) -> None:
    disk = Disk()
    queue = await open_redis(server, copy=disk)
    streams.add(topic(1))
    (taken,) = await queue.take(1)
    queue._scripts["settle"] = ReplyLost(queue._scripts["settle"])
    await queue.settle([imported(taken.id)])
    assert (await queue.counts()).imported == 1
    assert disk.lines == [line.encode() + b"\n" for line in streams.raw_lines("imported")]
    await queue.close()


@pytest.mark.parametrize("lane", ["", "|1", "|2"])
async def test_a_part_of_a_batch_whose_reply_was_lost_is_settled_again_as_it_was(
    server: RedisServer, streams: Streams, lane: str
) -> None:
    """The queue was given up meanwhile, and the outcomes are settled once more at the end."""
    disk = Disk()
    queue = await open_redis(server, copy=disk)
    streams.add_topics(120)
    outcomes: list[Outcome] = [imported(delivery.id) for delivery in await queue.take(120)]
    script = queue._scripts["settle"]

    async def losing(**given: Any) -> Any:
        reply = await script(**given)
        if given["args"][3].endswith(lane or given["args"][1]):
            queue._scripts["settle"] = script
            queue.give_up()
            raise ConnectionError("the reply is lost")
        return reply

    queue._scripts["settle"] = losing
    with pytest.raises(QueueError):
        await queue.settle(outcomes)
    unanswered = len(queue._held)
    assert 0 < unanswered < len(outcomes)
    assert len(await queue.settle(outcomes)) == unanswered
    assert (await queue.counts()).imported == 120
    copied = [line.rstrip().decode() for line in disk.lines]
    assert sorted(copied) == sorted(streams.raw_lines("imported"))
    await queue.close()


async def test_entries_whose_delivery_reply_was_lost_are_not_in_doubt(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_topics(3)
    async with opened(server, "one") as queue:
        await queue.take(1)
        queue._scripts["take_new"] = ReplyLost(queue._scripts["take_new"])
        assert await queue.take(2) == []
        assert [d.history for d in await queue.take(2)] == [History()] * 2
    async with opened(server, "one") as later:
        assert [d.history.may_exist for d in await later.take(3)] == [True] * 3


@pytest.mark.parametrize("script", ["take_new", "register"])
async def test_several_lost_replies_in_a_row_cause_no_doubt(
    server: RedisServer, streams: Streams, script: str
) -> None:
    async with opened(server, "one") as queue:
        streams.add(topic(1))
        queue._scripts[script] = ReplyLost(queue._scripts[script], 2)
        assert await queue.take(10) == []
        streams.add(topic(2))
        assert await queue.take(10) == []
        doubts = [(d.topic.name, d.history.may_exist) for d in await take_patiently(queue)]
        assert doubts == [("topic 1", False), ("topic 2", False)]


async def test_an_entry_that_another_consumer_held_meanwhile_is_in_doubt(
    server: RedisServer, streams: Streams
) -> None:
    async with opened(server, "one", "two", lease_s=SHORT_LEASE_S) as (one, two):
        one._scripts["take_new"] = ReplyLost(one._scripts["take_new"])
        streams.add(topic(1))
        assert await one.take(10) == []
        (taken,) = await take_patiently(two)
        assert taken.history.may_exist
        await two.fall_silent()
        one._scripts["register"] = CallLost(one._scripts["register"])
        (again,) = await take_patiently(one)
        assert again.history.may_exist, "the other consumer may have called"


async def test_an_entry_that_a_namesake_process_held_is_in_doubt(
    server: RedisServer, streams: Streams
) -> None:
    async with opened(server, "one", "one") as (first, second):
        first._scripts["take_new"] = ReplyLost(first._scripts["take_new"])
        streams.add(topic(1))
        assert await first.take(10) == []
        (taken,) = await take_patiently(second)
        assert taken.history.may_exist
        await second.fall_silent()
        (again,) = await take_patiently(first)
        assert again.history.may_exist


async def test_a_new_consumer_keeps_the_unfinished_batch_of_another(
    server: RedisServer, streams: Streams
) -> None:
    disk = Disk()
    async with opened(server, "one", lease_s=SHORT_LEASE_S, copy=disk) as one:
        streams.add(topic(1))
        (taken,) = await one.take(1)
        one._scripts["settle"] = ReplyLost(one._scripts["settle"], 2)
        settling = asyncio.create_task(one.settle([imported(taken.id)]))
        await let_lease_expire(one)
        async with opened(server, "two", lease_s=SHORT_LEASE_S):
            pass
        assert len(await settling) == len(disk.lines) == 1
