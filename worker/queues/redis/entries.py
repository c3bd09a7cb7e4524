"""Entries of the stream: reading them, and holding them until they have an outcome."""

from dataclasses import dataclass, field, replace
from typing import Annotated

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from worker.logs import logger
from worker.queues.letters import (
    MEND_AND_ADD,
    UNREADABLE,
    conflict_letter,
    content_of,
    how_to_mend,
    invalid_letter,
    subject_of_invalid,
    subject_of_topic,
)
from worker.rules.outcome import DeadLetter, Delivery, History
from worker.rules.record import on_one_line
from worker.rules.result_lines import Subject
from worker.rules.topic.identity import Origin
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, Topic, to_topic

log = logger()

ATTEMPTS_MAX = 2**31
UNIX_S_MAX = 2**35
WHOLE_IN_RECORD = "the whole of it is in the field record of this dead letter's entry"
RECORD_FIELD = b"record"
METADATA_FIELD = b"topic-import"
"""The one field beside `record` that this program writes; fields of other names are ignored."""


@dataclass(frozen=True, slots=True)
class KnownHistory:
    """A `History` as the metadata may hold it: within bounds, because it is written again."""

    attempts: Annotated[int, Field(ge=0, le=ATTEMPTS_MAX)] = 0
    may_exist: bool = False
    first_attempt: Annotated[float, Field(ge=0, le=UNIX_S_MAX)] | None = None
    last_attempt: Annotated[float, Field(ge=0, le=UNIX_S_MAX)] | None = None


@dataclass(frozen=True, slots=True)
class EntryMetadata:
    """What this program knows of a record in the stream: its first source, TopicId and history.

    `is_compared`: a call may have been made for it with other content (R26).
    """

    source: str
    topic_id: str = ""
    history: KnownHistory = field(default_factory=KnownHistory)
    is_compared: bool = False

    @property
    def past(self) -> History:
        known = self.history
        return History(known.attempts, known.may_exist, known.first_attempt, known.last_attempt)


METADATA = TypeAdapter(EntryMetadata)


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """An entry as Redis returned it.

    `may_have_called`: an earlier taker may have called for it (R14). `cut_bytes`: the length of its
    record (without one, of the entry) if that is too long and Redis returned only the beginning; 0
    if it returned all that is read.
    `was_read`: this process read its place in the stream; so nothing before it is new any more.
    `aside_id`: the ID that it had in the side stream, if it was just taken from there (R23).
    """

    id: bytes
    fields: dict[bytes, bytes]
    may_have_called: bool
    cut_bytes: int = 0
    was_read: bool = False
    aside_id: bytes = b""


@dataclass(slots=True)
class Entry:
    """One entry of the stream after reading; `is_cut`: `raw` is only the beginning of its record.

    `conflict_with`: the source of the record that holds its TopicId with other content.
    `is_uncalled`: nobody can have called for it since it was delivered first (R22).
    `was_imported_into`: this job made a topic in its community before (R24).
    `is_compared`: a call may have been made for it with other content (R26).
    """

    id: bytes
    source: str
    raw: bytes
    topic: Topic | InvalidRecordError
    history: History
    is_cut: bool = False
    is_uncalled: bool = False
    aside_id: bytes = b""
    conflict_with: str | None = None
    was_imported_into: bool = False
    is_compared: bool = False

    @property
    def is_valid(self) -> bool:
        return isinstance(self.topic, Topic)

    @property
    def group_id(self) -> str:
        """The community of a valid record; empty for any other."""
        return self.topic.group_id if isinstance(self.topic, Topic) else ""

    @property
    def topic_id(self) -> str:
        return "" if isinstance(self.topic, InvalidRecordError) else self.topic.topic_id or ""

    @property
    def content(self) -> str:
        return "" if isinstance(self.topic, InvalidRecordError) else content_of(self.topic).hex()


