"""A dead letter as input: the record in it, its first source, its TopicId and its doubt."""

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
"""JSON writes one byte of `raw` with at most so many (`\\u0000`)."""
DEAD_LETTER_BYTES = 1 << 16
"""Room for the other fields of a dead letter beside its record."""
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
"""A line is a dead letter if it has all of these names, and `record` or `raw`."""
_SOURCE = re.compile(r"(?P<path>.+):(?P<line>[1-9][0-9]{0,17})", re.DOTALL)


def read_topic(
    parsed: dict[str, Any], rules: RecordRules, topic_id: str | None = None
) -> Topic | InvalidRecordError:
    """Return the topic in a parsed record, or the error that lists the record's problems."""
    try:
        return to_topic(parsed, rules, topic_id)
    except InvalidRecordError as error:
        return error


def is_dead_letter(parsed: dict[str, Any]) -> bool:
    """Return whether a parsed line is a dead letter of this program."""
    return parsed.keys() >= DEAD_LETTER_NAMES and ("record" in parsed or "raw" in parsed)


def from_dead_letter(path: str, line: Line, letter: dict[str, Any], rules: RecordRules) -> Record:
    """Return the record in a dead letter.

    Its source is the one that the dead letter names, if that can be read; else `path` and the
    letter's own line. It keeps the letter's doubt, and its TopicId unless the record has one.
    """
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
        return raw, _topic_in(raw, rules)
    try:
        return record_in_dead_letter(line), read_topic(record, rules, fixed)
    except (TypeError, RecursionError):
        # orjson reads objects that are nested deeper than those it writes.
        problem = InvalidRecordError(["the record is nested too deeply"], topic_id=fixed)
        return line, problem


def _topic_in(raw: bytes, rules: RecordRules) -> Topic | InvalidRecordError:
    try:
        return read_topic(parse_record(raw), rules)
    except InvalidRecordError as error:
        return error
