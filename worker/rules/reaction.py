"""What follows from a reply, as values: for its record, and for the run.

Those that are made for each call are not frozen, for the sake of speed, and nobody changes them.
"""

from dataclasses import dataclass

from worker.rules.blame import Failures
from worker.rules.outcome import History
from worker.rules.topic.topic import Topic
from worker.rules.verdict import Compare, Halt, Imported, Reject, Renew


@dataclass(frozen=True, slots=True)
class Refusal:
    """When a record's call was refused for its signature or account, and with which signature."""

    generation: int
    at_s: float


@dataclass(slots=True)
class Attempt:
    """One call that ended; times in seconds of a monotonic clock.

    `history` includes this call. `failures`, `refused`: what earlier attempts of this
    process left behind. `generation`: the number of the signature that the call carried,
    `current_generation` that of the one in force now. `answered_at_start`: proper answers of the
    whole run when the call began. `status`, `code` of the reply, None where there was none.
    `has_untried`: the queue may hold records that this run has not tried. `was_imported_into`: the
    queue knows of a topic that this job made in the community.
    """

    record: int
    topic: Topic
    history: History
    failures: Failures | None
    refused: Refusal | None
    started_s: float
    ended_s: float
    answered_at_start: int
    generation: int
    current_generation: int
    status: int | None
    code: int | None
    has_untried: bool
    was_imported_into: bool = False


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The record is tried again, after a back-off for its `tries`-th failure; 0: at once.

    `at_least_s`: the reply asked to wait so long.
    """

    tries: int = 0
    at_least_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The record goes back to the queue."""


Fate = Imported | Reject | Compare | TryAgain | GiveBack


@dataclass(slots=True)
class Reaction:
    """What is to be done about one reply.

    `halt`: stop the run. `renew`: replace the signature, which was refused in this way.
    `slow_down`: the quota's pace is too fast. `history`, `failures`, `refused`: what is
    known of the record from now on.
    """

    fate: Fate
    history: History
    failures: Failures | None = None
    refused: Refusal | None = None
    halt: Halt | None = None
    renew: Renew | None = None
    slow_down: bool = False
