"""What backfill and serve share of a run: starting, draining, stopping, the final report."""

import asyncio
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from worker.job_directory import REPORT_NAME, WRITTEN_NAMES
from worker.jobs import UsageError
from worker.jobs.signals import StopRequest, stop_signals
from worker.logs import logger
from worker.outputs.files import OUT_OF_ROOM, irregular, not_regular, write_whole
from worker.outputs.report import Report
from worker.rules.counts import CommunityLetters, Counters, Counts
from worker.rules.topic.oddities import NO_EQUAL_NAMES, EqualNames
from worker.rules.verdict import Halt
from worker.settings.advice import unwise
from worker.settings.model import Settings

log = logger()

SWITCH_INTERVAL_S = 0.001
GC_THRESHOLDS = (50_000, 20, 100)
"""Records come and go by the thousand and form no cycles; with Python's own thresholds the search
for cycles took a tenth of the time at full speed."""


def prepare(settings: Settings, out: Path) -> None:
    """Warn of unwise settings, make the directory of the job, and tune the interpreter.

    Raises UsageError if the directory cannot be written.
    """
    for warning in unwise(settings):
        log.warning(warning)
    prepare_directory(out)
    # The threads of the intake and of the queue release the interpreter sooner. With the default
    # of 5 ms turns came late while a file was read: 186 calls a second were made instead of 200.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # Imported modules stay for ever; collections that visit them again and again delay turns.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def prepare_directory(out: Path) -> None:
    """Make the directory of a job.

    Raises UsageError if it cannot be written, or if something else stands in a file's place.
    """
    require_regular_files(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".writable-{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        if error.errno in OUT_OF_ROOM:
            return  # the queue reports a full disk as a halt, which ends once there is room
        raise UsageError(f"--out {out}: {error.strerror}: name a directory to write to") from None


def require_regular_files(out: Path) -> None:
    """Raise UsageError if a link, a device or a directory stands in the place of a job's file."""
    for path in [out / (name + end) for name in WRITTEN_NAMES for end in ("", ".new")]:
        if kind := irregular(path):
            raise UsageError(f"{path}: {not_regular(kind)}: move it away, or give another --out")


@dataclass(frozen=True, slots=True)
class _Work:
    """Work that can be stopped: at a drain it begins nothing new, when abandoned it ends."""

    drain: Callable[[], None]
    abandon: Callable[[], None]


class Stopping:
    """The way from a request to stop to the end of all work.

    The first signal drains: no new calls, while calls in flight may finish for `drain_timeout_s`.
    The second signal, or the end of that time, abandons what is left: nothing is waited for.
    """

    def __init__(self, drain_timeout_s: float) -> None:
        self.requested = asyncio.Event()
        self._drain_timeout_s = drain_timeout_s
        self._drain_ends_s = 0.0
        self._is_abandoned = False
        self._works: list[_Work] = []
        self._clock = asyncio.get_running_loop().time

    @property
    def drain_left_s(self) -> float | None:
        """Seconds that calls in flight still have; None while no stop was asked for."""
        if not self.requested.is_set():
            return None
        return max(0.0, self._drain_ends_s - self._clock())

    @contextmanager
    def at_signals(self) -> Iterator[StopRequest]:
        """Stop at SIGINT, SIGTERM and SIGHUP."""
        with stop_signals(self.drain, self.abandon) as request:
            yield request

    @contextmanager
    def of_work(self, *, drain: Callable[[], None], abandon: Callable[[], None]) -> Iterator[None]:
        """Stop this work too when a stop is asked for, at once if that was before."""
        work = _Work(drain, abandon)
        self._works.append(work)
        try:
            if self.requested.is_set():
                drain()
            if self._is_abandoned:
                abandon()
            yield
        finally:
            self._works.remove(work)

    async def pause(self, seconds: float) -> None:
        """Wait for so many seconds, or until a stop is asked for."""
        await pause(seconds, self.requested)

    def drain(self) -> None:
        """Start nothing new; abandon what is left after the time for draining."""
        self._drain_ends_s = self._clock() + self._drain_timeout_s
        self.requested.set()
        for work in self._works:
            work.drain()
        asyncio.get_running_loop().call_later(self._drain_timeout_s, self.abandon)

    def abandon(self) -> None:
        """Wait for nothing any longer."""
        self._is_abandoned = True
        for work in self._works:
            work.abandon()


async def pause(seconds: float, until: asyncio.Event) -> None:
    """Wait for so many seconds, or until the event is set."""
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        return


class Run:
    """One run of a job: what it counted, since when it runs, how it is stopped.

    `job_id`: the ID of the job, once its queue is open and has one.
    """

    def __init__(self, settings: Settings, out: Path) -> None:
        self.counters = Counters()
        self.stopping = Stopping(settings.drain.timeout)
        self.job_id: str | None = None
        self._quota_per_s = settings.rate.calls_per_second
        self._path = out / REPORT_NAME
        self._started, self._started_s = time.time(), time.monotonic()

    def report(
        self,
        counts: Counts,
        halt: Halt | None,
        *,
        crowded: Sequence[tuple[str, int]] = (),
        worst: Sequence[CommunityLetters] = (),
        held: Mapping[str, str] = MappingProxyType({}),
        equal_names: EqualNames = NO_EQUAL_NAMES,
        skipped: int = 0,
    ) -> Report:
        """Return the final report of this run."""
        return Report(
            counts=counts,
            counters=self.counters,
            quota_per_s=self._quota_per_s,
            seconds=time.monotonic() - self._started_s,
            started=self._started,
            ended=time.time(),
            halted=halt,
            crowded=crowded,
            worst=worst,
            held=held,
            equal_names=equal_names,
            skipped=skipped,
            job_id=self.job_id,
        )

    def write(self, report: Report) -> Path | None:
        """Write `report.json`; return its path, or log why it cannot be written."""
        try:
            write_whole(self._path, report.as_json())
        except OSError as error:
            log.error("the report could not be written", reason=storage_sentence(error))
            return None
        return self._path


def storage_sentence(error: Exception) -> str:
    """Return what the queue or the disk refused, and what to do."""
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else "a result file: "
        return (
            f"{named}{error.strerror}. Nothing is lost; make room or mend it, then run the same "
            "command again"
        )
    return str(error)
