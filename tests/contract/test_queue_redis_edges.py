"""The distributed queue at its edges: what producers garble, what is trimmed, what is replayed."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from tests.contract.conftest import SERVERS, Run
from tests.support.engines import OURS, RedisUnderTest, flush, open_redis, redis_queue, running
from tests.support.queues import RULES, imported, read_record
from tests.support.redis_server import RedisServer
from tests.support.strategies import GROUP
from worker.queues.contract import JobIdentity, JobMismatchError, QueueError
from worker.queues.redis.connection import ANSWER_TIMEOUT_S
from worker.queues.redis.queue import RedisQueue, Taking
from worker.queues.redis.streams import StreamUrl
from worker.rules.counts import Counts
from worker.rules.outcome import DeadLetter, Delivery, History, Reason, Released

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
SHORT_LEASE_S = 0.3
REFRESHED_LEASE_S = 1.2
"""Two thirds of it may a busy machine be late with a refresh."""
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

    def add_topics(self, count: int) -> None:
        for number in range(count):
            self.add(topic(number))

    def add_to(self, kind: str, fields: dict[str, Any]) -> None:
        self._client.xadd(f"topics:{kind}", fields)

    def add_fields(self, fields: dict[str, Any]) -> str:
        entry_id: str = self._client.xadd("topics", fields)
        return entry_id

    def lines(self, kind: str) -> list[dict[str, Any]]:
        return [orjson.loads(fields["line"]) for _, fields in self._client.xrange(f"topics:{kind}")]

    def raw_lines(self, kind: str) -> list[str]:
        return [fields["line"] for _, fields in self._client.xrange(f"topics:{kind}")]

    def consumers(self) -> set[str]:
        return {found["name"] for found in self._client.xinfo_consumers("topics", "importers")}

    def delete_stream(self) -> None:
        self._client.delete("topics")

    def copy_all(self) -> None:
        """Add each entry once more, as somebody does who restores a stream."""
        for _, fields in self._client.xrange("topics"):
            self._client.xadd("topics", fields)

    def make_consumer(self, name: str) -> None:
        self._client.xgroup_createconsumer("topics", "importers", name)

    def forget_deliveries(self) -> None:
        """Forget who was given what, as a Redis that loses its last second."""
        self._client.xgroup_destroy("topics", "importers")
        self._client.xgroup_create("topics", "importers", "0")

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
    "text",
    [
        b"\xff", b"{", b"[]", b'{"source": 1}', b'{"source": "x", "history": []}',
        b'{"source": "x", "history": {"attempts": "many"}}',
        b'{"source": "x", "history": {"attempts": 1000000000000000000000000000000}}',
        b'{"source": "x", "history": {"attempts": 1, "first_attempt": 1e20}}',
        b'{"source": "x", "history": {"attempts": 1, "last_attempt": "nan"}}',
    ],
)  # fmt: skip
def test_a_field_of_ours_that_is_garbled_leaves_its_record_in_doubt_and_stops_nothing(
    server: RedisServer, streams: Redis, run: Run, text: bytes
) -> None:
    async def story() -> None:
        entry_id = streams.add(topic(1), **{"topic-import": text})
        streams.add(topic(2))
        async with opened(server, "one") as queue:
            one, two = await queue.take(10)
            assert [one.history.may_exist, two.history.may_exist] == [True, False]
            await queue.settle([rejected(one)])
            (letter,) = await queue.dead_letters()
            assert letter["source"] == f"topics:{entry_id}"

    run(story())


def test_fields_of_a_producer_s_own_mean_nothing(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        theirs: dict[str, str | bytes] = {"source": "legacy", "topic_id": b"\xff", "history": "{"}
        first = streams.add(topic(1, TopicId=own_id("x")), **theirs)
        streams.add(topic(1, TopicId=own_id("x")), **theirs)
        streams.add(topic(2, TopicId=own_id("x")), **theirs)
        async with opened(server, "one") as queue:
            (taken,) = await queue.take(10)
            assert taken.history == History()
            counts = await queue.counts()
            assert (counts.queued, counts.duplicate, counts.by_reason) == (1, 1, {"conflict": 1})
            (letter,) = await queue.dead_letters()
            assert f"topics:{first} has the same TopicId" in letter["message"]

    run(story())


def test_a_record_on_many_lines_is_one_line_of_the_results(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        for record in (topic(1), topic(2, Unknown=1)):
            streams.add(orjson.dumps(record, option=orjson.OPT_INDENT_2).replace(b"\n", b"\r\n"))
        async with opened(server, "one") as queue:
            (taken,) = await queue.take(10)
            await queue.settle([rejected(taken)])
            assert len(await queue.dead_letters()) == 2
        for line in streams.raw_lines("dead"):
            assert "\n" not in line
            assert "\r" not in line

    run(story())


def test_an_invalid_record_that_names_the_topic_id_of_another_leaves_it_to_that_one(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic(1, TopicId=own_id("x")))
        streams.add(topic(2, TopicId=own_id("x"), Unknown=1))
        async with opened(server, "one") as queue:
            (taken,) = await queue.take(10)
            await queue.settle([imported(taken.id)])
            streams.add(topic(3, TopicId=own_id("x")))
            assert await queue.take(10) == []
            assert (await queue.counts()).by_reason == {"invalid": 1, "conflict": 1}

    run(story())


def test_what_ends_as_it_is_taken_is_told_and_says_nothing_of_what_waits(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        for _ in range(3):
            streams.add(topic(1))
        streams.add(b"{")
        async with opened(server, "one") as queue:
            assert len(await queue.take(2)) == 1
            assert not queue.is_drained
            assert await queue.take(2) == []
            assert not queue.is_drained, "two were there, and ended"
            assert await queue.take(2) == []
            assert queue.is_drained
            assert queue.found == {"duplicate": 2, "dead": 1}

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
            assert (one.found["duplicate"], two.found["duplicate"]) == (0, 1)
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
        streams.add_topics(20)
        async with opened(server, "one") as earlier, opened(server, "one") as later:
            await earlier.take(3)
            assert len(await later.take(2)) == 2
            await earlier.take(9)
            for expected in (4, 4, 4, 4, 2, 0):
                later._own_unread_after = b"0"
                assert len(await later.take(4)) == expected

    run(story())


def test_an_outcome_of_a_consumer_whose_entry_was_taken_over_is_passed_over(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic())
        async with opened(server, "one", "two", lease_s=SHORT_LEASE_S) as (one, two):
            (late,) = await one.take(10)
            await one.fall_silent()
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


def test_an_outcome_whose_answer_was_lost_is_in_the_copy_too(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        disk = Disk()
        queue = await open_redis(server, copy=disk)
        streams.add(topic(1))
        (taken,) = await queue.take(1)
        queue._scripts["settle"] = AnswerLost(queue._scripts["settle"])
        await queue.settle([imported(taken.id)])
        assert (await queue.counts()).imported == 1
        assert disk.lines == [line.encode() + b"\n" for line in streams.raw_lines("imported")]
        await queue.close()

    run(story())


def test_what_was_delivered_by_an_answer_that_was_lost_was_called_by_nobody(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add_topics(3)
        async with opened(server, "one") as queue:
            await queue.take(1)
            queue._scripts["take_new"] = AnswerLost(queue._scripts["take_new"])
            assert await queue.take(2) == []
            assert [d.history for d in await queue.take(2)] == [History()] * 2
        async with opened(server, "one") as later:
            assert [d.history.may_exist for d in await later.take(3)] == [True] * 3

    run(story())


class AnswerLost:
    """A script that does its work, and whose first answers do not arrive."""

    def __init__(self, script: Any, times: int = 1) -> None:
        self._script = script
        self._times = times

    async def __call__(self, **given: Any) -> Any:
        answer = await self._script(**given)
        if self._times:
            self._times -= 1
            raise ConnectionError("the answer is lost")
        return answer


class CallLost:
    """A script that is not reached the first time."""

    def __init__(self, script: Any) -> None:
        self._script = script
        self._was_lost = False

    async def __call__(self, **given: Any) -> Any:
        if not self._was_lost:
            self._was_lost = True
            raise ConnectionError("the call is lost")
        return await self._script(**given)


@pytest.mark.parametrize("script", ["take_new", "register"])
def test_nobody_called_for_what_several_lost_answers_in_a_row_delivered(
    server: RedisServer, streams: Redis, run: Run, script: str
) -> None:
    async def story() -> None:
        async with opened(server, "one") as queue:
            streams.add(topic(1))
            queue._scripts[script] = AnswerLost(queue._scripts[script], 2)
            assert await queue.take(10) == []
            streams.add(topic(2))
            assert await queue.take(10) == []
            told = [(d.topic.name, d.history.may_exist) for d in await take_patiently(queue)]
            assert told == [("topic 1", False), ("topic 2", False)]

    run(story())


def test_what_another_had_meanwhile_is_in_doubt_though_its_first_answer_was_lost(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        async with opened(server, "one", "two", lease_s=SHORT_LEASE_S) as (one, two):
            one._scripts["take_new"] = AnswerLost(one._scripts["take_new"])
            streams.add(topic(1))
            assert await one.take(10) == []
            (taken,) = await take_patiently(two)
            assert taken.history.may_exist
            await two.fall_silent()
            one._scripts["register"] = CallLost(one._scripts["register"])
            (again,) = await take_patiently(one)
            assert again.history.may_exist, "the other one may have called"

    run(story())


def test_another_process_of_the_same_name_leaves_no_belief_that_nobody_called(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        async with opened(server, "one", "one") as (first, second):
            first._scripts["take_new"] = AnswerLost(first._scripts["take_new"])
            streams.add(topic(1))
            assert await first.take(10) == []
            (taken,) = await take_patiently(second)
            assert taken.history.may_exist
            await second.fall_silent()
            (again,) = await take_patiently(first)
            assert again.history.may_exist

    run(story())


def test_a_newcomer_after_an_outage_takes_nothing_from_who_lives(
    durable: RedisServer, run: Run
) -> None:
    async def story() -> None:
        async with opened(durable, "one", lease_s=REFRESHED_LEASE_S) as one:
            await one.put([read_record(1)])
            (held,) = await one.take(1)
            durable.kill()
            await asyncio.sleep(REFRESHED_LEASE_S)
            await asyncio.to_thread(durable.start)
            async with opened(durable, "two", lease_s=REFRESHED_LEASE_S) as two:
                assert await two.take(1) == []
                assert len(await one.settle([imported(held.id)])) == 1

    run(story())


def test_a_newcomer_forgets_no_batch_of_one_that_is_cut_off(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        disk = Disk()
        async with opened(server, "one", lease_s=SHORT_LEASE_S, copy=disk) as one:
            streams.add(topic(1))
            (taken,) = await one.take(1)
            one._scripts["settle"] = AnswerLost(one._scripts["settle"], 2)
            settling = asyncio.create_task(one.settle([imported(taken.id)]))
            await one.fall_silent()
            await asyncio.sleep(SHORT_LEASE_S * 1.2)
            async with opened(server, "two", lease_s=SHORT_LEASE_S):
                pass
            assert len(await settling) == len(disk.lines) == 1

    run(story())


def test_another_group_on_the_same_stream_is_refused(server: RedisServer, run: Run) -> None:
    async def story() -> None:
        async with opened(server, "one"):
            url = StreamUrl.parse(f"{server.url}?stream=topics&group=others")
            other = RedisQueue(url, Taking("two", 60.0, 100, RULES, 1 << 20))
            with pytest.raises(JobMismatchError, match="a job with group importers, this run has"):
                await other.open(OURS)
            await other.close()

    run(story())


# ---- entries that somebody trimmed away


def test_entries_trimmed_away_while_their_consumer_was_gone_are_reported_and_counted(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add_topics(3)
        async with opened(server, "one") as earlier:
            await earlier.take(2)
        streams.trim_all()
        async with opened(server, "one") as later:
            assert await later.take(10) == []
            assert (await later.counts()).lost == later.found["lost"] == 2
            assert streams.pending() == {}

    run(story())


def test_an_entry_trimmed_away_in_hand_keeps_its_outcome(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
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

    run(story())


def test_an_entry_trimmed_away_in_hand_and_noted_as_lost_by_another_is_settled_after_all(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add_topics(3)
        async with opened(server, "one", "two", lease_s=SHORT_LEASE_S) as (one, two):
            first, second, third = await one.take(10)
            await one.fall_silent()
            streams.trim_all()
            await asyncio.sleep(SHORT_LEASE_S * 1.2)
            # Redis 6.2 hands deleted ones over first, and they are found at the next look.
            assert [*await two.take(10), *await two.take(10)] == []
            assert (await two.counts()).lost == two.found["lost"] == 3
            history = History(attempts=1, may_exist=True)
            await one.settle([imported(first.id), rejected(second), Released(third.id, history)])
            counts = await one.counts()
            assert (counts.imported, counts.dead, counts.queued, counts.read) == (1, 1, 1, 3)
            assert (await one.counts()).lost == 0

    run(story())


def test_an_entry_trimmed_away_is_not_lost_while_its_consumer_lives(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic(1))
        async with opened(server, "one", "two", lease_s=REFRESHED_LEASE_S) as (one, two):
            (taken,) = await one.take(10)
            streams.trim_all()
            for _ in range(8):
                assert await two.take(10) == []
                await asyncio.sleep(REFRESHED_LEASE_S / 4)
            assert two.found["lost"] == (await two.counts()).lost == 0
            await one.settle([imported(taken.id)])
            assert await one.counts() == Counts(read=1, imported=1)

    run(story())


def test_an_entry_trimmed_away_in_hand_is_not_told_as_lost_by_who_has_it(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
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

    run(story())


def test_a_record_that_was_lost_can_be_added_again(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
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
            queue._scripts["register"] = AnswerLost(queue._scripts["register"])
            assert await queue.take(10) == []
            taken = await take_patiently(queue)
            assert [d.history.may_exist for d in taken] == [True] * 3
            assert await queue.counts() == Counts(read=3, queued=3)

    run(story())


@pytest.mark.parametrize("more", [{"Unknown": 1}, {"TopicName": "other"}])
def test_another_record_with_the_id_of_a_lost_one_leaves_it_lost(
    server: RedisServer, streams: Redis, run: Run, more: dict[str, Any]
) -> None:
    async def story() -> None:
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

    run(story())


def test_a_stream_that_was_deleted_can_be_filled_again(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        async with opened(server, "one") as queue:
            records = [read_record(n) for n in range(1, 4)]
            await queue.put(records)
            streams.add(topic(9, TopicId=own_id("x")))
            held = await queue.take(1)
            streams.delete_stream()
            assert await queue.take(1) == []
            await queue.settle([imported(held[0].id)])
            assert (await queue.counts()).imported == 1, "it was in hand"
            assert await queue.put(records) == 2
            streams.add(topic(9, TopicId=own_id("x")))
            assert len(await queue.take(10)) == 3

    run(story())


def test_a_copy_of_an_entry_is_a_duplicate(server: RedisServer, streams: Redis, run: Run) -> None:
    async def story() -> None:
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

    run(story())


def test_a_stream_that_was_flushed_is_the_same_job_s_again(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        async with opened(server, "one") as queue:
            flush(server)
            await queue.take(1)
            with pytest.raises(JobMismatchError):
                await open_redis_as(server, replace(OURS, app="1400000001"))

    run(story())


async def open_redis_as(server: RedisServer, identity: JobIdentity) -> None:
    queue = redis_queue(server, "two")
    try:
        await queue.open(identity)
    finally:
        await queue.close()


# ---- what is kept


def test_a_record_that_is_too_long_is_kept_whole_and_can_be_replayed(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        record = topic(1, Introduction="x" * 200)
        strict = await open_redis(server, line_bytes_max=100)
        streams.add(record)
        assert await strict.take(10) == []
        (letter,) = await strict.dead_letters()
        assert "records.max_line_bytes" in letter["message"]
        await strict.close()
        async with opened(server, "one") as queue:
            assert await replay(queue) == 1
            (taken,) = await queue.take(10)
            assert b"x" * 200 in taken.topic.body

    run(story())


def test_a_result_of_somebody_else_s_stops_nothing(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add_to("imported", {"line": "{}"})
        streams.add_to("dead", {"other": "x"})
        async with opened(server, "one", keep=1) as queue:
            streams.add_topics(2)
            await queue.settle([imported(d.id) for d in await queue.take(10)])
            assert (await queue.look())[1] == {"queued": 0, "imported": 1, "dead": 1}
            assert await replay(queue) == 0

    run(story())


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
        queue = await open_redis(server, rules=rules)
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
            queue = redis_queue(server, "two")
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


def test_what_a_forgetful_redis_delivers_again_is_in_hand_or_in_doubt(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add_topics(4)
        async with opened(server, "one") as queue:
            await queue.take(1)
            await queue.take(1)
            (_, held), _ = queue._held.items()
            del queue._held[held.id]  # as if its outcome was forgotten too
            streams.forget_deliveries()
            taken = await queue.take(10)
            told = [(d.topic.name, d.history.may_exist) for d in taken]
            assert told == [("topic 0", True), ("topic 2", False), ("topic 3", False)]

    run(story())


def test_what_was_taken_over_is_not_delivered_again_by_a_group_that_was_made_anew(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic(1))
        async with opened(server, "one", "two", lease_s=SHORT_LEASE_S) as (one, two):
            await one.take(1)
            await one.fall_silent()
            (taken,) = await take_patiently(two)
            streams.forget_deliveries()
            assert await two.take(10) == []
            await two.settle([imported(taken.id)])
            assert (await two.counts()).imported == 1

    run(story())


def test_what_a_group_made_anew_delivers_to_another_is_in_doubt(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic(1))
        async with opened(server, "one", "two") as (one, two):
            await one.take(1)
            streams.add(topic(2))
            streams.forget_deliveries()
            told = [(d.topic.name, d.history.may_exist) for d in await two.take(10)]
            assert told == [("topic 1", True), ("topic 2", False)]

    run(story())


def test_an_outage_longer_than_the_lease_takes_nothing_from_who_lives(
    durable: RedisServer, run: Run
) -> None:
    async def story() -> None:
        async with opened(durable, "one", "two", lease_s=REFRESHED_LEASE_S) as (one, two):
            await one.put([read_record(n) for n in range(1, 4)])
            held = await one.take(3)
            durable.kill()
            assert await two.take(3) == []
            await asyncio.sleep(REFRESHED_LEASE_S)
            await asyncio.to_thread(durable.start)
            while two.trouble:
                assert await two.take(3) == []
            for _ in range(4):
                assert await two.take(3) == []
                await asyncio.sleep(REFRESHED_LEASE_S / 4)
            await one.settle([imported(d.id) for d in held])
            assert (await two.counts()).imported == 3

    run(story())


def limit_memory(server: RedisServer, maxmemory: int) -> None:
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory", maxmemory)


def test_a_redis_that_is_full_settles_and_leaves_no_doubt(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        async with opened(server, "one") as queue:
            streams.add(topic(1))
            streams.add(topic(2))
            (first,) = await queue.take(1)
            limit_memory(server, 1)
            try:
                await queue.settle([imported(first.id)])
                assert (await queue.counts()).imported == 1, "who looks is not refused"
                assert await queue.take(1) == []
                assert "raise its maxmemory" in str(queue.trouble)
            finally:
                limit_memory(server, 0)
            (second,) = await take_patiently(queue)
            assert second.history == History(), "it was never in anybody's hands"
            assert queue.trouble is None

    run(story())


def test_who_gives_up_waits_no_longer_for_a_redis_that_hangs(
    durable: RedisServer, run: Run
) -> None:
    async def story() -> None:
        queue = await open_redis(durable, "one", lease_s=SHORT_LEASE_S)
        await queue.put([read_record(1), read_record(2)])
        (taken,) = await queue.take(1)
        with durable.hanging():
            settling = asyncio.create_task(queue.settle([imported(taken.id)]))
            taking = asyncio.create_task(queue.take(1))
            await asyncio.sleep(SHORT_LEASE_S)
            began_s = asyncio.get_running_loop().time()
            queue.give_up()
            with pytest.raises(QueueError, match="does not answer"):
                await settling
            assert await taking == []
            with pytest.raises(QueueError, match="does not answer"):
                await queue.counts()
            await queue.close()
            assert asyncio.get_running_loop().time() - began_s < ANSWER_TIMEOUT_S / 2

    run(story())


def test_who_gives_up_settles_what_is_left_where_redis_answers(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        streams.add(topic(1))
        async with opened(server, "one") as queue:
            (taken,) = await queue.take(1)
            queue.give_up()
            await queue.settle([Released(taken.id, taken.history)])
            assert await queue.counts() == Counts(read=1, queued=1)

    run(story())


# ---- consumers come and go


def test_consumers_that_hold_nothing_are_forgotten(
    server: RedisServer, streams: Redis, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.queues.redis.queue.FORGET_S", 0.0)

    async def story() -> None:
        streams.add(topic(1))
        streams.add(topic(2))
        async with opened(server, "holder") as holder, opened(server, "leaver") as leaver:
            await holder.take(1)
            (taken,) = await leaver.take(1)
            assert streams.consumers() == {"holder", "leaver"}
            await leaver.settle([imported(taken.id)])
        assert streams.consumers() == {"holder"}, "it holds a record still"
        streams.make_consumer("killed")
        async with opened(server, "next", lease_s=0.0):
            assert streams.consumers() <= {"holder", "next"}

    run(story())


def test_consumers_of_a_queue_that_was_never_opened_are_none(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        queue = redis_queue(server)
        assert await queue.consumers() == {}
        streams.add(topic(1))
        assert await queue.consumers() == {}
        await queue.close()

    run(story())


# ---- positions


@pytest.mark.parametrize("line", [1, 1_000_000, 1_000_001, 44_739_243, 10**17])
def test_a_line_is_known_again_however_far_down_its_file(
    server: RedisServer, run: Run, line: int
) -> None:
    async def story() -> None:
        async with opened(server, "one") as queue:
            records = [replace(read_record(n), line=line + n) for n in range(2)]
            assert await queue.put(records) == 2
            assert await queue.put(records) == 0
            assert len(await queue.take(10)) == 2

    run(story())


# ---- the copy


class Disk:
    """A copy that is full for a while."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.is_full = False
        self.lines: list[bytes] = []
        self._waiting: list[bytes] = []

    def append(self, lines: Mapping[str, list[bytes]]) -> None:
        self._waiting += chain.from_iterable(lines.values())
        self.flush()

    def flush(self) -> None:
        self.trouble = "full" if self.is_full else None
        if not self.is_full:
            self.lines += self._waiting
            self._waiting.clear()


