"""What only the distributed queue promises: producers, leases, crashes, lost replies, trimming."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from tests.contract.conftest import Run
from tests.support.engines import RedisUnderTest, open_redis, running
from tests.support.queues import DEAD, imported, read_record
from tests.support.redis_server import RedisServer, binaries
from tests.support.strategies import GROUP
from worker.queues.contract import QueueError
from worker.queues.redis.streams import StreamUrl
from worker.rules.outcome import History, Released

SHORT_LEASE_S = 0.3
REFRESHED_LEASE_S = 1.2
"""Two thirds of it may a busy machine be late with a refresh."""


def produce(server: RedisServer, *records: Any, **fields: bytes) -> list[str]:
    """Add entries as a producer does that knows of nothing but the field `record`."""
    with redis.Redis(port=server.port, decode_responses=True) as client:
        return [
            str(client.xadd("topics", {"record": orjson.dumps(r).decode()})) for r in records
        ] + ([str(client.xadd("topics", dict(fields)))] if fields else [])


def lines(server: RedisServer, stream: str) -> list[dict[str, Any]]:
    with redis.Redis(port=server.port) as client:
        entries: Any = client.xrange(stream)
    return [orjson.loads(fields[b"line"]) for _, fields in entries]


def topic(name: str, own_id: str | None = None) -> dict[str, Any]:
    record = {"GroupId": GROUP, "TopicName": name}
    return record | ({"TopicId": f"{GROUP}@TOPIC#_{own_id}"} if own_id else {})


async def fall_silent(queue: RedisUnderTest) -> None:
    """Fall silent for longer than the lease."""
    await queue.fall_silent()
    await asyncio.sleep(SHORT_LEASE_S * 1.2)


def test_a_producer_needs_one_field_and_results_come_in_streams(
    server: RedisServer, run: Run
) -> None:
    async def story() -> None:
        queue = await open_redis(server)
        one, two = produce(server, topic("one"), topic("two"))
        first, second = await queue.take(10)
        await queue.settle([imported(first.id), DEAD(second.id, History(attempts=3))])
        (line,), (letter,) = lines(server, "topics:imported"), lines(server, "topics:dead")
        assert (line["source"], letter["source"]) == (f"topics:{one}", f"topics:{two}")
        assert line["topic_id"] == first.topic.topic_id
        assert letter["record"] == topic("two")
        assert not await queue.take(10)
        await queue.close()

    run(story())


def test_what_a_producer_gets_wrong_is_a_dead_letter_with_what_it_sent(
    server: RedisServer, run: Run
) -> None:
    async def story() -> None:
        queue = await open_redis(server)
        produce(server, {"GroupId": GROUP}, payload=b"what?")
        produce(server, topic("x" * 2_000_000))
        assert not await queue.take(10)
        letters = await queue.dead_letters()
        assert [letter["reason"] for letter in letters] == ["invalid"] * 3
        assert letters[0]["record"] == {"GroupId": GROUP}
        assert "no field record" in letters[1]["message"]
        assert "records.max_line_bytes" in letters[2]["message"]
        await queue.close()

    run(story())


def test_the_second_of_two_producers_is_a_duplicate_or_in_conflict(
    server: RedisServer, run: Run
) -> None:
    async def story() -> None:
        queue = await open_redis(server)
        first, *_ = produce(server, topic("one", "x"), topic("one", "x"), topic("two", "x"))
        assert len(await queue.take(10)) == 1
        counts = await queue.counts()
        assert (counts.queued, counts.duplicate, counts.by_reason) == (1, 1, {"conflict": 1})
        (letter,) = await queue.dead_letters()
        assert f"topics:{first} has the same TopicId" in letter["message"]
        await queue.close()

    run(story())


def test_what_a_silent_consumer_holds_is_taken_over_after_the_lease_as_possibly_called(
    server: RedisServer, run: Run
) -> None:
    async def story() -> None:
        one = await open_redis(server, "one", lease_s=SHORT_LEASE_S)
        two = await open_redis(server, "two", lease_s=SHORT_LEASE_S)
        await one.put([read_record(n) for n in range(1, 4)])
        held = await one.take(3)
        assert not await two.take(3)
        await fall_silent(one)
        taken = await two.take(3)
        assert [d.history.may_exist for d in taken] == [True] * 3
        await one.settle([imported(held[0].id), Released(held[1].id, History())])
        assert (await two.counts()).imported == 0, "they are not its own any more"
        await two.settle([imported(d.id) for d in taken])
        counts = await two.counts()
        assert (counts.queued, counts.imported) == (0, 3)
        await one.close()
        await two.close()

    run(story())


def test_what_is_refreshed_is_not_taken_over(server: RedisServer, run: Run) -> None:
    async def story() -> None:
        one = await open_redis(server, "one", lease_s=REFRESHED_LEASE_S)
        two = await open_redis(server, "two", lease_s=REFRESHED_LEASE_S)
        await one.put([read_record(1)])
        await one.take(1)
        for _ in range(4):
            await asyncio.sleep(REFRESHED_LEASE_S / 2)
            assert not await two.take(1)
        await one.close()
        await two.close()

    run(story())


def test_what_a_process_has_in_hand_is_never_given_to_it_twice(
    server: RedisServer, run: Run
) -> None:
    async def story() -> None:
        queue = await open_redis(server, lease_s=SHORT_LEASE_S)
        await queue.put([read_record(n) for n in range(1, 4)])
        taken = await queue.take(3)
        await fall_silent(queue)
        queue._own_unread_after = b"0"
        assert not await queue.take(3)
        await queue.settle([imported(d.id) for d in taken])
        assert (await queue.counts()).imported == 3
        await queue.close()

    run(story())


def test_a_consumer_that_comes_back_goes_on_with_what_it_held(
    server: RedisServer, run: Run
) -> None:
    async def story() -> None:
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

    run(story())


def test_results_are_trimmed_and_dead_letters_never(server: RedisServer, run: Run) -> None:
    async def story() -> None:
        queue = await open_redis(server, keep=5)
        await queue.put([read_record(n) for n in range(1, 21)])
        taken = await queue.take(20)
        await queue.settle([imported(d.id) for d in taken[:12]])
        await queue.settle([DEAD(d.id, History(attempts=3)) for d in taken[12:]])
        _, lengths = await queue.look()
        assert lengths == {"queued": 0, "imported": 5, "dead": 8}
        with redis.Redis(port=server.port) as client:
            assert client.hlen("topics:topics") == 5 + 8, "what is trimmed takes no room"
        await queue.close()

    run(story())


def test_dead_letters_are_put_back_with_their_ids_and_doubts(server: RedisServer, run: Run) -> None:
    async def story() -> None:
        queue = await open_redis(server)
        await queue.put([read_record(1), read_record(2)])
        one, two = await queue.take(2)
        await queue.settle(
            [
                DEAD(one.id, History(attempts=3, may_exist=True)),
                DEAD(two.id, History(attempts=3)),
            ]
        )
        page = await anext(queue.letters())
        assert (await queue.requeue(page), await queue.requeue(page)) == (2, 0)
        again = await queue.take(5)
        assert [d.topic.topic_id for d in again] == [one.topic.topic_id, two.topic.topic_id]
        assert [d.history.may_exist for d in again] == [True, False]
        counts = await queue.counts()
        assert (counts.read, counts.dead, counts.by_reason, counts.by_code) == (2, 0, {}, {})
        await queue.close()

    run(story())


@pytest.mark.parametrize("binary", binaries())
def test_settling_waits_for_a_redis_that_is_away_and_loses_nothing(
    binary: Path, tmp_path: Path, run: Run
) -> None:
    async def story(server: RedisServer) -> None:
        queue = await open_redis(server)
        await queue.put([read_record(1), read_record(2)])
        (taken,) = await queue.take(1)
        server.kill()
        settling = asyncio.create_task(queue.settle([imported(taken.id)]))
        assert await queue.take(1) == []
        assert queue.trouble is not None
        await asyncio.to_thread(server.start)
        await settling
        assert (await queue.counts()).imported == 1
        assert len(await queue.take(5)) == 1
        assert queue.trouble is None
        await queue.close()

    with running(binary, tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        run(story(server))


def test_who_gives_up_waits_no_longer(tmp_path: Path, run: Run) -> None:
    async def story(server: RedisServer) -> None:
        queue = await open_redis(server)
        await queue.put([read_record(1)])
        (taken,) = await queue.take(1)
        server.kill()
        queue.give_up()
        with pytest.raises(QueueError, match="Redis"):
            await queue.settle([imported(taken.id)])
        await queue.close()

    with running(binaries()[0], tmp_path) as server:
        run(story(server))


def test_a_url_is_taken_apart() -> None:
    url = StreamUrl.parse("rediss://u:p@h:1/2?stream=a&group=b&ssl_cert_reqs=none")
    assert (url.stream, url.group) == ("a", "b")
    assert url.server == "rediss://u:p@h:1/2?ssl_cert_reqs=none"
    assert StreamUrl.parse("redis://h").stream == "topics"
