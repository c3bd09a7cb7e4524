"""When a changed line is the record whose dead letter it replaces, and what dismissing leaves."""

from dataclasses import replace

import orjson
import pytest

from tests.contract.test_queue import exhaust, hand_in, put_and_reject
from tests.support.engines import Queue
from tests.support.queues import DEAD, RULES, read_record
from worker.intake.formats.json_lines import Line
from worker.intake.reader import read
from worker.rules.outcome import History, Released
from worker.rules.record import Record, content_hash
from worker.rules.topic.identity import Origin

BROKEN = b"{"


def keyed(line: int, key: str, name: str) -> Record:
    content = orjson.dumps({"GroupId": "@TGS#_a", "TopicName": name, "id": key})
    rules = replace(RULES, key_field="id")
    return read("a.jsonl", Line(line, content, content_hash(content)), rules)


async def test_a_line_without_lines_around_it_replaces_nothing(queue: Queue) -> None:
    await queue.put([read_record(1, raw=BROKEN)])
    await queue.put([read_record(1)])
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead) == (2, 1, 1)


@pytest.mark.parametrize("batches", [[[1, 2, 3]], [[1], [2], [3]], [[1, 2], [3]]])
async def test_another_file_of_the_same_name_replaces_nothing(
    queue: Queue, batches: list[list[int]]
) -> None:
    await queue.put([read_record(1, raw=BROKEN), read_record(2), read_record(3, raw=b"[")])
    queue.inputs.know([read_record(n, name=f"other {n}") for n in (1, 2, 3)])
    for batch in batches:
        await queue.put([read_record(n, name=f"other {n}") for n in batch])
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead) == (6, 4, 2)
    queue.inputs.know([read_record(3, name="third")])
    await queue.put([read_record(3, name="third")])
    assert (await queue.counts()).dead == 2, "their lines were read again since"


async def test_many_dead_letters_in_a_row_are_mended_together(queue: Queue) -> None:
    bad = [read_record(n, raw=b"{%d" % n) for n in range(2, 8)]
    await queue.put([read_record(1), *bad[:3]])
    await queue.put([*bad[3:], read_record(8)])
    mended = [read_record(n) for n in range(1, 9)]
    queue.inputs.know(mended)
    for record in mended:
        await queue.put([record])
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead) == (8, 8, 0)


async def test_one_changed_line_beside_is_enough_to_keep_a_letter(queue: Queue) -> None:
    await queue.put([read_record(1), read_record(2, raw=BROKEN), read_record(3)])
    await queue.put([read_record(n, name=f"other {n}") for n in (2, 3)])
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead) == (5, 4, 1)


async def test_the_same_key_or_topic_id_is_evidence_alone(queue: Queue) -> None:
    too_long = "x" * 31
    await queue.put([keyed(1, "five", too_long)])
    await put_and_reject(queue, read_record(1, own_id="x", path="b.jsonl"))
    await queue.put([keyed(1, "six", "mended")])
    assert (await queue.counts()).dead == 2
    await queue.put([keyed(2, "seven", too_long)])
    await queue.put([keyed(2, "seven", "mended")])
    await queue.put([read_record(1, own_id="x", path="b.jsonl", name="mended")])
    counts = await queue.counts()
    assert (counts.read, counts.dead) == (4, 1)


async def test_a_letter_that_was_mended_in_doubt_is_compared(queue: Queue) -> None:
    await exhaust(queue, read_record(1, name="one"), read_record(2, name="two"))
    letters = await hand_in(queue)
    await queue.put(letters)
    origins = [delivery.topic.origin for delivery in await queue.take(5)]
    assert origins == [Origin.DERIVED, Origin.DERIVED], "nothing was changed"


async def test_what_was_mended_in_doubt_stays_compared(queue: Queue) -> None:
    await exhaust(queue, read_record(1, name="one"))
    await queue.put(await hand_in(queue, TopicName="x" * 31))
    await queue.put(await hand_in(queue, TopicName="mended"))
    (taken,) = await queue.take(5)
    assert (taken.topic.origin, taken.history.may_exist) == (Origin.GIVEN, True)
    await queue.settle([Released(taken.id, taken.history)])
    (taken,) = await queue.take(5)
    assert taken.topic.origin is Origin.GIVEN
    await queue.settle([DEAD(taken.id, History(attempts=8, may_exist=True))])
    assert await queue.requeue_all() == 1
    (taken,) = await queue.take(5)
    assert (taken.topic.origin, taken.history.may_exist) == (Origin.GIVEN, True)


async def test_a_dismissed_record_leaves_its_topic_id_and_its_doubt(queue: Queue) -> None:
    await exhaust(queue, read_record(1, own_id="x"))
    await put_and_reject(queue, read_record(2, own_id="y"))
    assert await queue.dismiss_all() == 2
    assert await queue.dismiss_all() == 0
    counts = await queue.counts()
    assert (counts.read, counts.dead, counts.dismissed, counts.by_reason) == (2, 0, 2, {})
    assert counts.is_balanced
    assert await queue.put([read_record(1, own_id="x"), read_record(2, own_id="y")]) == 0
    await queue.put([read_record(3, own_id="x", name="topic 1"), read_record(4, own_id="y")])
    doubts = [delivery.history.may_exist for delivery in await queue.take(5)]
    assert doubts == [True, False]
    assert (await queue.counts()).read == 4
