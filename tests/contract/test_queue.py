"""What every engine of the queue promises."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.support.engines import Queue
from tests.support.queues import DEAD, RULES, imported, read_record
from worker.intake.formats.json_lines import Line
from worker.intake.reader import read
from worker.rules.counts import CommunityLetters
from worker.rules.outcome import Already, DeadLetter, History, Reason, Released
from worker.rules.record import Record, content_hash
from worker.rules.topic.problems import InvalidRecordError


async def test_records_are_taken_once_and_in_order(queue: Queue) -> None:
    assert await queue.put([read_record(n) for n in range(1, 6)]) == 5
    taken = [*await queue.take(2), *await queue.take(10), *await queue.take(10)]
    assert ([delivery.topic.name for delivery in taken]) == [
        "topic 1",
        "topic 2",
        "topic 3",
        "topic 4",
        "topic 5",
    ]


async def test_lines_read_before_are_not_put_again(queue: Queue) -> None:
    await queue.put([read_record(1), read_record(2)])
    again = await queue.put([read_record(1), read_record(2), read_record(3)])
    assert (again, (await queue.counts()).read) == (1, 3)


async def test_the_same_topic_from_another_line_is_a_duplicate(queue: Queue) -> None:
    await queue.put([read_record(1), read_record(7, name="topic 1")])
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.duplicate) == (2, 1, 1)
    assert counts.is_balanced


async def test_other_content_for_a_topic_id_is_a_conflict(queue: Queue) -> None:
    await queue.put([read_record(1, own_id="x"), read_record(2, own_id="x")])
    counts = await queue.counts()
    assert (counts.queued, counts.dead, counts.by_reason) == (1, 1, {"conflict": 1})
    (letter,) = await queue.dead_letters()
    assert letter["source"] == "a.jsonl:2"
    assert "a.jsonl:1 has the same TopicId" in letter["message"]
    assert letter["may_exist"] is False


async def test_a_settled_record_leaves_the_queue_and_is_counted(queue: Queue) -> None:
    await queue.put([read_record(n) for n in range(1, 4)])
    one, two, three = await queue.take(3)
    await queue.settle(
        [
            imported(one.id, already=Already.OWN),
            DeadLetter(two.id, Reason.REJECTED, 10010, "gone", "", History(attempts=1)),
            Released(three.id, History(attempts=2, may_exist=True, first_attempt=5.0)),
        ]
    )
    counts = await queue.counts()
    assert (counts.queued, counts.imported, counts.dead) == (1, 1, 1)
    assert (counts.already_own, counts.by_code) == (1, {"10010": 1})
    await queue.dead_letters()
    (again,) = await queue.take(5)
    assert again.topic == three.topic
    assert again.history == History(attempts=2, may_exist=True, first_attempt=5.0)


async def test_a_mended_line_replaces_its_dead_letter(queue: Queue) -> None:
    await queue.put([read_record(1), read_record(2, raw=b"{")])
    assert (await queue.counts()).by_reason == {"invalid": 1}
    assert await queue.put([read_record(1), read_record(2)]) == 1
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead, counts.by_reason) == (2, 2, 0, {})
    await queue.dead_letters()


@pytest.mark.parametrize("may_exist", [False, True])
async def test_only_a_rejected_record_without_doubt_can_be_replaced(
    queue: Queue, *, may_exist: bool
) -> None:
    await queue.put([read_record(1, own_id="x")])
    (taken,) = await queue.take(1)
    history = History(attempts=1, may_exist=may_exist)
    await queue.settle([DeadLetter(taken.id, Reason.REJECTED, 80001, "", "", history)])
    await queue.put([read_record(1, own_id="x", name="mended")])
    counts = await queue.counts()
    assert (counts.queued, counts.dead) == ((0, 2) if may_exist else (1, 0))
    assert counts.is_balanced


async def test_a_changed_line_that_was_imported_is_a_conflict(queue: Queue) -> None:
    await queue.put([read_record(1, own_id="x")])
    (taken,) = await queue.take(1)
    await queue.settle([imported(taken.id)])
    await queue.put([read_record(1, own_id="x", name="changed")])
    counts = await queue.counts()
    assert (counts.imported, counts.by_reason) == (1, {"conflict": 1})


async def test_lines_of_standard_input_are_never_mended(queue: Queue) -> None:
    await queue.put([read_record(1, path="-", raw=b"{")])
    await queue.put([read_record(1, path="-")])
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead) == (2, 1, 1)


async def test_a_resubmitted_dead_letter_is_queued_with_its_doubt(queue: Queue) -> None:
    await queue.put([read_record(1)])
    (taken,) = await queue.take(1)
    await queue.settle([DEAD(taken.id, History(attempts=8, may_exist=True))])
    letters = await hand_in(queue)
    await queue.put(letters)
    (again,) = await queue.take(1)
    assert again.history.may_exist
    assert (await queue.counts()).read == 1
    assert await queue.put(letters) == 0, "the record is queued, not dead"


async def test_topics_found_under_derived_ids_are_counted_separately(queue: Queue) -> None:
    await queue.put([read_record(1), read_record(2, own_id="x")])
    derived, given = await queue.take(2)
    await queue.settle(
        [
            imported(derived.id, already=Already.BEFORE),
            imported(given.id, already=Already.BEFORE),
        ]
    )
    counts = await queue.counts()
    assert (counts.already_before, counts.already_before_derived) == (2, 1)


async def put_and_reject(queue: Queue, *records: Record) -> None:
    """Put records, and let the service refuse each: none of their topics can exist."""
    await queue.put(list(records))
    for taken in await queue.take(10):
        letter = DeadLetter(taken.id, Reason.REJECTED, 10010, "", "", History(attempts=1))
        await queue.settle([letter])


async def test_a_rejected_record_that_moved_up_is_not_lost(queue: Queue) -> None:
    await put_and_reject(queue, read_record(3, name="refused"))
    await queue.put([read_record(2, name="refused"), read_record(3, name="next")])
    counts = await queue.counts()
    assert (counts.queued, counts.dead, counts.duplicate) == (2, 0, 1)
    assert [d.topic.name for d in await queue.take(5)] == ["refused", "next"]
    await queue.dead_letters()


async def test_a_record_mended_in_another_file_takes_over_its_topic_id(queue: Queue) -> None:
    await put_and_reject(queue, read_record(1, own_id="x"))
    await queue.put([read_record(1, own_id="x", name="mended", path="b.jsonl")])
    counts = await queue.counts()
    assert (counts.queued, counts.dead, counts.by_reason) == (1, 1, {"rejected": 1})


async def test_a_line_mended_as_a_dead_letter_is_not_reread(queue: Queue) -> None:
    await queue.put([read_record(1, raw=b"{")])
    (letter,) = await hand_in(queue)
    await queue.put([replace(letter, topic=read_record(1).topic, content_hash=b"mended")])
    assert await queue.put([read_record(1, raw=b"{")]) == 0
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead) == (1, 1, 0)


async def test_a_line_that_new_settings_make_valid_is_put(queue: Queue) -> None:
    sound = read_record(1)
    broken = replace(sound, topic=InvalidRecordError(["unknown field title"]))
    await queue.put([broken])
    assert await queue.put([broken]) == 0
    assert await queue.put([sound]) == 1
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead) == (1, 1, 0)


async def test_unfinished_inputs_are_remembered(queue: Queue) -> None:
    for name in ("a", "b"):
        await queue.mark_input(name, unfinished=True)
    await queue.mark_input("a", unfinished=False)
    assert await queue.unfinished_inputs() == ["b"]


async def hand_in(queue: Queue, **changes: Any) -> list[Record]:
    """Return the dead letters as `backfill dead-letter.jsonl` reads them, with fields changed."""
    records = []
    for letter in await queue.dead_letters():
        if "record" in letter:
            letter["record"] |= changes
        content = orjson.dumps(letter)
        records.append(read("dead.jsonl", Line(1, content, content_hash(content)), RULES))
    return records


async def exhaust(queue: Queue, *records: Record) -> None:
    """Put records, and let all attempts of each fail: their topics may exist."""
    await queue.put(list(records))
    for taken in await queue.take(10):
        await queue.settle([DEAD(taken.id, History(attempts=8, may_exist=True))])


async def test_a_doubtful_dead_letter_with_a_duplicate_is_tried_again(queue: Queue) -> None:
    await exhaust(queue, read_record(1, name="twin"), read_record(2, name="twin"))
    await queue.put(await hand_in(queue))
    counts = await queue.counts()
    assert (counts.queued, counts.dead, counts.duplicate) == (1, 0, 1)
    (taken,) = await queue.take(5)
    assert taken.history.may_exist


@pytest.mark.parametrize("path", ["a.jsonl", "b.jsonl"])
async def test_a_letter_of_another_job_puts_the_record_in_doubt(queue: Queue, path: str) -> None:
    """With `backfill a.jsonl other/dead-letter.jsonl`, the other job may have made the topic."""
    record = read_record(1, own_id="x")
    letter = replace(
        record,
        path=path,
        may_exist=True,
        asked_again=True,
        dead_letter_topic_id=record.topic.topic_id,
    )
    await queue.put([record, read_record(2)])
    await queue.put([letter])
    doubts = [(d.topic.name, d.history.may_exist) for d in await queue.take(10)]
    assert doubts == [("topic 1", True), ("topic 2", False)]


async def test_a_letter_mended_wrongly_keeps_its_topic_id_and_doubt(queue: Queue) -> None:
    await exhaust(queue, read_record(1))
    (line,) = await queue.dead_letters()
    await queue.put(await hand_in(queue, TopicName="x" * 31))
    assert (await queue.counts()).by_reason == {"invalid": 1}
    await queue.put(await hand_in(queue, TopicName="mended"))
    (taken,) = await queue.take(5)
    assert taken.topic.topic_id == line["topic_id"]
    assert taken.history.may_exist
    assert (await queue.counts()).read == 1


async def test_a_letter_with_a_truncated_line_changes_nothing(queue: Queue) -> None:
    whole = orjson.dumps({"GroupId": "@TGS#_a", "TopicName": "b", "CustomString": "x" * 2000})
    too_long = Record(
        "a.jsonl",
        1,
        content_hash(whole),
        whole[:100],
        InvalidRecordError(["too long"], is_object=False),
    )
    await queue.put([too_long])
    assert await queue.put(await hand_in(queue)) == 0
    assert await queue.put([read_record(1, raw=whole)]) == 1, (
        "the whole line is valid under a larger limit"
    )
    assert (await queue.counts()).queued == 1


async def test_an_old_letter_does_not_replace_a_newer_record(queue: Queue) -> None:
    await put_and_reject(queue, read_record(1, name="one"))
    old = await hand_in(queue)
    await exhaust(queue, read_record(1, name="two"))
    await queue.put(old)
    counts = await queue.counts()
    assert (counts.queued, counts.dead, counts.read) == (1, 1, 2)


async def test_a_doubt_survives_settings_that_made_its_record_invalid(queue: Queue) -> None:
    await exhaust(queue, read_record(1))
    (letter,) = await hand_in(queue)
    await queue.put([replace(letter, topic=InvalidRecordError(["too long"]))])
    await queue.put([read_record(1)])
    (taken,) = await queue.take(5)
    assert taken.history.may_exist


async def test_a_conflict_is_resolved_by_another_key(queue: Queue) -> None:
    rules = replace(RULES, key_field="id")

    def keyed(line: int, key: int, name: str) -> Record:
        content = orjson.dumps({"GroupId": "@TGS#_a", "TopicName": name, "id": key})
        return read("a.jsonl", Line(line, content, content_hash(content)), rules)

    await queue.put([keyed(1, 5, "one"), keyed(2, 5, "two")])
    assert (await queue.counts()).by_reason == {"conflict": 1}
    (line,) = await queue.dead_letters()
    line["record"]["id"] = 6
    content = orjson.dumps(line)
    await queue.put([read("dead.jsonl", Line(1, content, content_hash(content)), rules)])
    counts = await queue.counts()
    assert (counts.queued, counts.dead, counts.read) == (2, 0, 2)


async def test_untried_records_are_taken_first_where_that_is_asked_for(queue: Queue) -> None:
    await queue.put([read_record(1), read_record(2)])
    (called,) = await queue.take(1)
    await queue.settle([Released(called.id, History(attempts=1))])
    await queue.put([read_record(3)])
    taken = await queue.take(5, untried_first=True)
    names = [delivery.topic.name for delivery in taken]
    assert names == ["topic 2", "topic 3", "topic 1"]
    assert [delivery.history.attempts for delivery in taken] == [0, 0, 1]


async def test_a_dead_letter_put_back_keeps_its_topic_id_and_doubt(queue: Queue) -> None:
    await exhaust(queue, read_record(1))
    (letter,) = await queue.dead_letters()
    assert await queue.requeue_all() == 1
    counts = await queue.counts()
    assert (counts.read, counts.queued, counts.dead, counts.by_reason) == (1, 1, 0, {})
    (taken,) = await queue.take(5)
    assert (taken.topic.topic_id, taken.history.may_exist) == (letter["topic_id"], True)
    assert await queue.requeue_all() == 0


async def test_a_queue_is_empty_once_nothing_is_ready_or_taken(queue: Queue) -> None:
    assert await queue.is_empty()
    assert await queue.oldest_age_s() == 0
    await queue.put([read_record(1)])
    (taken,) = await queue.take(5)
    assert not await queue.is_empty()
    assert await queue.oldest_age_s() >= 0
    assert await queue.settle([imported(taken.id)]) == [imported(taken.id)]
    assert await queue.is_empty()
    assert (queue.trouble, sum(queue.found.values())) == (None, 0)


A, B = "@TGS#_a", "@TGS#_b"
WITHOUT_A = frozenset({A})


def record_of(group_id: str, line: int) -> Record:
    """Return the record of a line, in a community, with the line's number as its name."""
    return read_record(line, raw=orjson.dumps({"GroupId": group_id, "TopicName": f"{line}"}))


