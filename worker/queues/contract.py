"""The contract of a queue: what every engine promises to those who put and take.

The words MUST, MAY and "exactly once" bind every engine. The executable half of this page is the
suite in `tests/contract/test_queue.py`, which every engine passes. `docs/queue-rules.md` holds the
numbered rules (R1, R2 ...) that decide what becomes of a record; `docs/new-engine.md` explains how
to add an engine.

A record is *queued* until it has an outcome. A queued record is *ready*, or *taken* by one taker.
The *doubt* of a record (`may_exist`) means that a call for it may have taken effect although its
reply is not known.

An engine is used from one event loop. Every method MUST be safe to call while others wait.
"Durable" means: the change survives the end of this process at any instruction. Whether it also
survives a power cut is a property of the storage (SQLite commits with `synchronous = FULL`; Redis
as its `appendfsync` is set).

Errors, the same for every method:

- `QueueError`: the queue cannot be used now, and a person must act (disk full, damaged, no right).
  Nothing of the failed call was stored, unless its reply was lost; what was stored before is safe.
- `QueueAwayError`: the queue's server cannot be reached; it may come back by itself.
- `QueueTakenError`: another process takes from this queue, which allows one taker.
- `JobMismatchError`: the queue belongs to a job with another identity.
- `QueueLostError`: somebody removed or replaced the queue's file while it was in use.
- `EvidenceError`: the result files beside the queue know topics that it does not know.

A method that "may wait" waits while the queue's server is away, until the engine is given up (see
`give_up` of an engine that has a server); it raises QueueError then. All others raise at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from worker.rules.counts import CommunityLetters, Counts
from worker.rules.outcome import Delivery, Outcome
from worker.rules.record import Record
from worker.rules.surroundings import Surroundings

Letter = TypeVar("Letter")
"""A dead letter as one engine names it: see `requeue` of that engine."""


class QueueError(Exception):
    """The queue cannot be read or written now; the sentence names the reason and the remedy."""


class QueueAwayError(QueueError):
    """The queue's server cannot be reached now; it may come back by itself."""


class QueueTakenError(QueueError):
    """Another process takes from this queue."""


class JobMismatchError(QueueError):
    """The queue belongs to a job with another identity."""


class QueueLostError(QueueError):
    """The queue was removed or replaced while it was in use."""


class EvidenceError(QueueError):
    """The result files know more than the queue, or are those of another job; nothing was done."""


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """What makes two runs the same job.

    `app`: the SDKAppID. `key_field`: the name of the key's field, empty without one. `topic_ids`:
    how TopicIds come about (`derive` or `as-given`).
    """

    app: str
    key_field: str
    topic_ids: str


class Feed(Protocol[Letter]):
    """The half of a queue that is fed. Any number of processes MAY feed beside one another."""

    async def put(self, records: list[Record]) -> int:
        """Store a batch; return how many of its records were new (R1).

        Each record becomes exactly one of: queued, dead letter (`invalid`, `conflict`) or
        duplicate, by the rules R1 to R13. A record is stored with its position (path, line, hash
        of the content) and its counts in one atomic step, so a batch that is put again after a
        crash or a lost reply adds nothing. The batch as a whole MAY be stored in several steps.
        Durable before it returns. May wait.
        """
        ...

    async def surroundings(self, records: list[Record]) -> list[Surroundings]:
        """Return what is known around the lines that changed since they became dead letters (R28).

        `records`: lines of one input, about to be put; those that were handed in are left out. A
        line is returned only if the evidence decides: it holds other content than its dead letters,
        none of them may exist, and neither a key nor a TopicId connects them. The feeder compares
        the lines around with the input as it is now, and marks the record (`is_in_place`).
        Changes nothing. May wait.
        """
        ...

    async def requeue(self, letters: list[Letter]) -> int:
        """Put dead letters back into the queue; return how many were put back.

        Each keeps its position, its doubt, and its TopicId as far as R4 allows. Each is moved in
        one atomic step: it is a dead letter or it is queued, never both. Letters that are no dead
        letters any more are not counted. An engine that checks records when they are put does not
        count those that are invalid still.
        Durable before it returns. May wait.
        """
        ...

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Remember that an input is being read, or was read to its end.

        Durable before it returns. May wait.
        """
        ...

    async def unfinished_inputs(self) -> list[str]:
        """Return the paths of the inputs that were never read to their end."""
        ...

    async def counts(self) -> Counts:
        """Return how many records are in which state, all at one moment (R19)."""
        ...


class Queue(Protocol):
    """The half of a queue that is taken from."""

    @property
    def name(self) -> str:
        """The queue's name for people; no part of it is secret."""
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
        these only when it takes them (R18); the mapping of any other engine is empty.
        """
        ...

    async def take(
        self,
        count: int,
        *,
        untried_first: bool = False,
        without: frozenset[str] = frozenset(),
    ) -> list[Delivery]:
        """Take up to `count` ready records, in the order in which they were put.

        `untried_first`: records that were called before (`attempts` above 0) come after the
        others. An engine that cannot sort all it holds MUST sort what one call finds (R21).
        `without`: the communities (GroupIds) that are held now. Their records stay ready and are
        passed over, however many they are, at a cost that does not grow with their number.
        A delivery says whether this job ever imported into its community (`was_imported_into`).

        Durable before it returns: a taker that dies afterwards leaves each of them in doubt, and
        the next taker gets it with `may_exist` (R14). A delivery MUST carry the doubt of every
        earlier taker that may have called for it, and no other doubt. A record is never with two
        takers.
        MUST NOT wait for records: it returns fewer, or none. While its server is away it MAY pause
        for less than a second and return none; the reason is in `trouble` then.
        """
        ...

    async def take_of(self, group_id: str, count: int) -> list[Delivery]:
        """Take up to `count` ready records of one community, those with the fewest attempts first.

        Durable as `take`. Records that `take` passed over are among them; an engine that cannot
        search all it holds MAY return only those. It says nothing about what else is ready:
        `is_drained` stays as it was.
        """
        ...

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Store a batch of outcomes; return those that were stored, in the order given.

        `Imported` and `DeadLetter` end a record; `Released` makes it ready again with its history.
        Each outcome is atomic with the counts and with its result line. Durable before it returns.

        If the reply of an earlier call was lost, the same batch MUST be accepted again, change
        nothing, and be returned as stored (R17). Outcomes of records that another taker took over
        meanwhile are skipped and not returned (R15). A doubt about a record that arrived while it
        was taken survives (R13).
        May wait. After QueueError the caller still has the outcomes and may settle them again.
        """
        ...

    async def counts(self) -> Counts:
        """Return how many records are in which state, all at one moment (R19)."""
        ...

    async def worst_communities(self, count: int) -> list[CommunityLetters]:
        """Return the communities with the most dead letters, the worst first."""
        ...

    async def is_empty(self) -> bool:
        """Return whether nothing is ready and no taker holds anything."""
        ...

    async def oldest_age_s(self) -> float:
        """Return for how many seconds the oldest record has been queued; 0 if there is none.

        An engine that stores no time of putting MAY count from when this process first saw it.
        """
        ...