@dataclass(frozen=True, slots=True)
class HeldEntry:
    """An entry that this consumer holds, with the number by which the pipeline knows it.

    `delivery`: what can be sent. `letter`: otherwise, why it cannot.
    """

    id: int
    entry_id: bytes
    subject: Subject
    content: str
    origin: Origin
    is_cut: bool = False
    aside_id: bytes = b""
    is_compared: bool = False
    delivery: Delivery | None = None
    letter: DeadLetter | None = None

    @classmethod
    def of(cls, entry: Entry, number: int) -> "HeldEntry":
        """Return an entry as it is held under a number of this process."""
        topic, history = entry.topic, entry.history
        if isinstance(topic, InvalidRecordError):
            letter = invalid_letter(number, topic, history, hint=_hint(entry.source))
            subject = subject_of_invalid(entry.source, entry.raw, topic)
            return cls(
                id=number,
                entry_id=entry.id,
                subject=subject,
                content="",
                origin=Origin.NONE,
                is_cut=entry.is_cut,
                is_compared=entry.is_compared,
                letter=letter,
            )
        delivery = refused = None
        if entry.conflict_with is None:
            delivery = Delivery(number, topic, history, entry.was_imported_into)
        else:
            refused = conflict_letter(number, entry.conflict_with, history)
        return cls(
            id=number,
            entry_id=entry.id,
            subject=subject_of_topic(entry.source, entry.raw, topic),
            content=entry.content,
            origin=topic.origin,
            aside_id=entry.aside_id,
            is_compared=entry.is_compared,
            delivery=delivery,
            letter=refused,
        )


def read_entry(stream: str, found: FoundEntry, rules: RecordRules) -> Entry:
    """Read an entry. Raises nothing whatever is in it: it would be delivered again for ever."""
    raw = found.fields.get(RECORD_FIELD, b"")
    metadata = _metadata(f"{stream}:{found.id.decode()}", found.fields.get(METADATA_FIELD))
    history = metadata.past.cut_off() if found.may_have_called else metadata.past
    is_cut = found.cut_bytes > 0
    topic: Topic | InvalidRecordError
    if RECORD_FIELD not in found.fields:
        raw = _all_fields(found.fields)
        problem = "the entry has no field record"
        if is_cut:
            problem += f", and {found.cut_bytes} bytes; {WHOLE_IN_RECORD}"
        topic = InvalidRecordError([problem], is_object=False)
    elif is_cut:
        problem = (
            f"the record has {found.cut_bytes} bytes, too long (records.max_line_bytes); "
            f"{WHOLE_IN_RECORD}"
        )
        topic = InvalidRecordError([problem], is_object=False)
    else:
        topic = _topic(raw, rules, metadata.topic_id or None)
    if isinstance(topic, Topic) or topic.is_object:
        raw = on_one_line(raw)
    if metadata.is_compared and isinstance(topic, Topic) and topic.origin is Origin.DERIVED:
        # R26: a derived TopicId proves nothing any more, so the topic is compared.
        topic = replace(topic, origin=Origin.GIVEN)
    return Entry(
        found.id,
        metadata.source,
        raw,
        topic,
        history,
        is_cut,
        is_uncalled=not found.may_have_called,
        aside_id=found.aside_id,
        is_compared=metadata.is_compared,
    )


def _hint(source: str) -> str:
    """Return how to mend an invalid record, by where it was read first."""
    path, _, place = source.rpartition(":")
    return how_to_mend(path) if place.isdecimal() else MEND_AND_ADD


def order(entry_id: bytes) -> tuple[int, int]:
    """Return where an entry stands in its stream, for comparisons."""
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def _metadata(source: str, written: bytes | None) -> EntryMetadata:
    """Read the metadata of an entry. `source`: its first source if a producer added it."""
    if written is None:
        return EntryMetadata(source)
    try:
        return METADATA.validate_json(written)
    except ValidationError:
        # Perhaps another version wrote it. A record with an unknown history is in doubt (R14).
        return EntryMetadata(source, history=KnownHistory(may_exist=True))


def _all_fields(fields: dict[bytes, bytes]) -> bytes:
    """Return a whole entry as JSON: it leaves the stream, and nobody else may have its content."""
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
        # Raised, it would end every replica, one after the other.
        log.exception("a record cannot be read")
        return InvalidRecordError([f"{UNREADABLE}: {error!r}"], is_object=False)
