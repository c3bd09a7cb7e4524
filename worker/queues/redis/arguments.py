"""What the scripts are given: records, outcomes and dead letters as they read them."""

from typing import Any

import orjson

from worker.queues.letters import (
    conflict_letter,
    content_of,
    how_to_mend,
    invalid_letter,
    json_key,
    subject_of_invalid,
    subject_of_topic,
)
from worker.queues.redis.entries import Entry, HeldEntry
from worker.queues.redis.tally import code_text
from worker.rules.counts import dead_letter_counts, imported_counts
from worker.rules.outcome import (
    DeadLetter,
    History,
    Imported,
    Outcome,
    Released,
    keeps_topic_id,
)
from worker.rules.record import Record, content_hash
from worker.rules.result_lines import (
    dead_letter_line,
    dismissed_line,
    imported_line,
    queued_line,
    record_in_dead_letter,
)
from worker.rules.surroundings import can_be_mended_in_place
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import Topic

HASH_DIGITS = 12
GROUP_ID_LENGTH_MAX = 200
"""A longer GroupId is no community's: the dead letter is counted for none."""
POSITIONS_LINES = 1_000_000
"""Lines of an input whose hashes share one string: a string of Redis holds at most 512 MB."""


def positions_key(record: Record) -> str:
    """Return the name of the string with the hashes of the lines read around this one (R1)."""
    return f"read:{(record.line - 1) // POSITIONS_LINES}:{record.path}"


def stored_hash(known: bytes) -> str:
    """Return as much of the hash of a line as is kept."""
    return known.hex()[:HASH_DIGITS]


def key_text(topic: Topic | InvalidRecordError) -> str:
    """Return the record's own key as JSON; empty for none."""
    return (json_key(topic.key) or b"").decode()


def put_content(record: Record, *, conflict_with: str | None = None) -> dict[str, Any]:
    """Return a record for `put.lua`.

    `conflict_with`: the source of the record that holds its TopicId with other content.
    """
    topic = record.topic
    content: dict[str, Any] = {
        "can_be_mended": can_be_mended_in_place(record),
        "is_in_place": record.is_in_place,
        "path": record.path,
        "line": record.line,
        "key": key_text(topic),
        "position": (record.line - 1) % POSITIONS_LINES,
        "hash": stored_hash(record.content_hash),
        "source": record.source,
        "raw": "",
        "kind": "dead",
        "topic_id": topic.topic_id or "",
        "group_id": community_name(topic.group_id),
        "content": "",
        "dead": "",
        "reason": "",
        "may_exist": record.may_exist,
        "asked_again": record.asked_again,
        "letter_topic_id": record.dead_letter_topic_id or "",
    }
    history = History(may_exist=record.may_exist)
    if isinstance(topic, InvalidRecordError):
        letter = invalid_letter(0, topic, history, hint=how_to_mend(record.path))
        subject = subject_of_invalid(record.source, record.raw, topic)
    elif conflict_with is not None:
        letter = conflict_letter(0, conflict_with, history)
        subject = subject_of_topic(record.source, record.raw, topic)
    else:
        queued = {
            "kind": "topic",
            "raw": record.raw.decode(),
            "content": content_of(topic).hex(),
        }
        return content | queued
    line = _line(dead_letter_line(subject, letter))
    return content | {"reason": letter.reason.value, "dead": line}


def outcome_content(held: HeldEntry, outcome: Outcome) -> dict[str, Any]:
    """Return an outcome for `settle.lua`."""
    content: dict[str, Any] = {
        "id": held.entry_id.decode(),
        "source": held.subject.source,
        "topic_id": held.subject.topic_id or "",
        "group_id": community_name(held.subject.group_id),
        "aside_id": held.aside_id.decode(),
        "content": held.content,
        "may_exist": outcome.history.may_exist,
        "is_compared": held.is_compared,
        "is_cut": held.is_cut,
        "counts": [],
    }
    match outcome:
        case Imported():
            return content | {
                "kind": "imported",
                "line": _line(imported_line(held.subject, outcome)),
                "counts": _imported_counts(held, outcome),
                "topic_id": held.subject.topic_id or outcome.made_id or "",
            }
        case DeadLetter():
            return content | {
                "kind": "dead",
                "line": _line(dead_letter_line(held.subject, outcome)),
                "reason": outcome.reason.value,
                "code": code_text(outcome.code),
                "hash": stored_hash(content_hash(held.subject.raw)),
                "key": (held.subject.key or b"").decode(),
                "counts": dead_letter_counts(outcome.reason.value, outcome.code),
            }
        case Released():
            return content | {
                "kind": "released",
                "record": held.subject.raw.decode(),
                "metadata": _metadata(
                    held.subject.source,
                    held.subject.topic_id or "",
                    outcome.history,
                    is_compared=held.is_compared,
                ),
            }


