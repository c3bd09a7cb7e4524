"""What a consumer takes in advance: fewer round trips, no doubt, nothing kept from others."""

import pytest

from tests.support.distance import distant
from tests.support.engines import open_redis
from tests.support.queues import imported
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import (
    SHORT_LEASE_S,
    Streams,
    opened,
    take_patiently,
    topic,
)
from tests.support.strategies import GROUP
from worker.queues.redis import ahead
from worker.rules.outcome import Delivery, History

AHEAD_MAX = 20


def names(deliveries: list[Delivery]) -> list[str]:
    return [delivery.topic.name for delivery in deliveries]


async def test_few_round_trips_take_many_records(server: RedisServer, streams: Streams) -> None:
    streams.add_topics(300)
    async with distant(server.port, 0.01) as distance:
        queue = await open_redis(server, ahead_max=100, port=distance.port)
        before, taken = distance.requests, await queue.take(10)
        while len(taken) < 300:
            taken += await queue.take(10)
        assert sorted(names(taken)) == sorted(f"topic {number}" for number in range(300))
        assert distance.requests - before < 30, "fewer than takes; alone each take needs two"
        await queue.settle([imported(delivery.id) for delivery in taken])
        assert (await queue.counts()).imported == 300
        await queue.end()


async def test_a_large_batch_is_settled_in_parts_that_are_under_way_together(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_topics(230)
    async with opened(server, "one") as queue:
        deliveries = await queue.take(230)
        settled = await queue.settle([imported(delivery.id) for delivery in deliveries])
        assert [outcome.id for outcome in settled] == [delivery.id for delivery in deliveries]
        assert (await queue.counts()).imported == 230
        assert len(streams.hash("batches")) > 1
    assert not streams.hash("batches"), "a consumer that left is forgotten"


async def test_what_was_taken_ahead_is_handed_back_without_doubt(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_topics(30)
    async with opened(server, "one", ahead_max=AHEAD_MAX) as one:
        handed_out = await one.take(2) + await one.take(2)
        await one.settle([imported(delivery.id) for delivery in handed_out])
    async with opened(server, "two") as two:
        left = await two.take(30)
    assert len(left) == 30 - len(handed_out)
    assert all(delivery.history == History() for delivery in left)


async def test_a_consumer_that_pauses_keeps_nothing_from_the_others(
    server: RedisServer, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "IDLE_S", 0.05)
    streams.add_topics(12)
    async with opened(server, "one", "two", ahead_max=AHEAD_MAX) as (one, two):
        seen = names(await one.take(2) + await one.take(2))
        while len(seen) < 12:
            taken = await take_patiently(two, 1)
            assert all(delivery.history == History() for delivery in taken)
            seen += names(taken)
        assert sorted(seen) == sorted(f"topic {number}" for number in range(12))


async def test_only_what_was_taken_ahead_is_in_doubt_after_a_kill(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_topics(60)
    one = await open_redis(server, "one", lease_s=SHORT_LEASE_S, ahead_max=AHEAD_MAX)
    handed_out = len(await one.take(2) + await one.take(2))
    await one.die()
    async with opened(server, "one") as again:
        taken = await again.take(60)
    in_doubt = [delivery for delivery in taken if delivery.history.may_exist]
    assert len(taken) == 60
    assert handed_out <= len(in_doubt) <= handed_out + AHEAD_MAX


async def test_a_community_that_is_held_meanwhile_is_passed_over(
    server: RedisServer, streams: Streams
) -> None:
    sick = "@TGS#_@TGS#cSICK0001"
    for number in range(10):
        streams.add(topic(number, GroupId=sick if number >= 4 else GROUP))
    async with opened(server, "one", ahead_max=AHEAD_MAX) as queue:
        taken = await queue.take(2)
        while not queue.is_drained:
            taken += await queue.take(2, without=frozenset({sick}))
        assert len([d for d in taken if d.topic.group_id == GROUP]) == 4
        assert not [d for d in taken[2:] if d.topic.group_id == sick]
        back = await take_patiently(queue)
        assert {d.topic.group_id for d in back} == {sick}
        assert all(delivery.history == History() for delivery in back)
