"""A dead letter read as input: its record, first source, TopicId and doubt."""

import re
from typing import Any

from worker.intake.formats.json_lines import Line
from worker.rules.outcome import keeps_topic_id
from worker.rules.record import Record, content_hash, on_one_line
from worker.rules.result_lines import record_in_dead_letter
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, Topic, to_topic

ESCAPED_BYTES_MAX = 6


DEAD_LETTER_BYTES = 1 << 16
"""A dead letter is longer than its record: by its other fields, and by escapes of `raw`."""


DEAD_LETTER_NAMES = frozenset(
    {
        "source",
        "key",
        "group_id",
        "topic_id",
        "reason",
        "code",
        "message",
        "hint",
        "attempts",
        "may_exist",
        "first_attempt",
        "last_attempt",
    }
)


_SOURCE = re.compile(r"(?P<path>.+):(?P<line>[1-9][0-9]{0,17})", re.DOTALL)


def read_topic(
    parsed: dict[str, Any], rules: RecordRules, topic_id: str | None = None
) -> Topic | InvalidRecordError:
    try:
        return to_topic(parsed, rules, topic_id)
    except InvalidRecordError as error:
        return error


def from_dead_letter(path: str, line: Line, letter: dict[str, Any], rules: RecordRules) -> Record:
    """Read the record out of a dead letter: its first source, its TopicId, its doubts."""
    topic_id = letter["topic_id"] if isinstance(letter["topic_id"], str) else None
    may_exist = letter["may_exist"] is True
    # A record that was mended may name a TopicId of its own.
    fixed = topic_id if keeps_topic_id(letter["reason"], may_exist=may_exist) else None
    raw, topic = _record_in(letter, line.content, rules, fixed)
    number = line.number
    source = _SOURCE.fullmatch(str(letter["source"]))
    if source:
        path, number = source["path"], int(source["line"])
    return Record(
        path,
        number,
        content_hash(raw),
        raw,
        topic,
        may_exist=may_exist,
        asked_again=True,
        dead_letter_topic_id=topic_id,
    )


def _record_in(
    letter: dict[str, Any], line: bytes, rules: RecordRules, fixed: str | None
) -> tuple[bytes, Topic | InvalidRecordError]:
    record = letter.get("record")
    if not isinstance(record, dict):
        raw = on_one_line(str(letter.get("raw", "")).encode())
        return raw, _mended(raw, rules)
    try:
        return record_in_dead_letter(line), read_topic(record, rules, fixed)
    except (TypeError, RecursionError):
        # orjson reads deeper than it writes.
        problem = InvalidRecordError(["the record is nested too deeply"], topic_id=fixed)
        return line, problem


def _mended(raw: bytes, rules: RecordRules) -> Topic | InvalidRecordError:
    try:
        return read_topic(parse_record(raw), rules)
    except InvalidRecordError as error:
        return error
