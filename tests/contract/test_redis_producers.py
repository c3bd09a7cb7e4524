"""What producers may write into the Redis stream, and what becomes of their mistakes."""

import asyncio

import orjson
import pytest

from tests.support.engines import open_redis
from tests.support.queues import DEAD, imported
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import (
    PATIENCE_S,
    SHORT_LEASE_S,
    Streams,
    opened,
    own_id,
    rejected,
    topic,
)
from tests.support.strategies import GROUP
from worker.rules.outcome import History


async def test_one_field_is_enough_and_results_come_in_streams(
    server: RedisServer, streams: Streams
) -> None:
    queue = await open_redis(server)
    one, two = streams.add(topic("one")), streams.add(topic("two"))
    first, second = await queue.take(10)
    await queue.settle([imported(first.id), DEAD(second.id, History(attempts=3))])
    (line,), (letter,) = streams.lines("imported"), streams.lines("dead")
    assert (line["source"], letter["source"]) == (f"topics:{one}", f"topics:{two}")
    assert line["topic_id"] == first.topic.topic_id
    assert letter["record"] == topic("two")
    assert not await queue.take(10)
    await queue.close()


async def test_producer_mistakes_are_dead_lettered_with_what_was_sent(
    server: RedisServer, streams: Streams
) -> None:
    queue = await open_redis(server)
    streams.add({"GroupId": GROUP})
    streams.add_fields({"payload": b"what?"})
    streams.add(topic("x" * 2_000_000))
    assert not await queue.take(10)
    letters = await queue.dead_letters()
    assert [letter["reason"] for letter in letters] == ["invalid"] * 3
    assert letters[0]["record"] == {"GroupId": GROUP}
    assert "no field record" in letters[1]["message"]
    assert "records.max_line_bytes" in letters[2]["message"]
    await queue.close()


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\x00", b"[1]", b"", "\N{PILE OF POO}".encode()],
    ids=["half", "no-utf-8", "no-object", "empty", "a-picture"],
)
async def test_content_that_is_not_a_record_is_dead_lettered_unchanged(
    server: RedisServer, streams: Streams, content: bytes
) -> None:
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


async def test_an_invalid_record_is_dead_lettered_with_all_its_fields(
    server: RedisServer, streams: Streams
) -> None:
    record = topic(1, CustomString="kept", Unknown=1)
    streams.add(record)
    async with opened(server, "one") as queue:
        assert await queue.take(10) == []
        (letter,) = await queue.dead_letters()
        assert (await queue.counts()).by_reason == {"invalid": 1}
    assert letter["record"] == record
    assert "Unknown" in letter["message"]


async def test_an_entry_without_a_record_is_dead_lettered_with_its_fields(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_fields({"data": "topic one", "more": b"\xff"})
    async with opened(server, "one") as queue:
        assert await queue.take(10) == []
        (letter,) = await queue.dead_letters()
    assert "record" not in letter
    assert "no field record" in letter["message"]
    assert "topic one" in letter["raw"]


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
async def test_garbled_metadata_of_ours_puts_the_record_in_doubt(
    server: RedisServer, streams: Streams, text: bytes
) -> None:
    entry_id = streams.add(topic(1), **{"topic-import": text})
    streams.add(topic(2))
    async with opened(server, "one") as queue:
        one, two = await queue.take(10)
        assert [one.history.may_exist, two.history.may_exist] == [True, False]
        await queue.settle([rejected(one)])
        (letter,) = await queue.dead_letters()
        assert letter["source"] == f"topics:{entry_id}"


async def test_other_fields_of_a_producer_are_ignored(
    server: RedisServer, streams: Streams
) -> None:
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


async def test_a_record_on_several_lines_becomes_one_result_line(
    server: RedisServer, streams: Streams
) -> None:
    for record in (topic(1), topic(2, Unknown=1)):
        streams.add(orjson.dumps(record, option=orjson.OPT_INDENT_2).replace(b"\n", b"\r\n"))
    async with opened(server, "one") as queue:
        (taken,) = await queue.take(10)
        await queue.settle([rejected(taken)])
        assert len(await queue.dead_letters()) == 2
    for line in streams.raw_lines("dead"):
        assert "\n" not in line
        assert "\r" not in line


LONG_BYTES = 2_000_000


async def test_a_record_beyond_the_bound_is_never_loaded(
    server: RedisServer, streams: Streams
) -> None:
    longs = [b'{"TopicName": "%d' % n + b"x" * LONG_BYTES for n in range(4)]
    for content in longs:
        streams.add(content, other=b"y" * LONG_BYTES)
    streams.add(topic(1), other=b"y" * LONG_BYTES)
    sent_before = streams.sent_bytes()
    async with opened(server, "one") as queue:
        (taken,) = await queue.take(10)
        assert streams.sent_bytes() - sent_before < LONG_BYTES
        assert taken.topic.group_id == GROUP
        letters = await queue.dead_letters()
        assert (await queue.counts()).by_reason == {"invalid": 4}
    for letter, content in zip(letters, longs, strict=True):
        assert f"{len(content)} bytes, too long" in letter["message"]
        assert letter["raw"].encode() == content[: len(letter["raw"])]
    assert streams.whole_records() == longs


async def test_an_entry_without_a_record_beyond_the_bound_is_never_loaded(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_fields({"data": b"x" * LONG_BYTES, "more": b"y" * LONG_BYTES})
    sent_before = streams.sent_bytes()
    async with opened(server, "one") as queue:
        assert await queue.take(10) == []
        assert streams.sent_bytes() - sent_before < LONG_BYTES
        (letter,) = await queue.dead_letters()
    assert "no field record, and 4000008 bytes" in letter["message"]
    (whole,) = streams.whole_records()
    fields = orjson.loads(whole)
    assert fields == ["data", "x" * LONG_BYTES, "more", "y" * LONG_BYTES]


async def test_a_long_record_is_not_loaded_after_a_restart_or_a_takeover(
    server: RedisServer, streams: Streams
) -> None:
    for number in range(2):
        streams.add(b"x" * LONG_BYTES + b"%d" % number)
    streams.deliver_to("one", 1)
    streams.deliver_to("silent", 1)
    sent_before = streams.sent_bytes()
    async with opened(server, "one", lease_s=SHORT_LEASE_S) as queue:
        async with asyncio.timeout(PATIENCE_S):
            while (await queue.counts()).dead < 2:
                assert await queue.take(10) == []
                await asyncio.sleep(SHORT_LEASE_S / 10)
    assert streams.sent_bytes() - sent_before < LONG_BYTES
    assert [len(whole) for whole in streams.whole_records()] == [LONG_BYTES + 1] * 2