async def take_names(queue: Queue, count: int, **options: Any) -> list[str]:
    return [delivery.topic.name for delivery in await queue.take(count, **options)]


async def test_records_of_held_communities_stay_ready_and_in_order(queue: Queue) -> None:
    await queue.put([record_of(A if line % 2 else B, line) for line in range(1, 7)])
    assert await take_names(queue, 2, without=WITHOUT_A) == ["2", "4"]
    assert await take_names(queue, 9, without=WITHOUT_A) == ["6"]
    assert await take_names(queue, 9, without=WITHOUT_A) == []
    assert (await queue.counts()).queued == 6
    assert not await queue.is_empty()
    assert await take_names(queue, 9) == ["1", "3", "5"]


async def test_records_behind_many_held_ones_are_reached(queue: Queue) -> None:
    await queue.put([record_of(A, line) for line in range(1, 501)])
    await queue.put([record_of(B, 501)])
    found: list[str] = []
    for _ in range(100):
        found += await take_names(queue, 3, without=WITHOUT_A)
    assert found == ["501"]


async def test_several_communities_are_held_and_let_go_one_by_one(queue: Queue) -> None:
    await queue.put([record_of(group_id, n) for n, group_id in enumerate([A, B, "@TGS#_c"], 1)])
    assert await take_names(queue, 9, without=frozenset({A, B})) == ["3"]
    assert await take_names(queue, 9, without=WITHOUT_A) == ["2"]
    assert await take_names(queue, 9, without=frozenset({B, "@TGS#_unknown"})) == ["1"]


