"""The queue: where topics wait, durably; engines of one contract (`pipeline.Queue` and puts)."""

from dataclasses import dataclass, field


class QueueError(Exception):
    """The queue cannot be read or written now; the sentence says why and what to do."""


class QueueTakenError(QueueError):
    """Another process takes from this queue."""


class JobMismatchError(QueueError):
    """The queue belongs to a job with another identity."""


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """What makes two runs the same job; None: not known yet."""

    app: str
    key_field: str
    topic_ids: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Where all records are; `read = queued + imported + dead + duplicate`.

    `by_reason`, `by_code`: dead letters. `already_before_derived`: topics that existed before our
    first call under an ID that only we should make. `may_exist_twice`: calls without a TopicId
    that were repeated after an ambiguous answer.
    """

    read: int = 0
    queued: int = 0
    imported: int = 0
    dead: int = 0
    duplicate: int = 0
    already_own: int = 0
    already_before: int = 0
    already_before_derived: int = 0
    may_exist_twice: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    by_code: dict[str, int] = field(default_factory=dict)

    @property
    def add_up(self) -> bool:
        return self.read == self.queued + self.imported + self.dead + self.duplicate
