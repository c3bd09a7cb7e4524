"""Dead letters as every engine writes them: texts, hints, and the records they describe."""

from collections.abc import Mapping
from typing import Any

import orjson

from worker.rules.outcome import DeadLetter, History, Reason
from worker.rules.record import STANDARD_INPUT, Record, content_hash
from worker.rules.result_lines import Subject
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import Topic

MEND_THE_LINE = "mend this line, or the settings, and run the same command again"
"""For a record that was read from a file."""
HAND_IN_AGAIN = (
    "hand it in again, mended, and dismiss this one (`topic-import dismiss`); or mend the settings "
    "and give it to `replay`"
)
"""For a record that was read from standard input or a pipe, of which no line can be mended."""
MEND_AND_ADD = (
    "add it again, mended, and dismiss this one (`topic-import dismiss`); or mend the settings and "
    "give it to `replay`"
)
"""For a record that a producer added to the queue itself."""
ANOTHER_ID = "give one of them another TopicId (or key) and run again"
UNREADABLE = "the record cannot be read, by a defect of the program: please report it"


NOT_CUT = "[]"
"""How a stored record says that none of its fields was cut."""


def how_to_mend(path: str) -> str:
    """Return the hint for an invalid record that was read from an input."""
    is_pipe = path == STANDARD_INPUT or path.startswith("/dev/")
    return HAND_IN_AGAIN if is_pipe else MEND_THE_LINE


def invalid_letter(
    record_id: int, problem: InvalidRecordError, history: History, *, hint: str
) -> DeadLetter:
    """Return the outcome of a record that cannot be sent."""
    return DeadLetter(record_id, Reason.INVALID, None, str(problem), hint, history)


def conflict_letter(record_id: int, holder_source: str, history: History) -> DeadLetter:
    """Return the outcome of a record whose TopicId another record holds with other content (R4).

    `holder_source`: where the holder was read, as `path:line`.
    """
    message = f"{holder_source} has the same TopicId with other content"
    return DeadLetter(record_id, Reason.CONFLICT, None, message, ANOTHER_ID, history)


def is_same_record(record: Record, letter: Mapping[str, Any]) -> bool:
    """Return whether a record has the key or the TopicId of a dead letter (R28).

    `letter`: the parsed line of `dead-letter.jsonl`.
    """
    topic = record.topic
    has_key = topic.key is not None and topic.key == letter["key"]
    return has_key or (topic.topic_id is not None and topic.topic_id == letter["topic_id"])


def subject_of_topic(source: str, raw: bytes, topic: Topic) -> Subject:
    """Return the fields of a result line that describe a valid record."""
    return Subject(
        source=source,
        key=json_key(topic.key),
        group_id=topic.group_id,
        topic_id=topic.topic_id,
        topic_name=topic.name,
        truncated=tuple(topic.truncated),
        raw=raw,
    )


def subject_of_body(
    source: str, key: bytes | None, named: dict[str, Any], truncated: str, raw: bytes
) -> Subject:
    """Return the fields of a result line that describe a stored record.

    `named`: the body of its call. `truncated`: the names of the fields that were cut, as JSON.
    """
    return Subject(
        source=source,
        key=key,
        group_id=named["GroupId"],
        topic_id=named.get("TopicId"),
        topic_name=named["TopicName"],
        truncated=() if truncated == NOT_CUT else tuple(orjson.loads(truncated)),
        raw=raw,
    )


def subject_of_invalid(source: str, raw: bytes, problem: InvalidRecordError) -> Subject:
    """Return the fields of a result line that describe a record that cannot be sent."""
    return Subject(
        source=source,
        key=json_key(problem.key),
        group_id=problem.group_id,
        topic_id=problem.topic_id,
        raw=raw,
        is_object=problem.is_object,
    )


def content_of(topic: Topic) -> bytes:
    """Return the 16 bytes by which two records of one TopicId are the same or not (R3, R4)."""
    return content_hash(topic.body)


def json_key(key: str | int | None) -> bytes | None:
    """Return a record's key as JSON, None without one."""
    return None if key is None else orjson.dumps(key)
