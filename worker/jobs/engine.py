"""What the jobs need of a queue's engine; `jobs.opening` chooses the engine."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from worker.jobs.feeding import PutQueue
from worker.queues.contract import Queue
from worker.rules.counts import Counts
from worker.rules.result_lines import matches_source

GiveUp = Callable[[], None]
"""Ends all waiting for the server of a queue."""

Show = Callable[[bytes], None]
"""Receives lines of `dead-letter.jsonl`, one at a time."""


class CountedFeed(PutQueue, Protocol):
    """A queue to put into, with its counts."""

    async def counts(self) -> Counts:
        """Return how many records are in which state. Raises QueueError."""
        ...


@dataclass(frozen=True, slots=True)
class OpenFeed:
    """A queue that is open to put into."""

    queue: CountedFeed
    give_up: GiveUp


@dataclass(frozen=True, slots=True)
class OpenTaker:
    """A queue that is open to take from.

    `after_settling`: writes the settled outcomes to the result files, for an engine that does not
    do so itself; raises OSError. `job_id`: what the queue and its result files have in common.
    """

    queue: Queue
    after_settling: Callable[[], Awaitable[None]] | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a queue holds: `facts` for JSON, the same as `lines` for people.

    `agrees`: whether its counts, its rows and its result files agree with one another.
    """

    facts: dict[str, Any]
    lines: list[str]
    agrees: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters to replay or dismiss: those that match everything that is given.

    `source`: where they were read, a path or `path:line`.
    """

    reason: str | None = None
    code: int | None = None
    group: str | None = None
    source: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is given, so that everything matches."""
        return self == Choice()

    @property
    def reaches_queued(self) -> bool:
        """Whether all queued records of the community match: they have no reason and no code."""
        return self.group is not None and self.reason is None and self.code is None

    def matches(self, line: bytes) -> bool:
        """Return whether a line of `dead-letter.jsonl` is chosen."""
        letter: dict[str, Any] = orjson.loads(line)
        if "reason" not in letter:
            return False  # not written by this program
        if self.source is not None and not matches_source(str(letter.get("source")), self.source):
            return False
        wanted = {"reason": self.reason, "code": self.code, "group_id": self.group}
        return all(letter.get(name) == value for name, value in wanted.items() if value is not None)


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many dead letters matched, how many are queued again (or would be), and the counts.

    `refused`: how many are invalid or in conflict still. Others were put back by somebody else.
    """

    matched: int
    replayed: int
    refused: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class Dismissed:
    """How many records were dismissed (or would be), and the counts.

    `letters`: dead letters. `queued`: records that were queued. `taken`: chosen records that were
    left, because a process has them in its hands.
    """

    letters: int
    queued: int
    taken: int
    counts: Counts


class Engine(Protocol):
    """One kind of queue, opened for what a job does with it.

    Opening raises UsageError for wrong settings, QueueError if the queue cannot be used now,
    JobMismatchError for the queue of another job, EvidenceError beside result files that know more
    than the queue.
    """

    def open_taker(
        self, on_opening: Callable[[GiveUp], None]
    ) -> AbstractAsyncContextManager[OpenTaker]:
        """Open the queue to take from. Raises QueueTakenError, and OSError for the result files.

        `on_opening` receives the function that ends all waiting for the server of the queue,
        before the server is asked for the first time.
        """
        ...

    def open_feed(self) -> AbstractAsyncContextManager[OpenFeed]:
        """Open the queue to put into it."""
        ...

    async def standing(self) -> Standing:
        """Return what the queue holds; it may be read while another process takes from it."""
        ...

    @property
    def importing_command(self) -> str:
        """The command that imports what is queued here."""
        ...

    async def replay(self, choice: Choice, *, dry_run: bool, show: Show) -> Replayed:
        """Put the chosen dead letters of now back, with their TopicIds and doubts.

        Those that are invalid or in conflict still stay dead letters. `dry_run`: change nothing.
        `show` gets the line of each one that is chosen.
        """
        ...

    async def dismiss(self, choice: Choice, *, dry_run: bool, show: Show) -> Dismissed:
        """Dismiss the chosen dead letters and, if the choice reaches them, queued records (R27).

        `dry_run`: change nothing. `show` gets the line of each dead letter that is chosen. Raises
        QueueTakenError while another process takes from a queue that allows one taker.
        """
        ...


def unfinished_lines(names: list[str]) -> list[str]:
    """Return a line for people for each input that was not read to its end."""
    return [f"{name} was not read to its end: give it again to go on with it" for name in names]
