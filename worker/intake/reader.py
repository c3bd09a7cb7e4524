"""The lines of an input become records, each with its topic or the reason why it has none."""

from collections.abc import Iterator

from worker.intake.dead_letters import (
    DEAD_LETTER_BYTES,
    ESCAPED_BYTES_MAX,
    from_dead_letter,
    is_dead_letter,
    read_topic,
)
from worker.intake.formats.json_lines import Line, split
from worker.intake.sources import InputError, Source, chunks
from worker.rules.record import Record
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules

BATCH_RECORDS = 500
BATCH_BYTES = 1 << 21


def batches(source: Source, rules: RecordRules, line_bytes_max: int) -> Iterator[list[Record]]:
    """Yield the records of a source in batches, those of `line_batches`.

    If the source cannot be read to its end, raises InputError after the batch of what could be
    read; the line at which reading stopped is not part of it.
    """
    for lines in line_batches(source, line_bytes_max):
        yield [read(source.name, line, rules) for line in lines]


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
        for line in split(chunks(source), line_bytes_max):
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
    if "may_exist" in parsed and is_dead_letter(parsed):
        return from_dead_letter(path, line, parsed, rules)
    topic = read_topic(parsed, rules)
    return Record(path, line.number, line.content_hash, line.content, topic)
