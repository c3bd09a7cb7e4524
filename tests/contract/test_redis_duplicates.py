"""Which records of the Redis queue count as the same topic, and which as a conflict."""

from dataclasses import replace

import pytest

from tests.support.engines import open_redis
from tests.support.queues import imported, read_record
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import Streams, opened, own_id, rejected, topic
from worker.rules.outcome import Released


async def test_a_second_record_with_a_topic_id_is_duplicate_or_conflict(
    server: RedisServer, streams: Streams
) -> None:
    queue = await open_redis(server)
    first = streams.add(topic("one", TopicId=own_id("x")))
    streams.add(topic("one", TopicId=own_id("x")))
    streams.add(topic("two", TopicId=own_id("x")))
    assert len(await queue.take(10)) == 1
    counts = await queue.counts()
    assert (counts.queued, counts.duplicate, counts.by_reason) == (1, 1, {"conflict": 1})
    (letter,) = await queue.dead_letters()
    assert f"topics:{first} has the same TopicId" in letter["message"]
    await queue.close()


async def test_an_invalid_record_does_not_take_another_record_s_topic_id(
    server: RedisServer, streams: Streams
) -> None:
    streams.add(topic(1, TopicId=own_id("x")))
    streams.add(topic(2, TopicId=own_id("x"), Unknown=1))
    async with opened(server, "one") as queue:
        (taken,) = await queue.take(10)
        await queue.settle([imported(taken.id)])
        streams.add(topic(3, TopicId=own_id("x")))
        assert await queue.take(10) == []
        assert (await queue.counts()).by_reason == {"invalid": 1, "conflict": 1}


async def test_an_empty_take_of_duplicates_does_not_mean_drained(
    server: RedisServer, streams: Streams
) -> None:
    for _ in range(3):
        streams.add(topic(1))
    streams.add(b"{")
    async with opened(server, "one") as queue:
        assert len(await queue.take(2)) == 1
        assert not queue.is_drained
        assert await queue.take(2) == []
        assert not queue.is_drained, "the take settled two records"
        assert await queue.take(2) == []
        assert queue.is_drained
        assert queue.found == {"duplicate": 2, "dead": 1}


async def test_the_same_topic_from_two_producers_is_delivered_once(
    server: RedisServer, streams: Streams
) -> None:
    streams.add(topic(1, Introduction="a"))
    streams.add({"Introduction": "a", **topic(1)})
    async with opened(server, "one", "two") as (one, two):
        (first,) = await one.take(1)
        assert await two.take(10) == []
        assert (one.found["duplicate"], two.found["duplicate"]) == (0, 1)
        await one.settle([imported(first.id)])
        streams.add(topic(1, Introduction="a"))
        assert await two.take(10) == [], "also after the import"
        counts = await one.counts()
        assert (counts.read, counts.imported, counts.duplicate) == (3, 1, 2)
        assert (counts.queued, counts.dead) == (0, 0)


async def test_a_rejected_topic_can_be_added_again(server: RedisServer, streams: Streams) -> None:
    streams.add(topic(1, TopicId=own_id("x")))
    async with opened(server, "one") as queue:
        (refused,) = await queue.take(10)
        await queue.settle([rejected(refused)])
        streams.add(topic(2, TopicId=own_id("x")))
        (mended,) = await queue.take(10)
        assert mended.topic.name == "topic 2"


async def test_a_copy_of_an_entry_is_a_duplicate(server: RedisServer, streams: Streams) -> None:
    async with opened(server, "one") as queue:
        await queue.put([read_record(1)])
        streams.copy_all()
        (taken,) = await queue.take(10)
        await queue.settle([Released(taken.id, taken.history)])
        streams.copy_all()
        (taken,) = await queue.take(10)
        streams.copy_all()
        await queue.settle([imported(taken.id)])
        assert await queue.take(10) == []
        assert (await queue.counts()).duplicate == 3


@pytest.mark.parametrize("line", [1, 1_000_000, 1_000_001, 44_739_243, 10**17])
async def test_a_line_is_recognised_however_far_down_its_file(
    server: RedisServer, line: int
) -> None:
    async with opened(server, "one") as queue:
        records = [replace(read_record(n), line=line + n) for n in range(2)]
        assert await queue.put(records) == 2
        assert await queue.put(records) == 0
        assert len(await queue.take(10)) == 2
