"""The lines of the result files (a contract)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from worker.rules.outcome import Already, DeadLetter, History, Imported

DISMISSED_WHILE_QUEUED = "given up while it was queued"

LINE_DIGITS_MAX = 18
"""The longest number of a line; it fits into 64 bits."""


@dataclass(slots=True)
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
    second, micros = divmod(round(at * 1_000_000), 1_000_000)
    return f"{_second(second)}.{micros // 1000:03}Z"


@lru_cache(maxsize=64)
def _second(at: int) -> str:
    """Write whole Unix seconds; cached, because thousands of lines end in the same second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


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


@dataclass(frozen=True, slots=True)
class ImportedLine:
    """A line of `imported.jsonl` that was read back, as bytes with its line end.

    `path`, `number`: the place in its `source`; number 0 where it names none.
    """

    content: bytes
    topic_id: str
    group_id: str
    path: str
    number: int
    at: str | None
    already: Already
    is_cut: bool


def read_imported_line(content: bytes) -> ImportedLine | None:
    """Read a line of `imported.jsonl`; None for a torn line, or for one that is something else."""
    if not content.endswith(b"\n"):
        return None
    try:
        line = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(line, dict) or "already" not in line:
        return None
    topic_id, source, at = line.get("topic_id"), line.get("source"), line.get("at")
    if not (isinstance(topic_id, str) and topic_id and isinstance(source, str)):
        return None
    group_id = line.get("group_id")
    path, number = _place(source)
    return ImportedLine(
        content=content,
        topic_id=topic_id,
        group_id=group_id if isinstance(group_id, str) else "",
        path=path,
        number=number,
        at=at if isinstance(at, str) else None,
        already=_already(line["already"]),
        is_cut=bool(line.get("truncated")),
    )


def is_edit_of(line: ImportedLine, ours: bytes) -> bool:
    """Return whether a line was made of `ours` by an edit: same record, same time."""
    original = read_imported_line(ours)
    if original is None or line.at is None:
        return False
    return (line.path, line.number, line.at) == (original.path, original.number, original.at)


def _place(source: str) -> tuple[str, int]:
    path, _, number = source.rpartition(":")
    is_place = path and number.isascii() and number.isdecimal() and len(number) <= LINE_DIGITS_MAX
    return (path, int(number)) if is_place else (source, 0)


def _already(written: object) -> Already:
    return next((kind for kind in Already if kind.value == written), Already.NO)


def dead_letter_line(subject: Subject, letter: DeadLetter) -> bytes:
    """Write the line of `dead-letter.jsonl`."""
    return _letter_line(
        subject, letter.history, letter.reason.value, letter.code, letter.message, letter.hint
    )


def queued_line(subject: Subject, history: History) -> bytes:
    """Write a record that is queued in the form of a dead letter, without a reason."""
    return _letter_line(subject, history, None, None, DISMISSED_WHILE_QUEUED, "")


def dismissed_line(letter: bytes, at: float) -> bytes:
    """Write the line of `dismissed.jsonl`: a dead letter, with the Unix seconds of its end."""
    ending = b',"dismissed_at":' + orjson.dumps(rfc3339(at)) + b"}\n"
    # The bytes as they were read: parsing and writing them again could change a number.
    return letter.rstrip().removesuffix(b"}") + ending


def matches_source(source: str, wanted: str) -> bool:
    """Return whether a source (`path:line`) is the one that is wanted, or of the wanted path."""
    return wanted in {source, source.rpartition(":")[0]}


def _letter_line(  # noqa: PLR0917 - the fields in their order
    subject: Subject,
    history: History,
    reason: str | None,
    code: int | None,
    message: str,
    hint: str,
) -> bytes:
    line = {
        "source": subject.source,
        "key": _key(subject),
        "group_id": subject.group_id,
        "topic_id": subject.topic_id,
        "reason": reason,
        "code": code,
        "message": message,
        "hint": hint,
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