async def test_untried_records_come_first_beside_held_ones(queue: Queue) -> None:
    await queue.put([record_of(A, 1), record_of(B, 2), record_of(B, 3)])
    for taken in await queue.take(2):
        await queue.settle([Released(taken.id, History(attempts=1))])
    names = await take_names(queue, 9, untried_first=True, without=WITHOUT_A)
    assert names == ["3", "2"]


async def test_the_least_tried_records_of_a_community_are_taken(queue: Queue) -> None:
    await queue.put([record_of(A, 1), record_of(A, 2), record_of(B, 3), record_of(A, 4)])
    one, two = await queue.take(2)
    await queue.settle([Released(one.id, History(attempts=2))])
    await queue.settle([Released(two.id, History(attempts=1))])
    assert await take_names(queue, 9, without=WITHOUT_A) == ["3"]
    taken = [*await queue.take_of(A, 2), *await queue.take_of(A, 9)]
    assert [delivery.topic.name for delivery in taken] == ["4", "2", "1"]
    assert [delivery.history.attempts for delivery in taken] == [0, 1, 2]
    assert await queue.take_of(A, 9) == []
    assert await take_names(queue, 9) == []


async def test_records_of_a_held_community_are_taken_by_its_name(queue: Queue) -> None:
    await queue.put([record_of(A, 1), record_of(A, 2), record_of(B, 3)])
    assert await take_names(queue, 9, without=WITHOUT_A) == ["3"]
    (probe,) = await queue.take_of(A, 1)
    assert probe.topic.name == "1"
    assert await queue.take_of("@TGS#_unknown", 9) == []
    assert await queue.settle([imported(probe.id)]) == [imported(probe.id)]
    assert await take_names(queue, 9, without=WITHOUT_A) == []
    assert await take_names(queue, 9) == ["2"]


