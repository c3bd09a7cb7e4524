"""The lines of the result files, byte by byte, and the counts."""

import orjson
import pytest

from worker.intake.dead_letters import DEAD_LETTER_NAMES
from worker.rules.counts import WARNINGS, Counts, balance, dead_letter_counts, imported_counts
from worker.rules.outcome import Already, DeadLetter, History, Imported, Reason, Released
from worker.rules.record import Record, content_hash
from worker.rules.result_lines import (
    Subject,
    dead_letter_line,
    dismissed_line,
    imported_line,
    matches_source,
    queued_line,
    record_in_dead_letter,
    rfc3339,
)
from worker.rules.topic.identity import Origin
from worker.rules.topic.problems import InvalidRecordError

SUBJECT = Subject("in.jsonl:7", b'"k"', "@TGS#_a", "@TGS#_a@TOPIC#_b", "话题", ("TopicName",))


def test_the_result_line_of_an_imported_topic() -> None:
    outcome = Imported(1, Already.OWN, History(attempts=2), at=1_700_000_000.5)
    assert imported_line(SUBJECT, outcome).decode() == (
        '{"source":"in.jsonl:7","key":"k","group_id":"@TGS#_a","topic_id":"@TGS#_a@TOPIC#_b",'
        '"topic_name":"话题","attempts":2,"already":"own","truncated":["TopicName"],'
        '"at":"2023-11-14T22:13:20.500Z"}\n'
    )


def test_a_topic_sent_without_id_is_reported_with_its_new_id() -> None:
    nameless = Subject("a:1", None, "@TGS#_a", None, "b")
    outcome = Imported(1, Already.NO, History(), at=0.0, made_id="@TGS#_a@TOPIC#_@TOPIC#c1")
    assert b'"topic_id":"@TGS#_a@TOPIC#_@TOPIC#c1"' in imported_line(nameless, outcome)
    assert b'"already":false' in imported_line(nameless, outcome)


def test_a_dead_letter_holds_the_record_as_it_was_read() -> None:
    raw = b'{"n": 1.10,  "b":"\\u8bdd"}'
    subject = Subject("a:1", b"17", None, None, raw=raw)
    history = History(attempts=3, may_exist=True, first_attempt=0.0, last_attempt=None)
    line = dead_letter_line(subject, DeadLetter(1, Reason.REJECTED, 10010, "gone", "hint", history))
    assert line.decode() == (
        '{"source":"a:1","key":17,"group_id":null,"topic_id":null,"reason":"rejected",'
        '"code":10010,"message":"gone","hint":"hint","attempts":3,"may_exist":true,'
        '"first_attempt":"1970-01-01T00:00:00.000Z","last_attempt":null,'
        '"record":{"n": 1.10,  "b":"\\u8bdd"}}\n'
    )


def test_a_line_that_is_no_object_is_kept_as_text() -> None:
    subject = Subject("a:1", None, None, None, raw=b'{"\xff', is_object=False)
    letter = DeadLetter(1, Reason.INVALID, None, "no", "", History())
    assert dead_letter_line(subject, letter).endswith(b'"raw":"{\\"\\\\xff"}\n')


def test_times_are_rfc_3339_in_utc() -> None:
    assert rfc3339(None) is None
    assert rfc3339(1_700_000_000.0) == "2023-11-14T22:13:20.000Z"


def test_counts_detect_a_wrong_total() -> None:
    assert Counts(read=10, queued=1, imported=2, dead=3, duplicate=4).is_balanced
    assert not Counts(read=9, queued=1, imported=2, dead=3, duplicate=4).is_balanced


def test_counts_are_read_from_what_a_queue_keeps_and_listed_by_name() -> None:
    kept = {"read": 4, "imported": 1, "dead": 2, "lost": 1, "reason:invalid": 2, "code:10010": 0}
    counts = Counts.from_kept(kept | {"rotated:dead": 7})
    assert counts == Counts(read=4, imported=1, dead=2, lost=1, by_reason={"invalid": 2})
    assert Counts(**counts.as_dict()) == counts
    assert counts.is_balanced
    assert counts.places() == {"queued": 0, "imported": 1, "dead": 2, "duplicate": 0, "lost": 1}
    assert "lost" not in Counts().places()
    assert counts.as_dict().keys() - counts.numbers().keys() == {"by_reason", "by_code"}


def test_every_counted_warning_is_a_count() -> None:
    assert {*WARNINGS} < Counts().numbers().keys()
    assert Counts().warnings() == {}
    counts = Counts(create_time_zero=2, create_time_in_future=1)
    assert counts.warnings() == {"create_time_zero": 2, "create_time_in_future": 1}