def test_a_full_disk_stops_taking_and_loses_no_outcome(
    server: RedisServer, streams: Redis, run: Run
) -> None:
    async def story() -> None:
        disk = Disk()
        queue = await open_redis(server, copy=disk)
        streams.add(topic(1))
        streams.add(topic(2))
        (taken,) = await queue.take(1)
        disk.is_full = True
        await queue.settle([imported(taken.id)])
        assert (await queue.counts()).imported == 1
        assert queue.trouble == "full"
        assert await queue.take(1) == []
        disk.is_full = False
        assert len(await queue.take(1)) == 1
        assert queue.trouble is None
        assert disk.lines == [line.encode() + b"\n" for line in streams.raw_lines("imported")]
        await queue.close()

    run(story())


# ---- what may be lost is said


def test_a_redis_that_may_lose_the_queue_is_warned_of(
    server: RedisServer, streams: Redis, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story() -> None:
        limit_memory(server, 1 << 30)
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        async with opened(server, "one"):
            pass
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory-policy", "noeviction")
        limit_memory(server, 0)

    run(story())
    said = "".join(capsys.readouterr())
    assert "Redis keeps nothing on disk" in said
    assert "set maxmemory-policy noeviction" in said


def test_a_queue_that_vanished_is_said(
    server: RedisServer, streams: Redis, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story() -> None:
        async with opened(server, "one") as queue:
            flush(server)
            await queue.take(1)

    run(story())
    assert "the queue in Redis was gone and is made anew" in "".join(capsys.readouterr())


# ---- secrets


@pytest.mark.parametrize("given", [PASSWORD, "wrong-" + PASSWORD])
def test_a_password_in_the_url_is_in_no_error_trouble_or_log(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], given: str
) -> None:
    told: list[str] = []

    async def story(server: RedisServer) -> None:
        url = StreamUrl.parse(f"redis://:{given}@127.0.0.1:{server.port}/0?stream=topics")
        queue = RedisUnderTest(url, Taking("one", 60.0, 100, RULES, 1 << 20))
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
