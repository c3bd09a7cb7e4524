"""The lines of an input become records, each with its topic or the reason why it has none."""

from collections.abc import Iterator

from worker.intake.dead_letters import (
    DEAD_LETTER_BYTES,
    DEAD_LETTER_NAMES,
    ESCAPED_BYTES_MAX,
    from_dead_letter,
    read_topic,
)
from worker.intake.formats.json_lines import Line, split
from worker.intake.sources import Source, chunks
from worker.rules.record import Record
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules

BATCH_RECORDS = 256
BATCH_BYTES = 1 << 21


def batches(source: Source, rules: RecordRules, line_bytes_max: int) -> Iterator[list[Record]]:
    """Yield the records of a source in batches.

    A batch is full at BATCH_RECORDS records, or with the line that reaches BATCH_BYTES. A line
    longer than `line_bytes_max` bytes becomes an invalid record that holds its beginning.
    If the source cannot be read to its end, raises InputError after the batch of what could be
    read; the line at which reading stopped is not part of it.
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
        except Exception as error:  # noqa: BLE001 - raised after the batch is handed over
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
    if parsed.keys() >= DEAD_LETTER_NAMES and ("record" in parsed or "raw" in parsed):
        return from_dead_letter(path, line, parsed, rules)
    topic = read_topic(parsed, rules)
    return Record(path, line.number, line.content_hash, line.content, topic)
