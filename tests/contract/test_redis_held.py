"""Records of held communities in the Redis queue: passed over, set aside, and delivered later."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import orjson
import pytest

from tests.support.engines import RedisUnderTest, open_redis
from tests.support.queues import DEAD, imported, read_record
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import (
    SHORT_LEASE_S,
    CallLost,
    ReplyLost,
    Streams,
    let_lease_expire,
    opened,
    rejected,
    replay,
    take_patiently,
    topic,
)
from tests.support.strategies import GROUP
from worker.queues.redis.entries import Entry
from worker.rules.counts import CommunityLetters
from worker.rules.outcome import Delivery, History, Released

SICK, ALSO_SICK = "@TGS#_sick", "@TGS#_also|sick"
HELD = frozenset({SICK})
IN_MEMORY = 3


def names(deliveries: Iterable[Delivery]) -> list[str]:
    return [delivery.topic.name for delivery in deliveries]


def of(group_id: str, *numbers: int) -> list[dict[str, object]]:
    return [topic(number, GroupId=group_id) for number in numbers]


def add_all(streams: Streams, *records: dict[str, object]) -> None:
    for record in records:
        streams.add(record)


async def take_all(queue: RedisUnderTest, without: frozenset[str] = frozenset()) -> list[Delivery]:
    """Take until the queue is drained."""
    taken = await queue.take(3, without=without)
    while not queue.is_drained:
        taken += await queue.take(3, without=without)
    return taken


async def queued(queue: RedisUnderTest) -> int:
    counts = await queue.counts()
    assert counts.is_balanced
    return counts.queued


async def test_held_records_are_passed_over_and_come_first_afterwards(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1, 2), *of(GROUP, 3), *of(SICK, 4), *of(GROUP, 5, 6))
    async with opened(server, "one") as queue:
        assert names(await queue.take(2, without=HELD)) == ["topic 3", "topic 5"]
        assert not queue.is_drained
        assert names(await queue.take(2, without=HELD)) == ["topic 6"]
        assert queue.is_drained
        assert await queued(queue) == 6
        add_all(streams, *of(GROUP, 7))
        taken = await take_all(queue)
        assert names(taken) == ["topic 1", "topic 2", "topic 4", "topic 7"]
        assert all(delivery.history == History() for delivery in taken)


async def test_a_take_reads_on_past_many_held_records(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, *range(700)), *of(GROUP, 700))
    async with opened(server, "one") as queue:
        assert names(await queue.take(1, without=HELD)) == ["topic 700"]


@pytest.mark.parametrize("in_memory", [0, IN_MEMORY, 100])
async def test_held_records_beyond_memory_wait_in_the_side_stream(
    server: RedisServer, streams: Streams, in_memory: int
) -> None:
    add_all(streams, *of(SICK, *range(20)), *of(GROUP, 20, 21))
    async with opened(server, "one", held_in_memory_max=in_memory) as queue:
        taken = await take_all(queue, HELD)
        assert names(taken) == ["topic 20", "topic 21"]
        assert streams.length("held") == max(0, 20 - in_memory)
        assert await queued(queue) == 22
        assert len(streams.pending()) == min(20, in_memory) + 2
        await queue.settle([imported(d.id) for d in taken])
        assert await queued(queue) == 20
        assert not await queue.is_empty()
        assert await queue.oldest_age_s() >= 0
        back = await take_all(queue)
        assert names(back) == [f"topic {n}" for n in range(20)]
        assert all(delivery.history == History() for delivery in back)
        assert (streams.length("held"), await queued(queue)) == (0, 20)
        await queue.settle([imported(d.id) for d in back])
        assert await queue.is_empty()
        assert await queue.take(10) == []
        assert (await queue.counts()).imported == 22
        assert streams.marks() == {}


async def test_what_came_out_of_the_side_stream_is_not_delivered_twice(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1, 2))
    async with opened(server, "one", "two", held_in_memory_max=0) as (one, two):
        assert await one.take(10, without=HELD) == []
        add_all(streams, *of(GROUP, 3))
        (first,) = await one.take(1)
        assert first.topic.name == "topic 1"
        assert names(await two.take(10)) == ["topic 2", "topic 3"]
        assert await two.take(10) == []
        assert sorted(streams.pending().values()) == ["one", "two", "two"]
        assert await one.settle([imported(first.id)]) == [imported(first.id)]
        add_all(streams, *of(GROUP, 4))
        (fourth,) = await two.take(10)
        assert not fourth.history.may_exist


async def test_a_released_record_of_a_held_community_is_held_again(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1, 2))
    async with opened(server, "one", held_in_memory_max=1) as queue:
        (taken, _) = await queue.take(2)
        history = History(attempts=1, may_exist=True)
        await queue.settle([Released(taken.id, history)])
        assert await queue.take(10, without=HELD) == []
        assert await queued(queue) == 2
        (again,) = await queue.take(10)
        assert (again.topic.name, again.history) == ("topic 1", history)


async def test_the_side_stream_keeps_history_source_and_topic_id(
    server: RedisServer,
) -> None:
    raw = orjson.dumps(topic(1, GroupId=SICK))
    async with opened(server, "one", held_in_memory_max=0) as queue:
        await queue.put([read_record(1, raw=raw)])
        (taken,) = await queue.take(1)
        history = History(attempts=3, may_exist=True, first_attempt=5.0, last_attempt=6.0)
        await queue.settle([Released(taken.id, history)])
        assert await queue.take(1, without=HELD) == []
        assert await queue.put([read_record(2, raw=raw)]) == 1, "a duplicate of what is aside"
        assert (await queue.counts()).duplicate == 1
        (again,) = await queue.take(1)
        assert (again.topic, again.history) == (taken.topic, history)
        await queue.settle([DEAD(again.id, history)])
        (letter,) = await queue.dead_letters()
        assert letter["source"] == "a.jsonl:1"


@pytest.mark.parametrize("in_memory", [0, 10])
async def test_a_doubt_that_arrives_while_a_record_is_held_is_delivered(
    server: RedisServer, in_memory: int
) -> None:
    raw = orjson.dumps(topic(1, GroupId=SICK))
    async with opened(server, "one", held_in_memory_max=in_memory) as queue:
        await queue.put([read_record(1, raw=raw)])
        assert await queue.take(1, without=HELD) == []
        other = read_record(1, raw=raw, path="b.jsonl")
        await queue.put([replace(other, may_exist=True, asked_again=True)])
        (taken,) = await queue.take(1)
        assert taken.history.may_exist


async def test_what_a_dead_replica_held_comes_without_doubt(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, *range(10)), *of(GROUP, 10))
    options = {"lease_s": SHORT_LEASE_S, "held_in_memory_max": IN_MEMORY}
    dead = await open_redis(server, "dead", **options)
    (called,) = await dead.take(10, without=HELD)
    await let_lease_expire(dead)
    async with opened(server, "heir", **options) as heir:
        taken: list[Delivery] = []
        while len(taken) < 11:
            taken += await take_patiently(heir)
        doubts = {d.topic.name: d.history.may_exist for d in taken}
        assert doubts == {f"topic {n}": n == 10 for n in range(11)}
        assert await dead.take(20) == [], "others took over what it passed over"
        assert await dead.settle([imported(called.id)]) == []
        await heir.settle([imported(d.id) for d in taken])
        counts = await heir.counts()
        assert (counts.imported, counts.queued, counts.lost) == (11, 0, 0)
    await dead.close()


async def test_a_replica_that_returns_holds_again_without_doubt(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, *range(5)))
    before = await open_redis(server, "one", held_in_memory_max=IN_MEMORY)
    assert await before.take(10, without=HELD) == []
    await before.die()
    async with opened(server, "one", held_in_memory_max=IN_MEMORY) as after:
        assert await after.take(10, without=HELD) == []
        taken = await take_all(after)
        assert names(taken) == [f"topic {n}" for n in range(5)]
        assert all(delivery.history == History() for delivery in taken)


async def test_a_doubtful_record_that_is_held_stays_in_doubt(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1))
    for _ in range(2):
        queue = await open_redis(server, "one")
        await queue.take(10, without=HELD if streams.pending() else frozenset())
        await queue.die()
    async with opened(server, "one") as last:
        (taken,) = await last.take(10)
        assert taken.history.may_exist


@pytest.mark.parametrize("in_memory", [0, 10])
async def test_a_held_record_that_was_delivered_is_in_doubt_after_a_crash(
    server: RedisServer, streams: Streams, in_memory: int
) -> None:
    add_all(streams, *of(SICK, 1))
    queue = await open_redis(server, "one", held_in_memory_max=in_memory)
    assert await queue.take(10, without=HELD) == []
    assert len(await queue.take_of(SICK, 10)) == 1
    await queue.die()
    async with opened(server, "one") as later:
        (again,) = await later.take(10)
        assert again.history.may_exist


async def test_a_replica_that_leaves_gives_back_what_it_held(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, *range(5)))
    async with opened(server, "leaver", held_in_memory_max=IN_MEMORY) as leaver:
        assert await leaver.take(10, without=HELD) == []
    assert (streams.pending(), streams.consumers()) == ({}, set())
    async with opened(server, "other") as other:
        taken = await take_all(other)
        assert sorted(names(taken)) == [f"topic {n}" for n in range(5)]
        assert all(delivery.history == History() for delivery in taken)


async def test_replicas_with_different_held_communities_share_the_rest(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 0, 1), *of(ALSO_SICK, 2, 3), *of(GROUP, 4, 5))
    async with opened(server, "one", "two", held_in_memory_max=0) as (one, two):
        both = HELD | {ALSO_SICK}
        assert names(await take_all(one, both)) == ["topic 4", "topic 5"]
        assert names(await take_all(two, HELD)) == ["topic 2", "topic 3"]
        assert names(await take_all(one, frozenset({ALSO_SICK}))) == ["topic 0", "topic 1"]
        assert await queued(one) == 6


async def test_one_community_can_be_asked_for(server: RedisServer, streams: Streams) -> None:
    add_all(streams, *of(SICK, *range(6)), *of(ALSO_SICK, 6, 7), *of(GROUP, 8))
    held = HELD | {ALSO_SICK}
    async with opened(server, "one", held_in_memory_max=IN_MEMORY) as queue:
        (well,) = await take_all(queue, held)
        assert queue.is_drained
        (probe,) = await queue.take_of(SICK, 1)
        assert (probe.topic.name, probe.history) == ("topic 0", History())
        assert len(await queue.take_of(ALSO_SICK, 10)) == 2
        rest = await queue.take_of(SICK, 10)
        assert sorted(names(rest)) == [f"topic {n}" for n in range(1, 6)]
        assert queue.is_drained
        assert await queue.take_of(SICK, 10) == []
        assert await queue.take(10) == []
        ids = [well.id, probe.id, *(d.id for d in rest)]
        assert len(await queue.settle([imported(n) for n in ids])) == 7


async def test_the_fewest_attempts_are_asked_for_first(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1))
    async with opened(server, "one") as queue:
        (tried,) = await queue.take(1)
        await queue.settle([Released(tried.id, History(attempts=2))])
        add_all(streams, *of(SICK, 2))
        assert await queue.take(10, without=HELD) == []
        assert names(await queue.take_of(SICK, 1)) == ["topic 2"]


async def test_each_community_keeps_records_to_be_asked_with(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, *range(10)), *of(ALSO_SICK, 10, 11))
    async with opened(server, "one", held_in_memory_max=4) as queue:
        assert await queue.take(20, without=HELD | {ALSO_SICK}) == []
        assert streams.length("held") == 8
        kept = {delivery.group_id for delivery in streams_of(queue)}
        assert kept == {SICK, ALSO_SICK}


def streams_of(queue: RedisUnderTest) -> list[Entry]:
    """Return the entries that a queue passed over and has in memory."""
    return queue._hold.passed_over.ready(frozenset(), 100)


SCRIPTS = ["register", "set_aside", "take_aside", "take_new"]


@pytest.mark.parametrize("fault", [ReplyLost, CallLost])
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("in_memory", [0, IN_MEMORY])
async def test_a_failed_call_while_holding_loses_and_doubles_nothing(
    server: RedisServer, streams: Streams, in_memory: int, script: str, fault: type
) -> None:
    add_all(streams, *of(SICK, *range(8)), *of(GROUP, 8))
    async with opened(server, "one", held_in_memory_max=in_memory) as queue:
        sound = queue._scripts[script]
        taken: list[Delivery] = []
        for without in (HELD, frozenset()):
            queue._scripts[script] = fault(sound)
            for _ in range(2):
                taken += await take_all_patiently(queue, without)
            assert await queued(queue) == 9
        assert sorted(names(taken)) == [f"topic {n}" for n in range(9)]
        if script != "register":
            assert all(delivery.history == History() for delivery in taken)
        assert len(await queue.settle([imported(d.id) for d in taken])) == 9
        assert (await queue.counts()).imported == 9
        assert streams.marks() == {}


async def take_all_patiently(queue: RedisUnderTest, without: frozenset[str]) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(20):
        while not queue.is_drained or queue.trouble:
            taken += await queue.take(3, without=without)
    queue.is_drained = False
    return taken


async def test_a_held_record_that_was_trimmed_keeps_its_outcome(
    server: RedisServer, streams: Streams
) -> None:
    async with opened(server, "one", held_in_memory_max=1) as queue:
        await queue.put([read_record(n, raw=orjson.dumps(r)) for n, r in enumerate(of(SICK, 1))])
        assert await queue.take(10, without=HELD) == []
        streams.trim_all()
        (taken,) = await queue.take(10)
        await queue.settle([imported(taken.id)])
        counts = await queue.counts()
        assert (counts.read, counts.imported, counts.lost) == (1, 1, 0)


async def test_deliveries_know_whether_their_community_was_imported_into(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1, 2), *of(GROUP, 3))
    async with opened(server, "one") as queue:
        one, two, three = await queue.take(10)
        assert not any(d.was_imported_into for d in (one, two, three))
        await queue.settle([imported(one.id), rejected(three), Released(two.id, History())])
        add_all(streams, *of(GROUP, 4), *of(SICK, 5))
        taken = {d.topic.name: d.was_imported_into for d in await queue.take(10)}
        assert taken == {"topic 2": True, "topic 4": False, "topic 5": True}
    async with opened(server, "two") as other:
        add_all(streams, *of(SICK, 6))
        assert await other.take(10, without=HELD) == []
        (held,) = await other.take_of(SICK, 1)
        assert held.was_imported_into


async def test_an_import_that_is_settled_twice_counts_once_for_its_community(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1))
    async with opened(server, "one") as queue:
        (taken,) = await queue.take(1)
        queue._scripts["settle"] = ReplyLost(queue._scripts["settle"])
        await queue.settle([imported(taken.id)])
        assert streams.hash("communities") == {SICK: "1"}


async def test_the_worst_communities_follow_every_change_of_dead_letters(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1, 2), *of(ALSO_SICK, 3), *of(GROUP, 4))
    streams.add(b"{")
    async with opened(server, "one") as queue:
        assert await queue.worst_communities(5) == []
        one, two, three, four = await queue.take(10)
        await queue.settle([rejected(one), rejected(two), rejected(three)])
        await queue.settle([DEAD(four.id, History(attempts=8))])
        await queue.put([read_record(1, name="x" * 31), read_record(2)])
        assert await queue.worst_communities(5) == [
            CommunityLetters(SICK, "rejected", 10010, 2),
            CommunityLetters(GROUP, "exhausted", 10002, 1, is_all=True),
            CommunityLetters(GROUP, "invalid", None, 1),
            CommunityLetters(ALSO_SICK, "rejected", 10010, 1),
        ]
        assert len(await queue.worst_communities(1)) == 1
        await queue.put([read_record(1)])
        assert await replay(queue) == 5
        assert await queue.worst_communities(5) == []
        assert streams.hash("dead_by_community") == {"complete": "1"}


async def test_letters_of_an_older_version_are_counted_from_their_stream(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1, 2), *of(GROUP, 3))
    async with opened(server, "one") as queue:
        for taken in await queue.take(10):
            await queue.settle([rejected(taken)])
        expected = await queue.worst_communities(5)
    streams.delete("dead_by_community")
    async with opened(server, "one") as queue:
        assert await queue.worst_communities(5) == expected
        assert await replay(queue) == 3
        assert await queue.worst_communities(5) == []


async def test_a_queue_of_an_older_version_can_be_used(
    server: RedisServer, streams: Streams
) -> None:
    streams.set_hash("held", {"1-1": "5"})
    add_all(streams, *of(SICK, 1))
    async with opened(server, "one", held_in_memory_max=0) as queue:
        assert await queue.take(10, without=HELD) == []
        assert await queued(queue) == 1
        assert streams.hash("renewed") == {"1-1": "5"}


async def test_an_outcome_counts_although_redis_lost_the_move_out_of_the_side_stream(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1, 2))
    async with opened(server, "one", held_in_memory_max=0) as queue:
        assert await queue.take(10, without=HELD) == []
        before = streams.snapshot()
        one, two = await queue.take(10)
        streams.go_back_to(before)
        history = History(attempts=1, may_exist=True)
        outcomes = [imported(one.id), Released(two.id, history)]
        assert await queue.settle(outcomes) == outcomes
        counts = await queue.counts()
        assert (counts.read, counts.imported, counts.queued) == (2, 1, 1)
        (again,) = await queue.take(10)
        assert (again.topic.name, again.history) == ("topic 2", history)
        assert streams.length("held") == 0


async def test_what_redis_forgot_to_have_left_the_side_stream_is_in_doubt(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1))
    async with opened(server, "one", "two", held_in_memory_max=0) as (one, two):
        assert await one.take(10, without=HELD) == []
        before = streams.snapshot()
        (taken,) = await one.take(10)
        streams.go_back_to(before)
        await one.renew()
        (again,) = await two.take(10)
        assert again.history.may_exist
        assert await one.settle([imported(taken.id)]) == []
        assert await two.settle([imported(again.id)]) == [imported(again.id)]


async def test_a_renewed_lease_ends_the_belief_that_nobody_called(
    server: RedisServer, streams: Streams
) -> None:
    add_all(streams, *of(SICK, 1))
    one = await open_redis(server, "one")
    assert await one.take(10, without=HELD) == []
    before = streams.snapshot()
    assert len(await one.take(10)) == 1
    streams.go_back_to(before)
    await one.renew()
    await one.die()
    async with opened(server, "one") as later:
        (again,) = await later.take(10)
        assert again.history.may_exist
