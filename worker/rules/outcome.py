"""A record on its way: what the queue delivers, and what the pipeline gives back for it.

The values that are made for each call are not frozen, because a frozen dataclass takes three times
as long to make. Nobody changes them.
"""

from dataclasses import dataclass
from enum import StrEnum

from worker.rules.topic.topic import Topic


class Already(StrEnum):
    """How a topic came to exist, where the answered attempt did not make it."""

    NO = "no"
    OWN = "own"
    UNPROVEN = "own?"
    BEFORE = "before"


class Reason(StrEnum):
    """Why a record is dead-lettered (a contract)."""

    INVALID = "invalid"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    CONFLICT = "conflict"


def keeps_topic_id(reason: str, *, may_exist: bool) -> bool:
    """Return whether a dead letter that is tried again keeps its TopicId (rule R4 of the queue).

    The TopicId of a conflict belongs to another record, unless this one may exist under it.
    `reason`: the value of a `Reason`.
    """
    return reason != Reason.CONFLICT.value or may_exist


@dataclass(slots=True)
class History:
    """What is known of a record from its attempts so far, in this process and earlier ones.

    `attempts` counts every call. `may_exist` is the doubt: an attempt was ambiguous, and the topic
    may have been made by it. Times are Unix seconds.
    """

    attempts: int = 0
    may_exist: bool = False
    first_attempt: float | None = None
    last_attempt: float | None = None

    def attempted(self, at: float) -> "History":
        """Return the history after one more call, which starts at `at`."""
        first = at if self.first_attempt is None else self.first_attempt
        return History(self.attempts + 1, self.may_exist, first, at)

    def failed(self, *, ambiguous: bool) -> "History":
        """Return the history after a failed call."""
        return self.cut_off() if ambiguous else self

    def cut_off(self) -> "History":
        """Return the history after a call whose reply never arrived: it may have taken effect."""
        return History(
            self.attempts,
            may_exist=True,
            first_attempt=self.first_attempt,
            last_attempt=self.last_attempt,
        )


@dataclass(slots=True)
class Delivery:
    """A topic taken from the queue; `id` names it until it is settled or released.

    `was_imported_into`: this job made a topic in its community before.
    """

    id: int
    topic: Topic
    history: History
    was_imported_into: bool = False


@dataclass(slots=True)
class Imported:
    """The topic exists.

    `at` in Unix seconds. `made_id`: the service's own TopicId, where none was sent.
    """

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
