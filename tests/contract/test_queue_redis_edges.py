"""The distributed queue at its edges: what producers garble, what is trimmed, what is replayed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from tests.contract.conftest import SERVERS, Run
from tests.support.engines import OURS, RedisUnderTest, flush, open_redis, running
from tests.support.queues import RULES, imported, read_record
from tests.support.redis_server import RedisServer
from tests.support.strategies import GROUP
from worker.delivery import Delivery
from worker.outcome import DeadLetter, Released
from worker.queues import JobIdentity, JobMismatchError, QueueError
from worker.queues.redis import RedisQueue, Taking
from worker.queues.redis_streams import StreamUrl
from worker.verdict import History, Reason

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
SHORT_LEASE_S = 0.3
PASSWORD = "s3cret-and-long"
PATIENCE_S = 20.0


class Redis:
    """What a producer does, and what a person sees who looks into the streams."""

    def __init__(self, server: RedisServer) -> None:
        self._client: Any = redis.Redis(port=server.port, decode_responses=True)

    def close(self) -> None:
        self._client.close()

    def add(self, record: Any, **fields: str | bytes) -> str:
        """Add an entry as a producer does; its ID."""
        content = record if isinstance(record, bytes) else orjson.dumps(record)
        entry_id: str = self._client.xadd("topics", {"record": content, **fields})
        return entry_id

    def add_fields(self, fields: dict[str, Any]) -> str:
        entry_id: str = self._client.xadd("topics", fields)
        return entry_id

    def lines(self, kind: str) -> list[dict[str, Any]]:
        return [orjson.loads(fields["line"]) for _, fields in self._client.xrange(f"topics:{kind}")]

    def delete(self, *entry_ids: str) -> None:
        assert self._client.xdel("topics", *entry_ids) == len(entry_ids)

    def trim_all(self) -> None:
        self._client.xtrim("topics", maxlen=0, approximate=False)

    def pending(self) -> dict[str, str]:
        """Tell which consumer holds which entry."""
        found = self._client.xpending_range("topics", "importers", "-", "+", 100)
        return {entry["message_id"]: entry["consumer"] for entry in found}

    def count(self, name: str) -> int:
        return int(self._client.hget("topics:counts", name) or 0)


@pytest.fixture
def streams(server: RedisServer) -> Iterator[Redis]:
    streams = Redis(server)
    yield streams
    streams.close()


@asynccontextmanager
async def opened(server: RedisServer, *names: str, **more: Any) -> AsyncIterator[Any]:
    """Open consumers of these names; one alone is handed over as it is."""
    queues = [await open_redis(server, name, **more) for name in names]
    try:
        yield queues[0] if len(queues) == 1 else queues
    finally:
        for queue in queues:
            queue.give_up()
            await queue.close()


async def stop_refreshing(queue: RedisUnderTest) -> None:
    """Let a consumer fall silent, as a stopped process does, while it holds what it took."""
    queue._closing.set()
    assert queue._holding is not None
    await queue._holding


async def take_patiently(queue: RedisUnderTest, count: int = 10) -> list[Delivery]:
    """Take again and again until something comes."""
    async with asyncio.timeout(PATIENCE_S):
        while not (taken := await queue.take(count)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    return taken


def topic(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"GroupId": GROUP, "TopicName": f"topic {number}", **more}


def own_id(name: str) -> str:
    return f"{GROUP}@TOPIC#_{name}"


def rejected(delivery: Delivery) -> DeadLetter:
    history = History(attempts=1)
    return DeadLetter(delivery.id, Reason.REJECTED, 10010, "no such group", "make it", history)


# ---- producers


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\x00", b"[1]", b"", "\N{PILE OF POO}".encode()],
    ids=["half", "no-utf-8", "no-object", "empty", "a-picture"],
)
def test_what_is_no_record_is_dead_lettered_as_it_came(
    server: RedisServer, streams: Redis, run: Run, content: bytes
) -> None:
    async def story() -> None:
        entry_id = streams.add(content)
        streams.add(topic())
        async with opened(server, "one") as queue:
            (sound,) = await queue.take(10)
            assert sound.topic.name == "topic 1"
            (letter,) = await queue.dead_letters()
        assert letter["source"] == f"topics:{entry_id}"
        assert letter["reason"] == "invalid"
        assert letter["raw"] == content.decode(errors="backslashreplace")
        assert letter["may_exist"] is False

    run(story())


def test_an_invalid_record_of_a_producer_is_dead_lettered_with_all_its_fields(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        record = topic(1, CustomString="kept", Unknown=1)
        streams.add(record)
        async with opened(server, "one") as queue:
            assert await queue.take(10) == []
            (letter,) = await queue.dead_letters()
            assert (await queue.counts()).by_reason == {"invalid": 1}
        assert letter["record"] == record
        assert "Unknown" in letter["message"]

    run(story())


def test_an_entry_without_the_field_is_dead_lettered_with_the_fields_that_it_has(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add_fields({"data": "topic one", "more": b"\xff"})
        async with opened(server, "one") as queue:
            assert await queue.take(10) == []
            (letter,) = await queue.dead_letters()
        assert "record" not in letter
        assert "no field record" in letter["message"]
        assert "topic one" in letter["raw"]

    run(story())


@pytest.mark.parametrize(
    "fields", [{"source": b"\xff"}, {"history": b"{"}, {"history": b"[]"}, {"topic_id": b"\xff"}]
)
def test_fields_of_ours_that_a_producer_garbled_cost_only_that_entry(
    server: RedisServer, streams: Redis, run: Run, fields: dict[str, bytes]
) -> None:
    async def story() -> None:
        streams.add(topic(1), **fields)
        streams.add(topic(2))
        async with opened(server, "one") as queue:
            taken = await queue.take(10)
            assert taken[-1].topic.name == "topic 2"
            counts = await queue.counts()
            assert counts.dead + len(taken) == counts.read == 2

    run(story())


def test_the_same_topic_of_two_producers_is_delivered_once_and_counted_as_a_duplicate(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic(1, Introduction="a"))
        streams.add({"Introduction": "a", **topic(1)})
        async with opened(server, "one", "two") as (one, two):
            (first,) = await one.take(1)
            assert await two.take(10) == []
            assert (one.duplicates, two.duplicates) == (0, 1)
            await one.settle([imported(first.id)])
            streams.add(topic(1, Introduction="a"))
            assert await two.take(10) == [], "nor after it was imported"
            counts = await one.counts()
            assert (counts.read, counts.imported, counts.duplicate) == (3, 1, 2)
            assert (counts.queued, counts.dead) == (0, 0)

    run(story())


def test_a_topic_that_was_refused_may_be_added_again(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic(1, TopicId=own_id("x")))
        async with opened(server, "one") as queue:
            (refused,) = await queue.take(10)
            await queue.settle([rejected(refused)])
            streams.add(topic(2, TopicId=own_id("x")))
            (mended,) = await queue.take(10)
            assert mended.topic.name == "topic 2"

    run(story())


# ---- consumers


def test_never_more_is_taken_than_was_asked_for(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        for number in range(20):
            streams.add(topic(number))
        async with opened(server, "one") as earlier, opened(server, "one") as later:
            await earlier.take(3)
            assert len(await later.take(2)) == 2
            await earlier.take(9)
            for expected in (4, 4, 4, 4, 2, 0):
                later._own_pending_unread = True
                assert len(await later.take(4)) == expected

    run(story())


def test_an_outcome_of_a_consumer_whose_entry_was_taken_over_is_passed_over(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic())
        async with opened(server, "one", "two", lease_s=SHORT_LEASE_S) as (one, two):
            (late,) = await one.take(10)
            await stop_refreshing(one)
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

    run(story())


def test_settling_twice_after_a_lost_reply_counts_once(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
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

    run(story())


# ---- entries that somebody trimmed away


def test_entries_trimmed_away_while_their_consumer_was_gone_are_reported_and_counted(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        for number in range(3):
            streams.add(topic(number))
        async with opened(server, "one") as earlier:
            await earlier.take(2)
        streams.trim_all()
        async with opened(server, "one") as later:
            assert await later.take(10) == []
            assert streams.count("lost") == later.lost == 2
            assert streams.pending() == {}

    run(story())


def test_an_entry_trimmed_away_in_hand_keeps_its_outcome(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        for number in range(3):
            streams.add(topic(number))
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
            assert queue.lost == streams.count("lost") == 0

    run(story())


def test_an_entry_trimmed_away_in_hand_and_never_refreshed_is_either_settled_or_lost(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic(1))
        async with opened(server, "one", lease_s=SHORT_LEASE_S) as queue:
            (taken,) = await queue.take(10)
            await stop_refreshing(queue)
            streams.trim_all()
            await asyncio.sleep(SHORT_LEASE_S * 1.2)
            assert await queue.take(10) == []
            await queue.settle([imported(taken.id)])
            # Redis 7 forgets whose it was when it is looked for, 6.2 does not.
            assert (await queue.counts()).imported + streams.count("lost") == 1

    run(story())


# ---- what is kept


async def replay(queue: RedisUnderTest) -> int:
    return sum([await queue.requeue(page) async for page in queue.letters()])


def test_a_replayed_letter_holds_its_topic_id_again(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        async with opened(server, "one") as queue:
            streams.add(topic(1, TopicId=own_id("x")))
            (refused,) = await queue.take(10)
            await queue.settle([rejected(refused)])
            assert await replay(queue) == 1
            streams.add(topic(1, TopicId=own_id("x")))
            streams.add(topic(2, TopicId=own_id("x")))
            (again,) = await queue.take(10)
            assert again.topic == refused.topic
            counts = await queue.counts()
            assert (counts.duplicate, counts.by_reason) == (1, {"conflict": 1})

    run(story())


def test_a_replayed_conflict_is_a_conflict_still(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    rules = replace(RULES, key_field="id")

    async def story() -> None:
        url = StreamUrl.parse(f"{server.url}?stream=topics&group=importers")
        queue = RedisUnderTest(url, Taking("one", 60.0, 100, rules, 1 << 20))
        await queue.open(OURS)
        first_id = streams.add(topic(1, id=5))
        streams.add(topic(2, id=5))
        (first,) = await queue.take(10)
        await queue.settle([imported(first.id)])
        assert await replay(queue) == 1
        assert await queue.take(10) == [], "its TopicId is the first one's"
        (letter,) = await queue.dead_letters()
        assert letter["reason"] == "conflict"
        assert f"topics:{first_id} has the same TopicId" in letter["message"]
        await queue.close()

    run(story())


def test_a_replay_ends_though_letters_come_back_as_it_reads(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        async with opened(server, "one") as queue:
            for _ in range(3):
                streams.add(b"{")
            await queue.take(10)
            replayed = 0
            async for page in queue.letters():
                replayed += await queue.requeue(page)
                await queue.take(10)  # a service that refuses them again at once
            assert replayed == 3
            assert len(await queue.dead_letters()) == 3

    run(story())


# ---- the job


@pytest.mark.parametrize(
    "other",
    [
        replace(OURS, app="1400000001"),
        replace(OURS, key_field="id"),
        replace(OURS, topic_ids="as-given"),
    ],
)
def test_another_job_is_refused(
    server: RedisServer, streams: Redis, run: Run, other: JobIdentity
) -> None:
    async def story() -> None:
        async with opened(server, "one"):
            url = StreamUrl.parse(f"{server.url}?stream=topics&group=importers")
            queue = RedisQueue(url, Taking("two", 60.0, 100, RULES, 1 << 20))
            with pytest.raises(JobMismatchError, match="the queue topics belongs to a job with"):
                await queue.open(other)
            await queue.close()
        async with opened(server, "two"):
            pass

    run(story())


# ---- Redis is away


@pytest.fixture(params=SERVERS)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test alone that loses nothing it has answered for."""
    with running(SERVERS[request.param], tmp_path, *DURABLE) as server:
        yield server


