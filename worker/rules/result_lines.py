"""The lines of the result files (a contract)."""

from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from worker.rules.outcome import Already, DeadLetter, Imported


@dataclass(frozen=True, slots=True)
class Subject:
    """The record that a result line speaks of.

    `key` is JSON as bytes. `raw` is the line as it was read, or as much of it as was kept;
    `is_object`: it is one whole JSON object.
    """

    source: str
    key: bytes | None
    group_id: str | None
    topic_id: str | None
    topic_name: str | None = None
    truncated: tuple[str, ...] = ()
    raw: bytes = b""
    is_object: bool = True


def rfc3339(at: float | None) -> str | None:
    """Write Unix seconds as RFC 3339 in UTC with milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def imported_line(subject: Subject, outcome: Imported) -> bytes:
    """Write the line of `imported.jsonl`."""
    return orjson.dumps(
        {
            "source": subject.source,
            "key": _key(subject),
            "group_id": subject.group_id,
            "topic_id": subject.topic_id or outcome.made_id,
            "topic_name": subject.topic_name,
            "attempts": outcome.history.attempts,
            "already": False if outcome.already is Already.NO else outcome.already.value,
            "truncated": subject.truncated,
            "at": rfc3339(outcome.at),
        },
        option=orjson.OPT_APPEND_NEWLINE,
    )


def dead_letter_line(subject: Subject, letter: DeadLetter) -> bytes:
    """Write the line of `dead-letter.jsonl`."""
    history = letter.history
    line = {
        "source": subject.source,
        "key": _key(subject),
        "group_id": subject.group_id,
        "topic_id": subject.topic_id,
        "reason": letter.reason.value,
        "code": letter.code,
        "message": letter.message,
        "hint": letter.hint,
        "attempts": history.attempts,
        "may_exist": history.may_exist,
        "first_attempt": rfc3339(history.first_attempt),
        "last_attempt": rfc3339(history.last_attempt),
    }
    if subject.is_object:
        # The bytes as they were read: parsing and writing them again could change a number.
        line["record"] = orjson.Fragment(subject.raw.strip())
    else:
        line["raw"] = subject.raw.decode(errors="backslashreplace")
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def record_in_dead_letter(line: bytes) -> bytes:
    """Take the record out of a dead letter as the bytes that were read, if they stand last.

    Raises TypeError where somebody moved them, and they are nested too deeply to be written anew.
    """
    marker = b',"record":'
    start = line.find(marker)
    if start >= 0 and line.endswith(b"}"):
        candidate = line[start + len(marker) : -1].strip()
        try:
            orjson.loads(candidate)
        except orjson.JSONDecodeError:
            pass  # it stands elsewhere
        else:
            return candidate
    return orjson.dumps(orjson.loads(line)["record"])


def _key(subject: Subject) -> orjson.Fragment | None:
    return None if subject.key is None else orjson.Fragment(subject.key)
