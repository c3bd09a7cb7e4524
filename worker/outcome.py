"""What became of a record, and the line that says so in the result files (a contract)."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from worker.topic import Origin
from worker.verdict import Already, History, Reason


@dataclass(frozen=True, slots=True)
class Imported:
    """The topic exists. `at` in Unix seconds; `made_id`: the service's, where none was sent."""

    id: int
    already: Already
    history: History
    at: float
    made_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The record cannot be sent, or was refused, for good."""

    id: int
    reason: Reason
    code: int | None
    message: str
    hint: str
    history: History


@dataclass(frozen=True, slots=True)
class Released:
    """Back to the queue, with what is known of it; no outcome."""

    id: int
    history: History


Outcome = Imported | DeadLetter | Released


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


@dataclass(frozen=True, slots=True)
class Counts:
    """Where all records are; `read = queued + imported + dead + duplicate + lost`.

    `lost`: taken, then thrown away by a Redis; on any other day 0. `by_reason`, `by_code`: dead
    letters. `already_before_derived`: topics that existed before our first call under an ID that
    only we should make. `may_exist_twice`: calls without a TopicId that were repeated after an
    ambiguous answer.
    """

    read: int = 0
    queued: int = 0
    imported: int = 0
    dead: int = 0
    duplicate: int = 0
    lost: int = 0
    already_own: int = 0
    already_before: int = 0
    already_before_derived: int = 0
    may_exist_twice: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    by_code: dict[str, int] = field(default_factory=dict)

    @property
    def add_up(self) -> bool:
        found = self.queued + self.imported + self.dead + self.duplicate
        return self.read == found + self.lost


def imported_counts(outcome: Imported, origin: Origin) -> list[str]:
    """Name the counts that an imported record adds one to."""
    counts = ["imported"]
    if outcome.already is not Already.NO:
        counts.append(f"already_{outcome.already.value}")
    if outcome.already is Already.BEFORE and origin is Origin.DERIVED:
        counts.append("already_before_derived")
    if origin is Origin.NONE and outcome.history.may_exist:
        counts.append("may_exist_twice")
    return counts


def dead_letter_counts(reason: str, code: int | None) -> list[str]:
    """Name the counts that a dead letter adds one to."""
    return ["dead", f"reason:{reason}"] + ([] if code is None else [f"code:{code}"])


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
