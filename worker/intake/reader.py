"""The lines of an input become records, each with its topic or the reason why it has none."""

from collections.abc import Callable, Iterator
from typing import Any

from worker.intake.dead_letters import (
    DEAD_LETTER_BYTES,
    ESCAPED_BYTES_MAX,
    from_dead_letter,
    is_dead_letter,
    read_topic,
)
from worker.intake.formats.json_lines import Line
from worker.intake.opening import lines_of
from worker.intake.sources import InputError, Source
from worker.rules.record import Record
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules

BATCH_RECORDS = 500
BATCH_BYTES = 1 << 21


def batches(
    source: Source,
    rules: RecordRules,
    line_bytes_max: int,
    on_skipped: Callable[[int], None] = lambda _: None,
) -> Iterator[list[Record]]:
    """Yield the records of a source in batches, those of `line_batches`.

    `on_skipped`: is told how many records of a batch were not chosen (`records.where`). If the
    source cannot be read to its end, raises InputError after the batch of what could be read; the
    line at which reading stopped is not part of it.
    """
    for lines in line_batches(source, line_bytes_max):
        records = [
            record
            for line in lines
            if (record := read_chosen(source.name, line, rules)) is not None
        ]
        if len(records) < len(lines):
            on_skipped(len(lines) - len(records))
        if records:
            yield records


def read_chosen(path: str, line: Line, rules: RecordRules) -> Record | None:
    """Return the record in one line as `read`, None if it is not chosen (`records.where`).

    A dead letter was chosen when it was read first.
    """
    if not rules.where:
        return read(path, line, rules)
    try:
        parsed = line.record()
    except InvalidRecordError as error:
        return Record(path, line.number, line.content_hash, line.content, error)
    if not is_dead_letter(parsed) and not rules.mapping.chooses(parsed):
        return None
    return read_parsed(path, line, parsed, rules)


def line_batches(source: Source, line_bytes_max: int) -> Iterator[list[Line]]:
    """Yield the lines of a source in batches; raises as `batches`.

    A batch is full at BATCH_RECORDS lines, or with the line that reaches BATCH_BYTES. Of a line
    longer than `line_bytes_max` bytes only the beginning is kept.
    """
    if source.holds_dead_letters:
        line_bytes_max = line_bytes_max * ESCAPED_BYTES_MAX + DEAD_LETTER_BYTES
    batch: list[Line] = []
    batch_bytes = 0
    try:
        for line in lines_of(source, line_bytes_max):
            batch.append(line)
            batch_bytes += len(line.content)
            if len(batch) >= BATCH_RECORDS or batch_bytes >= BATCH_BYTES:
                yield batch
                batch, batch_bytes = [], 0
    except InputError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def read(path: str, line: Line, rules: RecordRules) -> Record:
    """Return the record in one line, which may be a dead letter that holds the record.

    `path`: the input's path as the user gave it. Never raises for what the line holds.
    """
    try:
        parsed = line.record()
    except InvalidRecordError as error:
        return Record(path, line.number, line.content_hash, line.content, error)
    return read_parsed(path, line, parsed, rules)


def read_parsed(path: str, line: Line, parsed: dict[str, Any], rules: RecordRules) -> Record:
    """Return the record in a line that was parsed; otherwise as `read`."""
    if "may_exist" in parsed and is_dead_letter(parsed):
        return from_dead_letter(path, line, parsed, rules)
    topic = read_topic(parsed, rules)
    return Record(path, line.number, line.content_hash, line.content, topic)
