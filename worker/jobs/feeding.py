"""Feeding: a thread of its own reads the inputs, and puts their records into the queue."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar

from worker.intake.look_ahead import LookAhead
from worker.intake.reader import batches
from worker.intake.sources import (
    InputError,
    Source,
    UnsupportedInputError,
    expand,
    resolve,
)
from worker.jobs import UsageError
from worker.jobs.next_command import next_command
from worker.logs import logger
from worker.rules.record import Record
from worker.rules.surroundings import Surroundings, can_be_mended_in_place
from worker.rules.topic.mapping import parse_path
from worker.rules.topic.topic import RecordRules
from worker.rules.visible_text import visible
from worker.settings.model import Records

log = logger()

Result = TypeVar("Result")


class PutQueue(Protocol):
    """The half of a queue that is fed; the promises stand in `worker.queues.contract`."""

    async def put(self, records: list[Record]) -> int: ...

    async def surroundings(self, records: list[Record]) -> list[Surroundings]: ...

    async def mark_input(self, path: str, *, unfinished: bool) -> None: ...


@dataclass(slots=True)
class Stayed:
    """Dead letters of an input that stayed although their lines hold something else now.

    `source`: the place of the first one, as `path:line`.
    """

    path: str
    source: str
    letters: int = 0


def resolve_inputs(paths: list[str], records: Records) -> list[Source]:
    """Return the sources of all inputs, those of a pattern in order of their names.

    Raises UsageError that names each unreadable one.
    """
    sources, problems = [], []
    records_path = parse_path(records.path) if records.path else ()
    for path in chain.from_iterable(map(expand, paths)):
        try:
            sources.append(resolve(path, records_path, records.encoding))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise UsageError(*problems)
    return sources


def stayed_lines(stayed: Iterable[Stayed], out: Path) -> list[str]:
    """Return lines for people: which dead letters stayed, and the commands that give them up."""
    lines = []
    for of in stayed:
        chosen = of.source if of.letters == 1 else of.path
        command = next_command("dismiss", "--source", chosen, out=out)
        lines.append(
            f"{of.letters:,} dead letters of {of.path} stay: nothing shows that the records at "
            f"their lines now are the same ones; to give them up: {command}"
        )
    return lines


class Feeder:
    """Puts all records of the sources into the queue in batches, up to `limit` new ones.

    `on_change` is called in the event loop after new records were put, and at the end. The thread
    is a daemon, because a thread that waits for standard input cannot be stopped.
    """

    def __init__(
        self,
        queue: PutQueue,
        sources: Sequence[Source],
        rules: RecordRules,
        *,
        line_bytes_max: int,
        limit: int | None = None,
        on_change: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._sources = sources
        self._rules = rules
        self._line_bytes_max = line_bytes_max
        self._left = limit
        self._on_change = on_change
        self._stopped = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.feeding = bool(sources)
        """Whether more records may come."""
        self.stayed: dict[str, Stayed] = {}
        """By path: dead letters that nothing proves to be the records at their lines now (R28)."""
        self.skipped = 0
        """How many records were not chosen (`records.where`)."""
        self.failure: Exception | None = None
        """Why the reading ended early, a defect included: the job must not wait for more."""

    def start(self) -> None:
        """Start to read, if there is an input."""
        if self.feeding:
            threading.Thread(target=self._read_all, name="intake", daemon=True).start()

    def stop(self) -> None:
        """Read no further batch."""
        self._stopped.set()
        self.feeding = False

    def _read_all(self) -> None:
        failure: Exception | None = None
        try:
            for source in self._sources:
                self._read(source)
        except UnsupportedInputError as error:
            failure = UsageError(str(error))
        except Exception as error:  # noqa: BLE001 - passed to the job, which waits for the end
            failure = error
        with suppress(RuntimeError):  # the loop is closed, so nobody waits for the end
            self._loop.call_soon_threadsafe(self._ended, failure)

    def _ended(self, failure: Exception | None) -> None:
        self.failure = failure
        self.feeding = False
        self._on_change()

    def _read(self, source: Source) -> None:
        self._await(self._queue.mark_input(source.name, unfinished=True))
        ahead = LookAhead(source, self._line_bytes_max)
        is_empty, skipped_before = True, self.skipped
        for batch in batches(source, self._rules, self._line_bytes_max, self._skip):
            rest, is_empty = batch, False
            while rest and not self._is_done():
                part = rest if self._left is None else rest[: self._left]
                new = self._await(self._put(self._with_evidence(part, ahead)))
                rest = rest[len(part) :]
                if self._left is not None:
                    self._left -= new
            if self._is_done():
                return
        if is_empty and self.skipped == skipped_before:
            log.warning("an input is empty", input=visible(source.name))
        self._await(self._queue.mark_input(source.name, unfinished=False))

    def _skip(self, records: int) -> None:
        self.skipped += records

    def _with_evidence(self, records: list[Record], ahead: LookAhead) -> list[Record]:
        """Mark the records whose dead letters are proven to be theirs by the lines around (R28)."""
        in_place: set[int] = set()
        for found in self._await(self._queue.surroundings(records)):
            if found.are_unchanged(ahead.hash_of):
                in_place.add(found.line)
            else:
                source = f"{found.path}:{found.line}"
                stayed = self.stayed.setdefault(found.path, Stayed(found.path, source))
                stayed.letters += found.letters
        return [
            replace(record, is_in_place=True)
            if record.line in in_place and can_be_mended_in_place(record)
            else record
            for record in records
        ]

    def _await(self, job: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the event loop, from the thread of the intake."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result()

    def _is_done(self) -> bool:
        return self._stopped.is_set() or self._left == 0

    async def _put(self, records: list[Record]) -> int:
        new = await self._queue.put(records)
        if new:
            self._on_change()
        return new
