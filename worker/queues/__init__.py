"""The queue: where topics wait, durably; engines of one contract (`pipeline.Queue` and puts)."""

from dataclasses import dataclass


class QueueError(Exception):
    """The queue cannot be read or written now; the sentence says why and what to do."""


class QueueAwayError(QueueError):
    """The queue's server cannot be reached now; it may come back by itself."""


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
