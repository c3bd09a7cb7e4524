"""The long-lived job: import from the queue until it is asked to stop."""

import asyncio
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TypeVar

from worker.chat import ImportTopicClient
from worker.job_directory import REPORT_NAME
from worker.jobs import Exit, UsageError, assembly, parts, say
from worker.jobs.engines import Engine, GiveUp, open_engine
from worker.jobs.signals import stop_signals
from worker.limits import Limits, Quota
from worker.logs import RepeatedEvents, logger
from worker.monitoring.admin import AdminError, AdminServer, Status
from worker.monitoring.metrics import Gauges, Metrics
from worker.monitoring.progress import log_progress
from worker.outputs.files import write_whole
from worker.outputs.report import Report, summary, sums
from worker.pipeline import Pipeline
from worker.queues.contract import JobMismatchError, QueueAwayError, QueueError, QueueTakenError
from worker.rules.counts import Counters, Counts
from worker.rules.outcome import DeadLetter, Delivery, Imported, Outcome
from worker.rules.verdict import Halt
from worker.settings.advice import unwise
from worker.settings.model import Settings, base_url
from worker.traffic import Traffic

log = logger()

Value = TypeVar("Value")

POLL_S = 0.2
STORAGE = "storage"
AWAY_PAUSE_S = 1.0
COUNT_EVERY_S = 1.0
TELL_EVERY_S = 60.0
SAY_EVERY_S = 1.0
HALT_PAUSES_S = (5.0, 10.0, 30.0, 60.0)
"""A halted service asks again after these: a person may have mended it."""
PROBE_SIZES = (2, 4, 8, 16, 32)
"""With so many records: the first ones of the queue may be those that halt."""
SWITCH_INTERVAL_S = 0.001


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the settings."""

    out: Path
    until_empty: bool = False


async def serve(settings: Settings, options: Options) -> Exit:
    """Serve until a signal, or until the queue is empty where that was asked for.

    Raises UsageError where nothing was started.
    """
    parts.redis_url(settings, options.out)
    assembly.credentials(settings)
    service = _Service(settings, options)
    for warning in unwise(settings):
        log.warning(warning)
    parts.prepare_directory(options.out)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    try:
        async with AdminServer(settings.admin.listen, service.status, service.metrics) as admin:
            log.info(
                "serving",
                admin=admin.url,
                app=settings.app.sdk_app_id,
                service=base_url(settings.app),
                out=str(options.out),
            )
            return await service.run()
    except AdminError as error:
        raise UsageError(str(error)) from None
    except (JobMismatchError, QueueTakenError) as error:
        raise UsageError(str(error)) from None


class _Counted:
    """The queue, with its outcomes told to the metrics."""

    def __init__(self, engine: Engine, metrics: Metrics, on_imported: Callable[[], None]) -> None:
        self._engine = engine
        self._metrics = metrics
        self._on_imported = on_imported
        self._told = Counter(engine.found)
        self._dead_letters = RepeatedEvents(log, asyncio.get_running_loop().time)

    @property
    def is_drained(self) -> bool:
        return self._engine.is_drained

    async def take(self, count: int) -> list[Delivery]:
        taken = await self._engine.take(count)
        new = Counter(self._engine.found) - self._told
        self._metrics.settled("duplicate", new["duplicate"])
        self._metrics.settled("dead", new["dead"])
        self._metrics.lost(new["lost"])
        self._told += new
        return taken

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        settled = await self._engine.settle(outcomes)
        imported = sum(isinstance(outcome, Imported) for outcome in settled)
        self._metrics.settled("imported", imported)
        if imported:
            self._on_imported()
        letters = [outcome for outcome in settled if isinstance(outcome, DeadLetter)]
        self._metrics.settled("dead", len(letters))
        for letter in letters:
            self._dead_letters.warning(
                "dead-lettered", reason=letter.reason.value, code=letter.code, hint=letter.hint
            )
        return settled

    def tell_rest(self) -> None:
        """Log how many more were dead-lettered than was told."""
        self._dead_letters.tell_rest()


class _Service:
    """One process of the service: start, run, drain, stop."""

    def __init__(self, settings: Settings, options: Options) -> None:
        self._settings = settings
        self._options = options
        self._counters = Counters()
        self._counts = Counts()
        self._credentials = assembly.credentials(settings)
        self._endpoint = assembly.endpoint(settings)
        self._clock = asyncio.get_running_loop().time
        self._started, self._started_s = time.time(), time.monotonic()
        self._oldest_age_s = 0.0
        self._engine: Engine | None = None
        self._give_up_queue: GiveUp | None = None
        self._quota: Quota | None = None
        self._machinery: assembly.Machinery | None = None
        self._pipeline: Pipeline | None = None
        self._halt: Halt | None = None
        self._queue_away: str | None = None
        self._was_reached = False
        self._is_counted = False
        self._is_empty = False
        self._left_unsettled = False
        self._stopping = asyncio.Event()
        self._drain_ends_s = 0.0
        self.metrics = Metrics(
            self._gauges(),
            quota_per_s=settings.rate.calls_per_second,
            clock=self._clock,
        )

    # ---- what others see

    def _gauges(self) -> Gauges:
        return Gauges(
            in_flight=lambda: self._traffic.calling,
            waiting_for_retry=lambda: self._traffic.backing_off,
            waiting_for_turn=lambda: self._traffic.waiting,
            oldest_pending_s=lambda: self._oldest_age_s,
            queued=lambda: self._counts.queued,
            rate_in_force_per_s=lambda: self._quota.rate_per_s if self._quota else 0.0,
            calls_started=lambda: self._counters.calls,
            signature_age_s=lambda: self._credentials.age_s,
            ready=lambda: self._why_not_ready() is None,
            state=self._state,
        )

    @property
    def _traffic(self) -> Traffic:
        return self._machinery.traffic if self._machinery else Traffic()

    def _state(self) -> str:
        if self._stopping.is_set():
            return "drain"
        if self._halt:
            return "halt"
        return "probe" if self._machinery and self._machinery.limits.is_open else "run"

    def _why_not_ready(self) -> str | None:
        if self._stopping.is_set():
            return self._drain_sentence()
        if self._halt:
            return f"halted ({self._halt.code}): {self._halt.message}"
        if self._queue_away:
            return f"queue: {self._queue_away}"
        if self._engine is None or self._quota is None or self._machinery is None:
            return "starting: the queue is being opened"
        if self._engine.trouble:
            return f"queue: {self._engine.trouble}"
        if not self._quota.is_reachable:
            return "quota: the Redis of rate.shared cannot be used"
        if self._machinery.limits.is_open:
            seconds = self._machinery.limits.probing_for_s
            return f"outage: the service is unwell for {seconds:.0f} s, and asked now and then"
        return None

    def _drain_sentence(self) -> str:
        left_s = max(0.0, self._drain_ends_s - self._clock())
        sentence = (
            f"draining: {self._traffic.calling} in flight, "
            f"{self._traffic.backing_off} waiting for retry, {left_s:.0f} s left"
        )
        trouble = self._engine.trouble if self._engine else None
        if not trouble:
            return sentence
        waiting = self._pipeline.outcomes_waiting if self._pipeline else 0
        return f"{sentence}; {waiting} outcomes wait for the queue: {trouble}"

    def status(self) -> Status:
        """Tell whether the service is ready, why not, and what it does."""
        reason = self._why_not_ready()
        facts = {
            "state": self._state(),
            "records": sums(self._counts)[0] if self._was_reached else "not known yet",
            "oldest in the queue": f"{self._oldest_age_s:.0f} s",
            "in flight": f"{self._traffic.calling}",
            "waiting for retry": f"{self._traffic.backing_off}",
            "calls": f"{self._counters.calls:,}, {self._counters.throttled:,} throttled",
            "rate in force": f"{self._quota.rate_per_s:.1f}/s" if self._quota else "none yet",
        }
        return Status(reason is None, reason or "ready", facts)

    # ---- run

    async def run(self) -> Exit:
        """Work until a stop, through halts and troubles of the queue."""
        with stop_signals(self._drain, self._stop_now) as request:
            async with assembly.open_quota(
                self._settings, closed_for_s=assembly.QUOTA_WINDOW_S
            ) as self._quota:
                pauses, failed_s = _and_the_last_again(HALT_PAUSES_S), self._clock()
                while not self._is_done():
                    try:
                        async with open_engine(
                            self._settings, self._options.out, self._opening
                        ) as self._engine:
                            await self._import_all(self._engine, self._quota)
                    except (QueueTakenError, JobMismatchError):
                        raise
                    except QueueAwayError as error:
                        self._lost_sight_of_queue(str(error))
                        await _pause(AWAY_PAUSE_S, self._stopping)
                    except (QueueError, OSError) as error:
                        if self._clock() - failed_s > 2 * HALT_PAUSES_S[-1]:
                            pauses = _and_the_last_again(HALT_PAUSES_S)
                        failed_s = self._clock()
                        self._storage_failed(str(error))
                        await _pause(next(pauses), self._stopping)
                    finally:
                        self._engine = self._give_up_queue = None
        exit_now = request.exit if request.is_now else None
        return self._report() or exit_now or Exit.DONE

    def _opening(self, give_up: GiveUp) -> None:
        self._give_up_queue = give_up

    def _lost_sight_of_queue(self, reason: str) -> None:
        if self._queue_away is None:
            log.warning("the queue cannot be reached; waiting for it", reason=reason)
        self._queue_away = reason.removeprefix("queue.url: ")

    def _is_done(self) -> bool:
        return self._stopping.is_set() or self._is_empty

    async def _import_all(self, engine: Engine, quota: Quota) -> None:
        """Import until a stop; after a halt with a few records at a time until one goes through."""
        pauses = _and_the_last_again(HALT_PAUSES_S)
        sizes = _and_the_last_again(PROBE_SIZES)
        take_max = None
        self._counts, self._was_reached = await engine.counts(), True
        if self._halt or self._queue_away:
            log.info("the queue can be used again")
        self._halt = self._queue_away = None
        log.info("importing", queue=engine.name, queued=self._counts.queued)
        while not self._is_done():
            halt = await self._import(engine, quota, take_max)
            if halt:
                if self._halt is None:
                    pauses = _and_the_last_again(HALT_PAUSES_S)
                    sizes = _and_the_last_again(PROBE_SIZES)
                self._halt, pause_s, take_max = halt, next(pauses), next(sizes)
                log.info("asking again once a person acted", after_s=pause_s, records=take_max)
                await _pause(pause_s, self._stopping)
                # What a person mends may be the key.
                with suppress(UsageError):
                    self._credentials = assembly.credentials(self._settings)
            else:
                take_max = None
                self._end_halt()
        with suppress(QueueError):  # what was settled is settled
            self._counts, self._is_counted = await engine.counts(), True

    def _end_halt(self) -> None:
        if self._halt:
            self._halt = None
            log.info("the halt is over: importing again")

    async def _import(self, engine: Engine, quota: Quota, take_max: int | None) -> Halt | None:
        async with ImportTopicClient(self._endpoint) as chat:
            machinery = assembly.assemble(
                self._settings,
                chat=chat,
                credentials=self._credentials,
                quota=quota,
                counters=self._counters,
                anything_imported=self._counts.imported > 0,
                observe=self.metrics.called,
            )
            bounds = assembly.bounds(self._settings, take_max=take_max)
            engine.untried_first = take_max is not None
            counted = _Counted(engine, self.metrics, self._end_halt)
            pipeline = Pipeline(counted, machinery.carrier, machinery.traffic, bounds)
            limits = machinery.limits
            self._machinery, self._pipeline = machinery, pipeline
            if self._stopping.is_set():
                machinery.carrier.stop()
            ended = asyncio.Event()
            looking = asyncio.create_task(self._look_after(engine, pipeline, limits, ended))
            try:
                await pipeline.run(lambda: not self._is_empty)
            except (QueueError, OSError):
                self._left_unsettled = self._stopping.is_set() and pipeline.unsettled > 0
                raise
            finally:
                # Ended by a flag: redis-py swallows most cancellations that come during a call.
                ended.set()
                await asyncio.wait([looking])
                counted.tell_rest()
                self._pipeline = None
        return machinery.carrier.halted

    async def _look_after(
        self, engine: Engine, pipeline: Pipeline, limits: Limits, ended: asyncio.Event
    ) -> None:
        """Look for new records, keep the figures for monitors fresh, tell of the progress."""
        counted_at_s, told_at_s, calls = float("-inf"), self._clock(), self._counters.calls
        while not ended.is_set():
            with suppress(Exception):  # the queue itself tells of its troubles
                if self._options.until_empty and await engine.is_empty():
                    self._is_empty = True
                if self._clock() - counted_at_s >= COUNT_EVERY_S and not engine.trouble:
                    counted_at_s = self._clock()
                    self._counts = await engine.counts()
                    self._oldest_age_s = await engine.oldest_age_s()
            if self._clock() - told_at_s >= TELL_EVERY_S and self._counters.calls > calls:
                told_at_s, calls = self._clock(), self._counters.calls
                log_progress(self._counts, self._counters, limits)
            pipeline.queue_was_fed()
            await _pause(POLL_S, ended)

    def _storage_failed(self, reason: str) -> None:
        if self._stopping.is_set():
            log.error(
                "the queue could not be told all: start again with the same --out, and what is "
                "in doubt is asked about",
                reason=reason,
            )
            return
        if self._halt is None or self._halt.code != STORAGE:
            log.error("halted", code=STORAGE, reason=reason)
        self._halt = Halt(STORAGE, reason)

    # ---- stop

    def _drain(self) -> None:
        """Take no more, let what is in flight finish within the time for it."""
        timeout_s = self._settings.drain.timeout
        self._drain_ends_s = self._clock() + timeout_s
        self._stopping.set()
        if self._machinery:
            self._machinery.carrier.stop()
        loop = asyncio.get_running_loop()
        loop.call_later(timeout_s, self._stop_now)
        loop.call_soon(self._say_what_it_waits_for)

    def _say_what_it_waits_for(self) -> None:
        if self._pipeline is not None:
            log.info(self._drain_sentence())
            asyncio.get_running_loop().call_later(SAY_EVERY_S, self._say_what_it_waits_for)

    def _stop_now(self) -> None:
        if self._pipeline:
            self._pipeline.abandon()
        if self._give_up_queue:
            self._give_up_queue()

    def _report(self) -> Exit | None:
        """Write the report; HALTED where outcomes could not be settled at the end."""
        report = Report(
            counts=self._counts,
            counters=self._counters,
            quota_per_s=self._settings.rate.calls_per_second,
            seconds=time.monotonic() - self._started_s,
            started=self._started,
            ended=time.time(),
            halted=self._halt,
        )
        if not self._was_reached:
            say("the queue was never reached: nothing is known of it")
            return None
        try:
            write_whole(self._options.out / REPORT_NAME, report.as_json())
        except OSError as error:
            log.error("the report could not be written", reason=error.strerror)
        if not self._is_counted:
            say("the queue could not be asked at the end: these sums are the last it told")
        say(*summary(report))
        return Exit.HALTED if self._left_unsettled else None


def _and_the_last_again(values: Sequence[Value]) -> Iterator[Value]:
    """Yield the values of a halt, the last one again and again."""
    return chain(values, repeat(values[-1]))


async def _pause(seconds: float, until: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await until.wait()