@pytest.mark.parametrize("count", [1, 2])
async def test_taking_of_a_community_says_nothing_about_the_rest(queue: Queue, count: int) -> None:
    await queue.put([record_of(A, 1), record_of(B, 2), record_of(B, 3)])
    await queue.take(count, without=WITHOUT_A)
    was_drained = queue.is_drained
    await queue.take_of(A, 1)
    await queue.take_of(A, 1)
    assert queue.is_drained == was_drained


async def test_a_record_put_while_its_community_is_held_is_passed_over(queue: Queue) -> None:
    await queue.put([record_of(A, 1)])
    assert await take_names(queue, 9, without=WITHOUT_A) == []
    await queue.put([record_of(A, 2), record_of(B, 3)])
    assert await take_names(queue, 9, without=WITHOUT_A) == ["3"]
    assert await take_names(queue, 9) == ["1", "2"]


async def test_a_released_record_of_a_held_community_is_passed_over(queue: Queue) -> None:
    await queue.put([record_of(A, 1), record_of(B, 2)])
    (taken,) = await queue.take(1)
    assert await take_names(queue, 9, without=WITHOUT_A) == ["2"]
    await queue.settle([Released(taken.id, History(attempts=1, may_exist=True))])
    assert await take_names(queue, 9, without=WITHOUT_A) == []
    (again,) = await queue.take(9)
    assert again.history == History(attempts=1, may_exist=True)


