"""Every engine counts, with the outcome, what was cut and which times are odd."""

from pathlib import Path

import orjson

from tests.support.engines import Queue, SqliteUnderTest, open_redis
from tests.support.queues import imported, read_record
from tests.support.redis_server import RedisServer
from tests.support.strategies import GROUP
from worker.rules.record import Record, content_hash
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.topic import RecordRules, to_topic

CUTTING = RecordRules(truncate=True)


def record_of(line: int, create_time: int | None, name: str) -> Record:
    raw = orjson.dumps({"GroupId": GROUP, "TopicName": name, "CreateTime": create_time})
    topic = to_topic(parse_record(raw), CUTTING)
    return Record("a.jsonl", line, content_hash(raw), raw, topic)


async def test_odd_times_of_imported_topics_are_counted(queue: Queue) -> None:
    times = [0, 0, 1, 2**32 - 1, 1_500_000_000, None]
    await queue.put([record_of(n, time, f"topic {n}") for n, time in enumerate(times, 1)])
    await queue.settle([imported(taken.id) for taken in await queue.take(9)])
    counts = await queue.counts()
    assert (counts.imported, counts.warnings()) == (
        6,
        {"create_time_zero": 2, "create_time_before_2000": 1, "create_time_in_future": 1},
    )


async def test_imported_topics_with_a_cut_value_are_counted(tmp_path: Path) -> None:
    queue = SqliteUnderTest(tmp_path)
    await cut_one_of_two(queue)
    await queue.end()


async def test_a_taker_on_redis_counts_what_it_cut(server: RedisServer) -> None:
    queue = await open_redis(server, rules=CUTTING)
    await cut_one_of_two(queue)
    await queue.end()


async def cut_one_of_two(queue: Queue) -> None:
    await queue.put([record_of(1, None, "x" * 40), read_record(2)])
    await queue.settle([imported(taken.id) for taken in await queue.take(9)])
    assert (await queue.counts()).cut == 1
