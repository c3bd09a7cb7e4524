"""A record as it was read: where it stood, its bytes, and the topic in it or why there is none."""

import hashlib
from dataclasses import dataclass

from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import Topic

HASH_BYTES = 16
STANDARD_INPUT = "-"
"""The path of standard input, of which no line can be read a second time."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line of an input.

    `path` as the user gave it, `line` from 1. `content_hash`: 16 bytes over the whole line.
    `raw`: the line without the white space around it; of a line that is too long, its beginning.
    `topic`: what to send, or the reason why nothing can be sent.
    `may_exist`, `asked_again`: it comes from a dead letter, whose earlier attempt may have taken
    effect, which is to be tried again although it was read before, and which had that TopicId.
    """

    path: str
    line: int
    content_hash: bytes
    raw: bytes
    topic: Topic | InvalidRecordError
    may_exist: bool = False
    asked_again: bool = False
    dead_letter_topic_id: str | None = None

    @property
    def source(self) -> str:
        return f"{self.path}:{self.line}"


def content_hash(content: bytes) -> bytes:
    """Hash what was read or what is sent, to tell same from other (not a secret)."""
    return hashlib.blake2b(content, digest_size=HASH_BYTES).digest()


def on_one_line(record: bytes) -> bytes:
    """Take the line ends out of a record; in JSON they are white space."""
    return record.replace(b"\n", b" ").replace(b"\r", b" ").strip()