async def test_a_delivery_says_whether_its_community_was_imported_into(queue: Queue) -> None:
    await queue.put([record_of(A, 1), record_of(B, 2), record_of(A, 3), record_of(A, 4)])
    one, two = await queue.take(2)
    assert not one.was_imported_into
    await queue.settle([imported(one.id), DEAD(two.id, History(attempts=1))])
    await queue.put([record_of(B, 5)])
    (three,) = await queue.take(1)
    assert await queue.take(9, without=frozenset({A, B})) == []
    four, five = [*await queue.take_of(A, 1), *await queue.take_of(B, 1)]
    assert [d.was_imported_into for d in (three, four, five)] == [True, True, False]


async def reject(queue: Queue, *records: Record, code: int) -> None:
    await queue.put(list(records))
    for taken in await queue.take(10):
        letter = DeadLetter(taken.id, Reason.REJECTED, code, "", "", History(attempts=1))
        await queue.settle([letter])


async def test_the_communities_with_the_most_dead_letters_are_named(queue: Queue) -> None:
    assert await queue.worst_communities(5) == []
    await reject(queue, record_of(A, 1), record_of(A, 2), record_of(B, 3), code=10010)
    await reject(queue, record_of(B, 4), record_of(B, 5), record_of(B, 6), code=80001)
    worst = [
        CommunityLetters(B, "rejected", 80001, 3, is_all=True),
        CommunityLetters(A, "rejected", 10010, 2),
        CommunityLetters(B, "rejected", 10010, 1),
    ]
    assert await queue.worst_communities(5) == worst
    assert await queue.worst_communities(2) == worst[:2]
    assert await queue.requeue_all() == 6
    assert await queue.worst_communities(5) == []


async def test_a_mended_line_no_longer_counts_against_its_community(queue: Queue) -> None:
    await reject(queue, record_of(A, 1), record_of(A, 2), record_of(B, 3), code=10010)
    await queue.put([read_record(4)])
    await queue.put([replace(record_of(B, 9), line=2)])
    assert await queue.worst_communities(5) == [
        CommunityLetters(A, "rejected", 10010, 1),
        CommunityLetters(B, "rejected", 10010, 1),
    ]
    await queue.put([replace(record_of(B, 10), line=1)])
    assert await queue.worst_communities(5) == [
        CommunityLetters(B, "rejected", 10010, 1, is_all=True)
    ]


async def test_invalid_records_count_against_the_community_they_name(queue: Queue) -> None:
    nameless = read_record(1, raw=orjson.dumps({"GroupId": A, "TopicName": ""}))
    await queue.put([nameless])
    assert await queue.worst_communities(5) == [
        CommunityLetters(A, "invalid", None, 1, is_all=True)
    ]
    await queue.put([read_record(2, raw=b"{")])
    assert await queue.worst_communities(5) == [CommunityLetters(A, "invalid", None, 1)]