def test_the_balance_shows_whether_the_sum_holds() -> None:
    line = "queued 1,000 + imported 0 + dead 0 + duplicate 0"
    assert balance(Counts(read=1000, queued=1000)) == f"read 1,000 = {line}"
    assert balance(Counts(read=999, queued=1000)) == f"read 999 IS NOT {line}"
    assert balance(Counts(read=1, lost=1)).endswith(" + LOST 1")


def test_a_record_has_a_source_and_a_content_hash() -> None:
    problem = InvalidRecordError(["no"])
    assert Record("a b.jsonl", 3, b"", b"", problem).source == "a b.jsonl:3"
    assert content_hash(b"x") == content_hash(b"x") != content_hash(b"y")
    assert Released(1, History()).history == History()


def test_an_outcome_names_the_counts_it_increments() -> None:
    def names(already: Already, origin: Origin, *, may_exist: bool = False) -> list[str]:
        outcome = Imported(1, already, History(may_exist=may_exist), at=0.0)
        return imported_counts(outcome, origin)

    assert names(Already.NO, Origin.GIVEN) == ["imported"]
    assert names(Already.OWN, Origin.DERIVED, may_exist=True) == ["imported", "already_own"]
    assert names(Already.BEFORE, Origin.GIVEN) == ["imported", "already_before"]
    before = ["imported", "already_before", "already_before_derived"]
    assert names(Already.BEFORE, Origin.DERIVED) == before
    assert names(Already.NO, Origin.NONE) == ["imported"]
    assert names(Already.NO, Origin.NONE, may_exist=True) == ["imported", "may_exist_twice"]
    outcome = Imported(1, Already.NO, History(), at=1_600_000_000.0)
    assert imported_counts(outcome, Origin.GIVEN, truncated=("TopicName",), create_time=0) == [
        "imported",
        "cut",
        "create_time_zero",
    ]
    assert dead_letter_counts("rejected", 10010) == ["dead", "reason:rejected", "code:10010"]
    assert dead_letter_counts("invalid", None) == ["dead", "reason:invalid"]


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'{"source":"a:1","record":{"n":1.0}}', b'{"n":1.0}'),
        (b'{"source":"a:1","record": {"n":1e2} }', b'{"n":1e2}'),
        (b'{"record":{"n":1},"source":"a:1"}', b'{"n":1}'),
        (b'{"source":"a:1","record":{"n":1},"code":2}', b'{"n":1}'),
        (b'{"x":{"y":1,"record":2},"record":{"n":1}}', b'{"n":1}'),
    ],
    ids=["as-written", "white-space", "first", "in-the-middle", "named-twice"],
)
def test_a_dead_letter_returns_the_bytes_of_its_record(line: bytes, record: bytes) -> None:
    assert record_in_dead_letter(line) == record


def test_a_dismissed_line_is_the_dead_letter_with_a_time() -> None:
    letter = b'{"source":"a.jsonl:1","record":{"n":1.0}}\n'
    line = dismissed_line(letter, 0.5)
    assert line == letter[:-2] + b',"dismissed_at":"1970-01-01T00:00:00.500Z"}\n'


def test_a_queued_record_is_written_like_a_dead_letter_without_a_reason() -> None:
    subject = Subject("a.jsonl:1", None, "@TGS#_a", "@TGS#_a@TOPIC#_b", raw=b'{"n":1.0}')
    line = queued_line(subject, History(attempts=2, may_exist=True))
    written = orjson.loads(line)
    assert (written["reason"], written["code"], written["attempts"]) == (None, None, 2)
    assert (written["may_exist"], written["record"]) == (True, {"n": 1.0})
    assert written.keys() >= DEAD_LETTER_NAMES


def test_a_source_is_chosen_by_its_path_or_its_line() -> None:
    assert matches_source("a:b.jsonl:1", "a:b.jsonl")
    assert matches_source("a.jsonl:1", "a.jsonl:1")
    assert not matches_source("a.jsonl:12", "a.jsonl:1")
    assert not matches_source("a.jsonl:1", "jsonl")


def test_dismissed_records_stand_in_the_sum_once_there_are_any() -> None:
    assert "dismissed" not in balance(Counts())
    counts = Counts(read=3, imported=1, dismissed=2)
    assert balance(counts).endswith("duplicate 0 + dismissed 2")
    assert counts.is_balanced
