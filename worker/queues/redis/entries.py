"""Entries of the stream as deliveries, and outcomes as the scripts want them."""

from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from worker.logs import logger
from worker.rules.counts import dead_letter_counts, imported_counts
from worker.rules.outcome import DeadLetter, Delivery, History, Imported, Outcome, Reason, Released
from worker.rules.record import Record, content_hash, on_one_line
from worker.rules.result_lines import (
    Subject,
    dead_letter_line,
    imported_line,
    record_in_dead_letter,
)
from worker.rules.topic.identity import Origin
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, Topic, to_topic

log = logger()

HASH_DIGITS = 12
ATTEMPTS_MAX = 2**31
UNIX_S_MAX = 2**35
KEPT_OF_A_LONG_RECORD = 1024
POSITIONS_LINES = 1_000_000
"""Lines of an input whose hashes are kept in one string: Redis holds no longer one than 512 MB."""
OUR_FIELD = b"topic-import"
"""The one field beside `record` that this program writes; no other name means anything to it."""
MENDING = "mend this line, or the settings, and run the same command again"
MENDING_A_PRODUCER = "add it again, mended; or mend the settings and give it to `replay`"
ANOTHER_ID = "give one of them another TopicId (or key) and run again"
DEFECT = "the record cannot be read, by a defect of the program: please report it"


@dataclass(frozen=True, slots=True)
class KnownHistory:
    """A `History` as the field may hold it: within bounds, for it will be written again."""

    attempts: Annotated[int, Field(ge=0, le=ATTEMPTS_MAX)] = 0
    may_exist: bool = False
    first_attempt: Annotated[float, Field(ge=0, le=UNIX_S_MAX)] | None = None
    last_attempt: Annotated[float, Field(ge=0, le=UNIX_S_MAX)] | None = None


@dataclass(frozen=True, slots=True)
class Ours:
    """What this program knows of a record in the stream: where it first came from, its TopicId."""

    source: str
    topic_id: str = ""
    history: KnownHistory = field(default_factory=KnownHistory)

    @property
    def past(self) -> History:
        return History(**asdict(self.history))