def test_what_was_taken_survives_a_restart_of_redis_and_is_not_given_twice(
    durable: RedisServer, run: Run
) -> None:
    async def story() -> None:
        async with opened(durable, "one", "two") as (one, two):
            await one.put([read_record(n) for n in range(1, 4)])
            first, second = await one.take(2)
            durable.kill()
            assert await one.take(10) == []
            await asyncio.to_thread(durable.start)
            (third,) = await take_patiently(one)
            assert third.topic.name == "topic 3"
            assert await two.take(10) == []
            await one.settle([imported(d.id) for d in (first, second, third)])
            counts = await two.counts()
            assert (counts.read, counts.queued, counts.imported) == (3, 0, 3)

    run(story())


def test_a_redis_that_lost_everything_is_a_new_queue_and_no_endless_trouble(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        async with opened(server, "one") as queue:
            flush(server)
            streams.add(topic())
            (taken,) = await take_patiently(queue)
            await queue.settle([imported(taken.id)])
            assert (await queue.counts()).imported == 1

    run(story())


# ---- secrets


@pytest.mark.parametrize("given", [PASSWORD, "wrong-" + PASSWORD])
def test_a_password_in_the_url_is_in_no_error_trouble_or_log(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], given: str
) -> None:
    told: list[str] = []

    async def story(server: RedisServer) -> None:
        url = StreamUrl.parse(f"redis://:{given}@127.0.0.1:{server.port}/0?stream=topics")
        queue = RedisQueue(url, Taking("one", 60.0, 100, RULES, 1 << 20))
        try:
            await queue.open(OURS)
        except QueueError as error:
            told.append(repr(error))
        await queue.take(1)
        server.kill()
        await queue.take(1)
        told.extend([repr(queue), str(queue.trouble)])
        queue.give_up()
        with pytest.raises(QueueError) as caught:
            await queue.put([read_record(1)])
        told.append(repr(caught.value))
        await queue.close()

    # --requirepass is set once it runs: the support waits for an answer to a plain PING.
    with running(next(iter(SERVERS.values())), tmp_path) as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", PASSWORD)
        run(story(server))
    logged = capfd.readouterr()
    everything = "".join([*told, logged.out, logged.err])
    assert "Redis" in everything
    assert PASSWORD not in everything