def _imported_counts(held: HeldEntry, outcome: Imported) -> list[str]:
    topic = held.delivery.topic if held.delivery else None
    create_time = orjson.loads(topic.body).get("CreateTime") if topic else None
    return imported_counts(
        outcome, held.origin, truncated=held.subject.truncated, create_time=create_time
    )


def entry_to_set_aside(entry: Entry) -> bytes:
    """Return an entry for `set_aside.lua`."""
    return orjson.dumps(
        {
            "id": entry.id.decode(),
            "topic_id": entry.topic_id,
            "group_id": entry.group_id,
            "record": entry.raw.decode(),
            "metadata": _metadata(
                entry.source, entry.topic_id, entry.history, is_compared=entry.is_compared
            ),
        }
    )


def _metadata(source: str, topic_id: str, history: History, *, is_compared: bool) -> str:
    """Return what the field beside the record holds: an `EntryMetadata` as JSON."""
    metadata: dict[str, Any] = {"source": source, "topic_id": topic_id, "history": history}
    if is_compared:
        metadata["is_compared"] = True
    return orjson.dumps(metadata).decode()


def community_name(group_id: str | None) -> str:
    """Return the GroupId under which a record is counted; empty for none."""
    return group_id if group_id and len(group_id) <= GROUP_ID_LENGTH_MAX else ""


def letter_to_requeue(entry_id: bytes, line: bytes) -> dict[str, Any]:
    """Return a dead letter for `requeue.lua`."""
    letter = orjson.loads(line)
    record = record_in_dead_letter(line).decode() if "record" in letter else letter["raw"]
    keeps_id = keeps_topic_id(letter["reason"], may_exist=letter["may_exist"])
    return _chosen_letter(entry_id, letter) | {
        "topic_id": (letter["topic_id"] or "") if keeps_id else "",
        "record": record,
    }


def letter_to_dismiss(entry_id: bytes, line: bytes, at_s: float) -> dict[str, Any]:
    """Return a dead letter for `dismiss.lua`. `at_s`: the time of now, in Unix seconds."""
    letter = orjson.loads(line)
    return _chosen_letter(entry_id, letter) | {
        "topic_id": letter["topic_id"] or "",
        "line": _line(dismissed_line(line, at_s)),
    }


def _chosen_letter(entry_id: bytes, letter: dict[str, Any]) -> dict[str, Any]:
    """Return what `remove_chosen_letter` reads of a dead letter; its TopicId is missing."""
    return {
        "id": entry_id.decode(),
        "source": letter["source"],
        "reason": letter["reason"],
        "code": code_text(letter["code"]),
        "may_exist": letter["may_exist"],
    }


def entry_to_dismiss(entry: Entry, topic: Topic, at_s: float, *, is_aside: bool) -> dict[str, Any]:
    """Return a queued record for `dismiss_queued.lua`."""
    subject = subject_of_topic(entry.source, entry.raw, topic)
    return {
        "id": entry.id.decode(),
        "is_aside": is_aside,
        "topic_id": entry.topic_id,
        "group_id": entry.group_id,
        "content": entry.content,
        "may_exist": entry.history.may_exist,
        "is_compared": entry.is_compared,
        "line": _line(dismissed_line(queued_line(subject, entry.history), at_s)),
    }


def _line(line: bytes) -> str:
    return line.decode().rstrip("\n")
