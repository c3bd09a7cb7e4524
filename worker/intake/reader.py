"""Lines become records: parsed, checked, or with the reason why not."""

import re
from collections.abc import Iterator
from typing import Any

from worker.intake.lines import Line, split
from worker.intake.sources import Source, chunks
from worker.outcome import record_in_dead_letter
from worker.record import Record, content_hash, on_one_line
from worker.topic import InvalidRecordError, RecordRules, Topic, parse_record, to_topic

BATCH_RECORDS = 256
BATCH_BYTES = 1 << 21

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


def batches(source: Source, rules: RecordRules, line_bytes_max: int) -> Iterator[list[Record]]:
    """Read a source as batches of records, bounded in number and bytes.

    Raises InputError where the source cannot be read to its end; an unfinished last line of
    such a source is not read.
    """
    batch: list[Record] = []
    batch_bytes = 0
    failure: Exception | None = None
    if source.holds_dead_letters:
        line_bytes_max = line_bytes_max * ESCAPED_BYTES_MAX + DEAD_LETTER_BYTES
    lines = split(chunks(source), line_bytes_max)
    while True:
        try:
            line = next(lines, None)
        except Exception as error:  # noqa: BLE001 - handed on after what was read before it
            failure, line = error, None
        if line is not None:
            batch.append(read(source.name, line, rules))
            batch_bytes += len(line.content)
        if batch and (line is None or len(batch) >= BATCH_RECORDS or batch_bytes >= BATCH_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        if failure:
            raise failure
        if line is None:
            return


def read(path: str, line: Line, rules: RecordRules) -> Record:
    """Read one line as a record, or as the record in a dead letter."""
    if line.too_long_bytes:
        problem = InvalidRecordError(
            [
                f"the line has {line.too_long_bytes} bytes, too long (records.max_line_bytes), "
                "and only its beginning is kept"
            ],
            is_object=False,
        )
        return Record(path, line.number, line.content_hash, line.content, problem)
    try:
        parsed = parse_record(line.content)
    except InvalidRecordError as error:
        return Record(path, line.number, line.content_hash, line.content, error)
    if parsed.keys() >= DEAD_LETTER_NAMES and ("record" in parsed or "raw" in parsed):
        return _from_dead_letter(path, line, parsed, rules)
    topic = _topic(parsed, rules)
    return Record(path, line.number, line.content_hash, line.content, topic)


def _topic(
    parsed: dict[str, Any], rules: RecordRules, topic_id: str | None = None
) -> Topic | InvalidRecordError:
    try:
        return to_topic(parsed, rules, topic_id)
    except InvalidRecordError as error:
        return error


def _from_dead_letter(path: str, line: Line, letter: dict[str, Any], rules: RecordRules) -> Record:
    """Read the record out of a dead letter: its first source, its TopicId, its doubts."""
    topic_id = letter["topic_id"] if isinstance(letter["topic_id"], str) else None
    may_exist = letter["may_exist"] is True
    # A conflict's ID is another record's; and what was mended may give it one of its own.
    fixed = None if letter["reason"] == "conflict" and not may_exist else topic_id
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
        return record_in_dead_letter(line), _topic(record, rules, fixed)
    except (TypeError, RecursionError):
        # orjson reads deeper than it writes.
        problem = InvalidRecordError(["the record is nested too deeply"], topic_id=fixed)
        return line, problem


def _mended(raw: bytes, rules: RecordRules) -> Topic | InvalidRecordError:
    try:
        return _topic(parse_record(raw), rules)
    except InvalidRecordError as error:
        return error