OURS = TypeAdapter(Ours)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry as it was found; `may_have_called`: somebody may have called for it before."""

    id: bytes
    fields: dict[bytes, bytes]
    may_have_called: bool


@dataclass(slots=True)
class Entry:
    """One entry of the stream, read; `is_cut`: `raw` is the beginning of what it holds."""

    id: bytes
    source: str
    raw: bytes
    topic: Topic | InvalidRecordError
    history: History
    is_cut: bool = False
    conflict_with: str | None = None

    @property
    def topic_id(self) -> str:
        return "" if isinstance(self.topic, InvalidRecordError) else self.topic.topic_id or ""

    @property
    def content(self) -> str:
        return "" if isinstance(self.topic, InvalidRecordError) else _content(self.topic)


@dataclass(frozen=True, slots=True)
class Held:
    """An entry in this consumer's hands, with the number under which the pipeline knows it.

    `letter`: its outcome, where it cannot be sent at all.
    """

    id: int
    entry_id: bytes
    subject: Subject
    content: str
    origin: Origin
    is_cut: bool = False
    delivery: Delivery | None = None
    letter: DeadLetter | None = None

    @classmethod
    def of(cls, entry: Entry, number: int) -> "Held":
        """Take an entry in hand under a number of this process."""
        topic, history = entry.topic, entry.history
        if isinstance(topic, InvalidRecordError):
            hint = MENDING_A_PRODUCER
            letter = DeadLetter(number, Reason.INVALID, None, str(topic), hint, history)
            subject = _subject_of_invalid(entry.source, entry.raw, topic)
            origin, is_cut = Origin.NONE, entry.is_cut
            return cls(number, entry.id, subject, "", origin, is_cut, letter=letter)
        subject = _subject(entry.source, entry.raw, topic)
        held = cls(number, entry.id, subject, entry.content, topic.origin)
        if entry.conflict_with is not None:
            return replace(held, letter=_conflict(number, entry.conflict_with, history))
        return replace(held, delivery=Delivery(number, topic, history))


def read_entry(stream: str, found: Found, rules: RecordRules, line_bytes_max: int) -> Entry:
    """Read an entry; what is in it raises nothing, for it would come back for ever."""
    raw = found.fields.get(b"record", b"")
    ours = _ours(f"{stream}:{found.id.decode()}", found.fields.get(OUR_FIELD))
    history = ours.past.cut_off() if found.may_have_called else ours.past
    is_cut = len(raw) > line_bytes_max
    topic: Topic | InvalidRecordError
    if b"record" not in found.fields:
        raw = _all_fields(found.fields)
        topic = InvalidRecordError(["the entry has no field record"], is_object=False)
    elif is_cut:
        problem = (
            f"the record has {len(raw)} bytes, too long (records.max_line_bytes); the whole of it "
            "is in the field record of this dead letter's entry"
        )
        raw = raw[:KEPT_OF_A_LONG_RECORD]
        topic = InvalidRecordError([problem], is_object=False)
    else:
        topic = _topic(raw, rules, ours.topic_id or None)
    if isinstance(topic, Topic) or topic.is_object:
        raw = on_one_line(raw)
    return Entry(found.id, ours.source, raw, topic, history, is_cut)


def _ours(source: str, text: bytes | None) -> Ours:
    """Read what this program wrote beside the record, if it did; `source`: where it came from."""
    if text is None:
        return Ours(source)
    try:
        return OURS.validate_json(text)
    except ValidationError:
        # Another version's, perhaps: what is not known of it is in doubt.
        return Ours(source, history=KnownHistory(may_exist=True))


def _all_fields(fields: dict[bytes, bytes]) -> bytes:
    """Write an entry down whole: it leaves the stream, and nobody else may have its content."""
    return orjson.dumps(
        {
            name.decode(errors="backslashreplace"): value.decode(errors="backslashreplace")
            for name, value in fields.items()
        }
    )


def _topic(raw: bytes, rules: RecordRules, given_id: str | None) -> Topic | InvalidRecordError:
    try:
        return to_topic(parse_record(raw), rules, given_id)
    except InvalidRecordError as error:
        return error
    except Exception as error:
        # It would end every replica, one after the other.
        log.exception("a record cannot be read")
        return InvalidRecordError([f"{DEFECT}: {error!r}"], is_object=False)


def positions_key(record: Record) -> str:
    """Name the string that holds the hashes of the lines read of an input, around this one."""
    return f"read:{(record.line - 1) // POSITIONS_LINES}:{record.path}"


def put_content(record: Record, *, conflict_with: str | None = None) -> dict[str, Any]:
    """Write a record as the script that puts wants it."""
    topic = record.topic
    content: dict[str, Any] = {
        "path": record.path,
        "position": (record.line - 1) % POSITIONS_LINES,
        "hash": record.content_hash.hex()[:HASH_DIGITS],
        "source": record.source,
        "raw": "",
        "kind": "dead",
        "topic_id": "",
        "content": "",
        "dead": "",
        "reason": "",
        "may_exist": record.may_exist,
        "asked_again": record.asked_again,
        "letter_topic_id": record.dead_letter_topic_id or "",
    }
    history = History(may_exist=record.may_exist)
    if isinstance(topic, InvalidRecordError):
        letter = DeadLetter(0, Reason.INVALID, None, str(topic), MENDING, history)
        subject = _subject_of_invalid(record.source, record.raw, topic)
        content["topic_id"] = topic.topic_id or ""
        return content | {"reason": "invalid", "dead": _line(dead_letter_line(subject, letter))}
    subject = _subject(record.source, record.raw, topic)
    if conflict_with is not None:
        letter = _conflict(0, conflict_with, history)
        content["topic_id"] = topic.topic_id or ""
        return content | {"reason": "conflict", "dead": _line(dead_letter_line(subject, letter))}
    return content | {
        "kind": "topic",
        "raw": record.raw.decode(),
        "topic_id": topic.topic_id or "",
        "content": _content(topic),
    }


def outcome_content(held: Held, outcome: Outcome) -> dict[str, Any]:
    """Write an outcome as the script that settles wants it."""
    content: dict[str, Any] = {
        "id": held.entry_id.decode(),
        "source": held.subject.source,
        "topic_id": held.subject.topic_id or "",
        "content": held.content,
        "may_exist": outcome.history.may_exist,
        "is_cut": held.is_cut,
        "counts": [],
    }
    match outcome:
        case Imported():
            counts = imported_counts(outcome, held.origin)
            made_id = held.subject.topic_id or outcome.made_id or ""
            line = _line(imported_line(held.subject, outcome))
            return content | {
                "kind": "imported", "line": line, "counts": counts, "topic_id": made_id,
            }  # fmt: skip
        case DeadLetter():
            return content | {
                "kind": "dead",
                "line": _line(dead_letter_line(held.subject, outcome)),
                "reason": outcome.reason.value,
                "code": "" if outcome.code is None else str(outcome.code),
                "counts": dead_letter_counts(outcome.reason.value, outcome.code),
            }
        case Released():
            return content | {
                "kind": "released",
                "record": held.subject.raw.decode(),
                "ours": _ours_to_write(held, outcome),
            }


def _ours_to_write(held: Held, outcome: Released) -> str:
    source, topic_id = held.subject.source, held.subject.topic_id or ""
    ours = {"source": source, "topic_id": topic_id, "history": outcome.history}
    return orjson.dumps(ours).decode()


def letter_to_requeue(entry_id: bytes, line: bytes) -> dict[str, Any]:
    """Write a dead letter as the script that requeues wants it."""
    letter = orjson.loads(line)
    record = record_in_dead_letter(line).decode() if "record" in letter else letter["raw"]
    keeps_id = letter["reason"] != Reason.CONFLICT or letter["may_exist"]
    return {
        "id": entry_id.decode(),
        "source": letter["source"],
        "topic_id": (letter["topic_id"] or "") if keeps_id else "",
        "record": record,
        "reason": letter["reason"],
        "code": "" if letter["code"] is None else str(letter["code"]),
        "may_exist": letter["may_exist"],
    }


def _subject(source: str, raw: bytes, topic: Topic) -> Subject:
    return Subject(
        source=source,
        key=None if topic.key is None else orjson.dumps(topic.key),
        group_id=topic.group_id,
        topic_id=topic.topic_id,
        topic_name=topic.name,
        truncated=tuple(topic.truncated),
        raw=raw,
    )


def _subject_of_invalid(source: str, raw: bytes, problem: InvalidRecordError) -> Subject:
    return Subject(
        source=source,
        key=None if problem.key is None else orjson.dumps(problem.key),
        group_id=problem.group_id,
        topic_id=problem.topic_id,
        raw=raw,
        is_object=problem.is_object,
    )


def _conflict(number: int, holder: str, history: History) -> DeadLetter:
    message = f"{holder} has the same TopicId with other content"
    return DeadLetter(number, Reason.CONFLICT, None, message, ANOTHER_ID, history)


def _content(topic: Topic) -> str:
    return content_hash(topic.body).hex()


def _line(line: bytes) -> str:
    return line.decode().rstrip("\n")
