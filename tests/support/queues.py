"""Builds records and outcomes for the queue tests."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import orjson

from tests.support.strategies import GROUP
from worker.rules.outcome import Already, DeadLetter, History, Imported, Reason
from worker.rules.record import Record, content_hash
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, Topic, to_topic

Result = TypeVar("Result")
RULES = RecordRules()


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def read_record(
    line: int,
    *,
    name: str | None = None,
    own_id: str | None = None,
    path: str = "a.jsonl",
    raw: bytes | None = None,
) -> Record:
    """Return the record that the intake would read from this line."""
    if raw is None:
        given: dict[str, Any] = {"GroupId": GROUP, "TopicName": name or f"topic {line}"}
        if own_id:
            given["TopicId"] = f"{GROUP}@TOPIC#_{own_id}"
        raw = orjson.dumps(given)
    topic: Topic | InvalidRecordError
    try:
        topic = to_topic(parse_record(raw), RULES)
    except InvalidRecordError as error:
        topic = error
    return Record(path, line, content_hash(raw), raw, topic)


def imported(record_id: int, *, already: Already = Already.NO) -> Imported:
    return Imported(record_id, already, History(attempts=1), at=1_700_000_000.0)


def DEAD(record_id: int, history: History) -> DeadLetter:  # noqa: N802 - reads as a constant
    return DeadLetter(record_id, Reason.EXHAUSTED, 10002, "internal error", "later", history)
