"""A record as it was read: its place, its bytes, and its topic or the reason why it has none."""

import hashlib
from dataclasses import dataclass

from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import Topic

HASH_BYTES = 16
STANDARD_INPUT = "-"
"""The path of standard input, of which no line can be read a second time."""


@dataclass(slots=True)
class Record:
    """One line of an input; to be read only, frozen it would cost twice the time of its making.

    `path`: as the user gave it. `line`: from 1. `content_hash`: HASH_BYTES over the whole line.
    `raw`: the line without the white space around it; the beginning of a line that is too long.
    `topic`: what to send, or the reason why nothing can be sent.
    `is_in_place`: the lines around it are those of the last reading, so a dead letter that was read
    from this line then is the same record (R28).

    For a record that was read from a dead letter: `may_exist`, an earlier attempt may have taken
    effect; `asked_again`, try it again although it was read before; `dead_letter_topic_id`, the
    TopicId in the dead letter.
    """

    path: str
    line: int
    content_hash: bytes
    raw: bytes
    topic: Topic | InvalidRecordError
    is_in_place: bool = False
    may_exist: bool = False
    asked_again: bool = False
    dead_letter_topic_id: str | None = None

    @property
    def is_from_standard_input(self) -> bool:
        """Whether it was read from standard input, of which no line can be read again."""
        return self.path == STANDARD_INPUT

    @property
    def source(self) -> str:
        """Return the place of the record as results name it: `path:line`."""
        return f"{self.path}:{self.line}"


def content_hash(content: bytes) -> bytes:
    """Return a hash that is equal for equal content; not for secrets."""
    return hashlib.blake2b(content, digest_size=HASH_BYTES).digest()


def on_one_line(record: bytes) -> bytes:
    """Return a JSON text without line ends, which are white space in JSON."""
    return record.replace(b"\n", b" ").replace(b"\r", b" ").strip()
