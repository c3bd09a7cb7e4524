"""What the Redis queue does after Redis lost data: all of it, or only who held what."""

import pytest

from tests.support.engines import flush
from tests.support.queues import imported
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import SHORT_LEASE_S, Streams, opened, take_patiently, topic


async def test_a_redis_that_lost_everything_starts_a_new_queue(
    server: RedisServer, streams: Streams
) -> None:
    async with opened(server, "one") as queue:
        flush(server)
        streams.add(topic())
        (taken,) = await take_patiently(queue)
        await queue.settle([imported(taken.id)])
        assert (await queue.counts()).imported == 1


async def test_a_redelivered_entry_is_in_doubt_unless_still_held(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_topics(4)
    async with opened(server, "one") as queue:
        await queue.take(1)
        await queue.take(1)
        (_, held), _ = queue._held.items()
        del queue._held[held.id]  # as if its outcome had been lost too
        streams.forget_deliveries()
        taken = await queue.take(10)
        doubts = [(d.topic.name, d.history.may_exist) for d in taken]
        assert doubts == [("topic 0", True), ("topic 2", False), ("topic 3", False)]


async def test_a_recreated_group_does_not_redeliver_entries_taken_over(
    server: RedisServer, streams: Streams
) -> None:
    streams.add(topic(1))
    async with opened(server, "one", "two", lease_s=SHORT_LEASE_S) as (one, two):
        await one.take(1)
        await one.fall_silent()
        (taken,) = await take_patiently(two)
        streams.forget_deliveries()
        assert await two.take(10) == []
        await two.settle([imported(taken.id)])
        assert (await two.counts()).imported == 1


async def test_a_recreated_group_delivers_another_s_entries_in_doubt(
    server: RedisServer, streams: Streams
) -> None:
    streams.add(topic(1))
    async with opened(server, "one", "two") as (one, two):
        await one.take(1)
        streams.add(topic(2))
        streams.forget_deliveries()
        doubts = [(d.topic.name, d.history.may_exist) for d in await two.take(10)]
        assert doubts == [("topic 1", True), ("topic 2", False)]


async def test_redis_settings_that_may_lose_data_are_logged(
    server: RedisServer, streams: Streams, capsys: pytest.CaptureFixture[str]
) -> None:
    streams.configure("maxmemory", 1 << 30)
    streams.configure("maxmemory-policy", "allkeys-lru")
    async with opened(server, "one"):
        pass
    streams.configure("maxmemory-policy", "noeviction")
    streams.configure("maxmemory", 0)
    logged = "".join(capsys.readouterr())
    assert "Redis keeps nothing on disk" in logged
    assert "set maxmemory-policy noeviction" in logged


async def test_a_queue_that_vanished_is_logged(
    server: RedisServer, streams: Streams, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(server, "one") as queue:
        flush(server)
        await queue.take(1)
    assert "the queue in Redis was gone and is made anew" in "".join(capsys.readouterr())
