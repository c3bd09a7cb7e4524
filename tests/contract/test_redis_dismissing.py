"""Dismissing in the Redis queue: what nobody has in hand, and what stands beside the lines."""

import orjson

from tests.support.engines import RedisUnderTest, open_redis
from tests.support.queues import RULES, read_record
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import Streams, opened, own_id, topic
from worker.rules.outcome import History, Released

SICK = "@TGS#_sick"
BYTES_MAX = 1 << 20


async def dismiss_queued(queue: RedisUnderTest, group_id: str) -> tuple[int, int]:
    """Return how many queued records were dismissed, and how many were in somebody's hands."""
    dismissed = taken = 0
    async for page in queue._reader.queued_of(group_id, RULES, BYTES_MAX):
        n = await queue._writer.dismiss_queued(page, 1.0)
        dismissed, taken = dismissed + n, taken + len(page) - n
    return dismissed, taken


async def test_records_in_the_hands_of_a_consumer_are_left(
    server: RedisServer, streams: Streams
) -> None:
    for number in range(5):
        streams.add(topic(number, GroupId=SICK))
    async with opened(server, "one") as queue:
        taken = await queue.take(2)
        assert await dismiss_queued(queue, SICK) == (3, 2)
        counts = await queue.counts()
        assert (counts.read, counts.queued, counts.dismissed) == (5, 2, 3)
        assert await queue.take(5) == []
        await queue.settle([Released(delivery.id, delivery.history) for delivery in taken])
        assert await dismiss_queued(queue, SICK) == (2, 0)
        assert await queue.is_empty()
        lines = streams.lines("dismissed")
        assert [line["record"]["TopicName"] for line in lines] == [
            "topic 2", "topic 3", "topic 4", "topic 0", "topic 1",
        ]  # fmt: skip
        assert streams.remembered_topics() == 0


async def test_records_in_the_side_stream_are_dismissed(
    server: RedisServer, streams: Streams
) -> None:
    for number in range(20):
        streams.add(topic(number, GroupId=SICK))
    async with opened(server, "one", held_in_memory_max=3) as queue:
        assert await queue.take(5, without=frozenset({SICK})) == []
        assert streams.length("held") == 17
        assert await dismiss_queued(queue, SICK) == (17, 3)
        counts = await queue.counts()
        assert (counts.read, counts.queued, counts.dismissed) == (20, 3, 17)
        assert (streams.length("held"), streams.remembered_topics()) == (0, 3)
        assert "held_by_community" not in streams.marks()


async def test_a_queued_record_in_doubt_leaves_its_doubt(server: RedisServer) -> None:
    async with opened(server, "one") as queue:
        await queue.put([read_record(1, own_id="x")])
        (taken,) = await queue.take(1)
        await queue.settle([Released(taken.id, History(attempts=1, may_exist=True))])
        assert await dismiss_queued(queue, taken.topic.group_id) == (1, 0)
        assert await queue.put([read_record(1, own_id="x")]) == 0, "it stays dismissed"
        await queue.put([read_record(2, own_id="x", name="topic 1")])
        (again,) = await queue.take(1)
        assert again.history.may_exist


async def test_a_producer_adds_again_what_was_dismissed_in_doubt(
    server: RedisServer, streams: Streams
) -> None:
    async with opened(server, "one") as queue:
        streams.add(topic(1, TopicId=own_id("x")))
        (taken,) = await queue.take(1)
        await queue.settle([Released(taken.id, History(attempts=1, may_exist=True))])
        assert await dismiss_queued(queue, taken.topic.group_id) == (1, 0)
        streams.add(topic(2, TopicId=own_id("x")))
        streams.add(topic(1, TopicId=own_id("x")))
        (again,) = await queue.take(5)
        assert again.history.may_exist
        assert (await queue.counts()).by_reason == {"conflict": 1}


async def test_a_long_record_is_kept_whole_when_it_is_dismissed(
    server: RedisServer, streams: Streams
) -> None:
    record = topic(1, Introduction="x" * 200)
    strict = await open_redis(server, line_bytes_max=100)
    streams.add(record)
    assert await strict.take(10) == []
    (page,) = [page async for page in strict.letters()]
    entry_ids = [entry_id for entry_id, _ in page]
    assert await strict._reader.whole_records(entry_ids, 1000) == [orjson.dumps(record)]
    assert await strict._reader.whole_records(entry_ids, 100) == [len(orjson.dumps(record))]
    assert await strict.dismiss_all() == 1
    ((_, fields),) = streams.entries("dismissed")
    assert orjson.loads(fields["record"]) == record
    await strict.close()
