"""The contract of a queue: what every engine promises to those who put and take.

The words MUST, MAY and "exactly once" bind every engine. The executable half of this page is the
suite in `tests/contract`, which every engine passes; `docs/new-engine.md` says how to add one.

A record is *queued* until it has an outcome. A queued record is *ready*, or *taken* by one taker.
An engine answers from one event loop. Every method MUST be safe to call while others wait.

Errors, the same for every method:

- `QueueError`: the queue cannot be used now, and a person must act (disk full, damaged, no right).
  Nothing of the failed call was stored, and nothing that was stored before is lost.
- `QueueAwayError`: the queue's server cannot be reached; it may come back by itself.
- `QueueTakenError`: another process takes from this queue, which allows one taker.
- `JobMismatchError`: the queue belongs to a job with another identity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from worker.rules.counts import Counts
from worker.rules.outcome import Delivery, Outcome
from worker.rules.record import Record


class QueueError(Exception):
    """The queue cannot be read or written now; the sentence names the reason and the remedy."""


class QueueAwayError(QueueError):
    """The queue's server cannot be reached now; it may come back by itself."""


class QueueTakenError(QueueError):
    """Another process takes from this queue."""


class JobMismatchError(QueueError):
    """The queue belongs to a job with another identity."""


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """What makes two runs the same job.

    `app`: the SDKAppID. `key_field`: the name of the key's field, empty without one. `topic_ids`:
    how TopicIds come about (`derive` or `as-given`).
    """

    app: str
    key_field: str
    topic_ids: str


class Feed(Protocol):
    """The half of a queue that is fed. Any number of processes MAY feed beside one another."""

    async def put(self, records: list[Record]) -> int:
        """Store a batch; return how many of its records were not read before.

        Durable before it returns. Each record is stored with its position (path, line, hash of the
        content) in one atomic step, so that a batch that is put again after a crash adds nothing.
        Each record becomes exactly one of: queued, dead letter (`invalid`, `conflict`) or
        duplicate, by the numbered rules in `docs/architecture.md`.
        MAY wait for a server that is away.
        """
        ...

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Remember that an input is being read, or was read to its end. Durable, may wait."""
        ...

    async def unfinished_inputs(self) -> list[str]:
        """Return the paths of the inputs that were never read to their end."""
        ...

    async def counts(self) -> Counts:
        """Return how many records are in which state, all at one moment."""
        ...


class Queue(Protocol):
    """The half of a queue that is taken from."""

    @property
    def name(self) -> str:
        """Which queue it is, for people; no part of it is secret."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why the queue cannot be used now; None while it can."""
        ...

    @property
    def is_drained(self) -> bool:
        """Whether the last `take` returned all that was ready."""
        ...

    @property
    def found(self) -> Mapping[str, int]:
        """How many records came to an end while they were taken, since the queue was opened.

        By kind: `duplicate`, `dead`, `lost`. An engine whose producers put records unchecked finds
        out only then.
        """
        ...

    async def take(self, count: int, *, untried_first: bool = False) -> list[Delivery]:
        """Take up to `count` ready records, in the order in which they were put.

        `untried_first`: records that were called before come after the others.

        Durable before it returns: a taker that dies afterwards leaves each of them in doubt, and
        the next taker gets it with `may_exist`. A delivery MUST carry the doubt of every earlier
        taker that may have called for it, and none other. A record is never with two takers.
        MUST NOT wait for records: it returns fewer, or none. It MAY return none while the server
        is away.
        """
        ...

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Store a batch of outcomes; return those that were stored.

        `Imported` and `DeadLetter` end a record, `Released` makes it ready again with what is known
        of it. Each outcome is atomic with the counts and with its result line, and durable before
        the call returns. A batch that is settled again after its reply was lost changes nothing
        and is returned as stored. Outcomes of records that another taker took over meanwhile are
        passed over and not returned.
        A doubt about a record that arrived while it was taken survives.
        MAY wait for a server that is away. Raises QueueError once the waiting was given up.
        """
        ...

    async def counts(self) -> Counts:
        """Return how many records are in which state, all at one moment."""
        ...

    async def is_empty(self) -> bool:
        """Return whether nothing is ready and no taker holds anything."""
        ...

    async def oldest_age_s(self) -> float:
        """Return for how many seconds the oldest record has been queued; 0 if there is none."""
        ...
