"""The embedded queue (SQLite) as the jobs use it, with the result files that follow it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import MappingProxyType

from worker.intake.formats.json_lines import Line
from worker.intake.reader import read
from worker.job_directory import DEAD_LETTER_NAME, QUEUE_NAME
from worker.jobs import UsageError
from worker.jobs.changed_mapping import changed_mapping, mapping_text
from worker.jobs.communities_reached import communities_reached
from worker.jobs.embedded_standing import read_lost_standing, read_standing
from worker.jobs.engine import (
    Choice,
    Dismissed,
    GiveUp,
    OpenFeed,
    OpenTaker,
    Replayed,
    Show,
    Standing,
)
from worker.jobs.evidence import find_without_queue, reconcile_evidence, refuse_without_queue
from worker.jobs.from_settings import job_identity, record_rules
from worker.jobs.running import prepare_directory, require_regular_files
from worker.logs import logger
from worker.outputs.job_mark import read_job_mark
from worker.outputs.result_files import ResultFiles
from worker.queues.contract import QueueError, QueueTakenError
from worker.queues.directory_lock import DirectoryLock, taker_of
from worker.queues.sqlite.queue import SqliteQueue
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import CommunityLetters, Counts
from worker.rules.outcome import Delivery, Outcome
from worker.rules.record import Record, content_hash
from worker.rules.topic.oddities import EqualNames
from worker.settings.model import Settings

log = logger()

PAGE = 500
WATCH_EVERY_S = 1.0
"""How often a run checks that nobody removed its queue, beside every take."""


class EmbeddedEngine:
    """The queue in the directory `out`, which one process at a time takes from.

    `adopt`: whoever takes from it takes over what only the result files know.
    """

    def __init__(self, settings: Settings, out: Path, *, adopt: bool = False) -> None:
        self._settings = settings
        self._out = out
        self._adopt = adopt
        self._is_service = False

    @property
    def exists(self) -> bool:
        """Whether the directory holds a queue."""
        return (self._out / QUEUE_NAME).exists()

    @property
    def was_lost(self) -> bool:
        """Whether the directory holds no queue, but result files that know topics.

        Raises UsageError if something else stands in a file's place.
        """
        require_regular_files(self._out)
        return not self.exists and find_without_queue(self._out) is not None

    @asynccontextmanager
    async def open_job(self) -> AsyncIterator["OpenJob"]:
        """Open the queue to put and to take. Raises as `open_taker`."""
        if not self._adopt and taker_of(self._out) is None:
            refuse_without_queue(self._out)
        queue = SqliteQueue(self._out)
        files: ResultFiles | None = None
        try:
            was_used, recovered = await queue.become_taker(
                job_identity(self._settings), job_id=read_job_mark(self._out)
            )
            await queue.run(lambda: self._tell_mapping(queue.store))
            files = await queue.run(lambda: self._open_files(queue))
            job_id = await queue.run(queue.store.job_id)
            yield OpenJob(queue, files, was_used=was_used, recovered=recovered, job_id=job_id)
        finally:
            if files is not None:
                files.close()
            queue.close()

    def _tell_mapping(self, store: SqliteStore) -> None:
        """Log what another mapping than that of the last run does, before anything is read."""
        now = mapping_text(self._settings.records)
        sentence = changed_mapping(store.exchange_mapping(now), now)
        if sentence:
            log.warning("the mapping changed", what=sentence)

    def _open_files(self, queue: SqliteQueue) -> ResultFiles:
        rotate_at_bytes = self._settings.outputs.max_bytes if self._is_service else 0
        files = ResultFiles(self._out, queue.store, rotate_at_bytes=rotate_at_bytes)
        reconcile_evidence(self._out, queue.store, files, adopt=self._adopt)
        return files

    @asynccontextmanager
    async def open_taker(self, on_opening: Callable[[GiveUp], None]) -> AsyncIterator[OpenTaker]:  # noqa: ARG002 - no server to wait for
        """Open the queue to take from; see `Engine.open_taker`."""
        self._is_service = True
        async with self.open_job() as job:
            queue, files = job.queue, job.files
            await queue.run(files.reconcile)
            taker = _Taker(str(self._out / QUEUE_NAME), queue, files)
            yield OpenTaker(taker, lambda: queue.run(files.follow), job.job_id)
            await queue.run(files.finish)

    @asynccontextmanager
    async def open_feed(self) -> AsyncIterator[OpenFeed]:
        """Open the queue to put into it; raises UsageError if `out` cannot be written."""
        prepare_directory(self._out)
        queue = SqliteQueue(self._out)
        try:
            identity = job_identity(self._settings)
            job_id = read_job_mark(self._out)
            await queue.run(lambda: queue.store.identify(identity, job_id=job_id))
            await queue.run(lambda: self._tell_mapping(queue.store))
            yield OpenFeed(queue, give_up=lambda: None)
        finally:
            queue.close()

    async def standing(self) -> Standing:
        """Return what the queue holds, counted anew, and whether the result files agree with it."""
        require_regular_files(self._out)
        if not self.exists and (standing := read_lost_standing(self._out)):
            return standing
        self._require_job()
        return read_standing(self._out)

    importing_command = "backfill"

    async def replay(self, choice: Choice, *, dry_run: bool, show: Show) -> Replayed:
        """Put the chosen dead letters back; beside a taker, that one updates the result files."""
        self._require_job()
        with self._letters(needs_lock=False, read_only=dry_run) as (store, files):
            matched = replayed = 0
            for rows in _chosen(store, choice):
                records = [self._read(line.rstrip()) for _, line in rows]
                matched += len(records)
                _show(rows, show)
                replayed += store.would_requeue(records) if dry_run else store.requeue(records)
            if files:
                files.finish()
            return Replayed(matched, replayed, matched - replayed, store.counts())

    async def dismiss(self, choice: Choice, *, dry_run: bool, show: Show) -> Dismissed:
        """Dismiss what is chosen. Raises QueueTakenError while another process takes."""
        self._require_job()
        groups = communities_reached(choice, self._out)
        with self._letters(needs_lock=not dry_run, read_only=dry_run) as (store, files):
            letters = queued = 0
            for rows in _chosen(store, choice):
                _show(rows, show)
                letters += len(rows) if dry_run else store.dismiss(rows, time.time())
            if dry_run:
                queued = sum(store.queued_of(group_id, choice.source) for group_id in groups)
            elif groups:
                store.recover()
                queued = sum(_dismiss_queued(store, group_id, choice.source) for group_id in groups)
            if files:
                files.finish()
                files.reconcile_dismissed()
            return Dismissed(letters, queued, 0, store.counts())

    @contextmanager
    def _letters(
        self, *, needs_lock: bool, read_only: bool
    ) -> Iterator[tuple[SqliteStore, ResultFiles | None]]:
        """Open the queue for a command on dead letters, and its result files if it may write them.

        Beside a taker there are no files, unless the lock is needed: QueueTakenError then.
        """
        require_regular_files(self._out)
        is_alone, files = False, None
        with ExitStack() as opened:
            if not read_only:
                try:
                    opened.callback(DirectoryLock(self._out).release)
                    is_alone = True
                except QueueTakenError:
                    if needs_lock:
                        raise
            store = SqliteStore(self._out / QUEUE_NAME, read_only=read_only)
            opened.callback(store.close)
            if not read_only:
                store.identify(job_identity(self._settings), job_id=read_job_mark(self._out))
            if is_alone:
                files = ResultFiles(self._out, store)
                opened.callback(files.close)
                reconcile_evidence(self._out, store, files, adopt=False)
                files.reconcile()
            yield store, files

    def _read(self, line: bytes) -> Record:
        """Read a dead letter as `backfill out/dead-letter.jsonl` would."""
        name, rules = str(self._out / DEAD_LETTER_NAME), record_rules(self._settings)
        return read(name, Line(1, line, content_hash(line)), rules)

    def _require_job(self) -> None:
        if not self.exists:
            raise UsageError(
                f"--out {self._out}: there is no job ({QUEUE_NAME}): name the --out that it was "
                "begun with, or for a queue in Redis set queue.url"
            )


class OpenJob:
    """An open queue and its result files, for the job that both puts and takes.

    `files`: their methods run in the thread of the queue (`queue.run`); they are to be reconciled.
    `was_used`: whether an earlier run used the queue. `recovered`: how many records an earlier run
    held when it was cut off. `job_id`: what the queue and its files have in common.
    """

    def __init__(
        self,
        queue: SqliteQueue,
        files: ResultFiles,
        *,
        was_used: bool,
        recovered: int,
        job_id: str | None,
    ) -> None:
        self.queue = queue
        self.files = files
        self.was_used = was_used
        self.recovered = recovered
        self.job_id = job_id

    @asynccontextmanager
    async def watched(self, on_loss: Callable[[QueueError], None]) -> AsyncIterator[None]:
        """Check every WATCH_EVERY_S that the queue is in its place; else call `on_loss` once."""
        watching = asyncio.create_task(self._watch(on_loss))
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _watch(self, on_loss: Callable[[QueueError], None]) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                self.queue.check_place()
            except QueueError as error:
                on_loss(error)
                return

    async def unfinished_inputs(self) -> list[str]:
        """Return the inputs that were never read to their end."""
        return await self.queue.run(self.queue.store.unfinished_inputs)

    async def crowded_communities(self, topics_max: int) -> Sequence[tuple[str, int]]:
        """Return the communities for which more topics were read, with how many."""
        return await self.queue.run(lambda: self.queue.store.crowded_communities(topics_max))

    async def equal_names(self) -> EqualNames:
        """Return the TopicNames that became equal within a community by cutting."""
        return await self.queue.run(self.queue.store.equal_names)


class _Taker:
    """The embedded queue by the contract of a queue that is taken from."""

    trouble = None
    found: Mapping[str, int] = MappingProxyType({})

    def __init__(self, name: str, queue: SqliteQueue, files: ResultFiles) -> None:
        self.name = name
        self._queue = queue
        self._files = files

    @property
    def is_drained(self) -> bool:
        return self._queue.is_drained

    async def take(
        self,
        count: int,
        *,
        untried_first: bool = False,
        without: frozenset[str] = frozenset(),
    ) -> list[Delivery]:
        return await self._queue.take(count, untried_first=untried_first, without=without)

    async def take_of(self, group_id: str, count: int) -> list[Delivery]:
        return await self._queue.take_of(group_id, count)

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        return await self._queue.settle(outcomes)

    async def counts(self) -> Counts:
        # Dead letters that somebody replays meanwhile leave their file here.
        await self._queue.run(self._files.finish)
        return await self._queue.counts()

    async def worst_communities(self, count: int) -> list[CommunityLetters]:
        return await self._queue.worst_communities(count)

    async def is_empty(self) -> bool:
        return (await self.counts()).queued == 0

    async def oldest_age_s(self) -> float:
        return await self._queue.oldest_age_s()


def _chosen(store: SqliteStore, choice: Choice) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the chosen dead letters in pages of (seq, line).

    Only those of now: a record that is still invalid becomes a new dead letter, and reading that
    again would never end.
    """
    seq, last_seq = 0, store.last_seq("dead")
    while seq < last_seq and (rows := store.lines("dead", seq, PAGE)):
        seq = rows[-1][0]
        yield [(n, line) for n, line in rows if n <= last_seq and choice.matches(line)]


def _dismiss_queued(store: SqliteStore, group_id: str, source: str | None) -> int:
    """Dismiss all ready records of a community in pages; return how many there were."""
    dismissed = 0
    while n := store.dismiss_queued(group_id, source, PAGE, time.time()):
        dismissed += n
    return dismissed


def _show(rows: list[tuple[int, bytes]], show: Show) -> None:
    for _, line in rows:
        show(line)
