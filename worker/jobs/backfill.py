"""The one-off job: import the files, stop when every record is settled."""

import asyncio
import gc
import shlex
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.chat import ImportTopicClient
from worker.intake.sources import InputError, Source
from worker.job_directory import DEAD_LETTER_NAME, IMPORTED_NAME, QUEUE_NAME, REPORT_NAME
from worker.jobs import Exit, UsageError, assembly, parts, say
from worker.jobs.feeding import Feeder
from worker.jobs.signals import StopRequest, stop_signals
from worker.limits import Limits, Quota
from worker.logs import logger
from worker.monitoring import progress
from worker.outputs.files import write_whole
from worker.outputs.report import COMMUNITY_TOPICS_MAX, Report, summary
from worker.pipeline import Pipeline
from worker.queues.contract import JobMismatchError, QueueError, QueueTakenError
from worker.queues.sqlite.queue import SqliteQueue
from worker.rules.counts import Counters, Counts
from worker.rules.verdict import Halt
from worker.settings.advice import unwise
from worker.settings.model import Settings

log = logger()

SWITCH_INTERVAL_S = 0.001


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the settings."""

    inputs: list[str]
    out: Path
    limit: int | None = None
    show_progress: bool = True


async def backfill(settings: Settings, options: Options) -> Exit:
    """Run the job and say what came of it.

    Raises UsageError where nothing was started.
    """
    parts.require_embedded_queue(settings, options.out)
    sources = parts.resolve_inputs(options.inputs)
    if not sources and not (options.out / QUEUE_NAME).exists():
        raise UsageError(
            f"nothing to import: name an input file, or the --out of a job ({options.out} has none)"
        )
    run = _Run(settings, options, sources)
    for warning in unwise(settings):
        log.warning(warning)
    parts.prepare_directory(options.out)
    # The threads of the intake and the queue hand the interpreter over sooner: with the default
    # of 5 ms, turns came late while a file was read, and 186 calls a second were made of 200.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # What the imports made lives for ever; looking through it again and again makes turns late.
    gc.freeze()
    return await run.run()


class _Run:
    """One run of the job: start, run, drain, stop."""

    def __init__(self, settings: Settings, options: Options, sources: list[Source]) -> None:
        self._settings = settings
        self._options = options
        self._sources = sources
        self._counters = Counters()
        self._credentials = assembly.credentials(settings)
        self._endpoint = assembly.endpoint(settings)
        self._started = time.time()
        self._started_s = time.monotonic()
        self._halt: Halt | None = None
        self._working: tuple[Feeder, assembly.Machinery, Pipeline] | None = None

    async def run(self) -> Exit:
        try:
            async with self._open_queue() as (queue, was_used):
                return await self._run_on(queue, was_used=was_used)
        except (JobMismatchError, QueueTakenError) as error:
            raise UsageError(str(error)) from None
        except (QueueError, OSError) as error:
            # Before the first record or after the last: the queue could not be opened or closed.
            log.error("halted", code="storage", reason=_sentence(error))
            return Exit.HALTED

    @asynccontextmanager
    async def _open_queue(self) -> AsyncIterator[tuple[SqliteQueue, bool]]:
        queue = SqliteQueue(self._options.out)
        try:
            was_used, recovered = await queue.become_taker(parts.job_identity(self._settings))
            if recovered:
                log.info("taken back from a run that was cut off", records=recovered)
            yield queue, was_used
        finally:
            queue.close()

    async def _run_on(self, queue: SqliteQueue, *, was_used: bool) -> Exit:
        files = parts.ResultFiles(self._options.out, queue.store)
        with stop_signals(self._stop, self._stop_now) as request:
            try:
                self._sources = await queue.run(lambda: files.reconcile(self._sources))
                # The run that went before may have called just now: its second counts.
                closed_for_s = assembly.QUOTA_WINDOW_S if was_used else 0.0
                async with (
                    ImportTopicClient(self._endpoint) as chat,
                    assembly.open_quota(self._settings, closed_for_s=closed_for_s) as quota,
                ):
                    await self._import(queue, files, chat, quota, request)
                await queue.run(files.finish)
            except (QueueError, OSError) as error:
                self._halt = Halt("storage", _sentence(error))
                log.error("halted", code=self._halt.code, reason=self._halt.message)
            finally:
                files.close()
            return await self._report(queue, request)

    async def _import(
        self,
        queue: SqliteQueue,
        files: parts.ResultFiles,
        chat: ImportTopicClient,
        quota: Quota,
        request: StopRequest,
    ) -> None:
        counts = await queue.counts()
        machinery = assembly.assemble(
            self._settings,
            chat=chat,
            credentials=self._credentials,
            quota=quota,
            counters=self._counters,
            anything_imported=counts.imported > 0,
            same_rejection=self._settings.halt.same_rejection,
        )
        limits, carrier = machinery.limits, machinery.carrier
        bounds = assembly.bounds(self._settings, take_max=self._options.limit)
        pipeline = Pipeline(
            queue,
            carrier,
            machinery.traffic,
            bounds,
            after_settling=lambda: queue.run(files.follow),
        )
        feeder = Feeder(
            queue,
            self._sources,
            parts.record_rules(self._settings),
            line_bytes_max=self._settings.records.max_line_bytes,
            limit=self._options.limit,
            on_change=pipeline.queue_was_fed,
        )

        def feeding() -> bool:
            if isinstance(feeder.failure, QueueError):
                raise feeder.failure
            return feeder.feeding

        self._working = (feeder, machinery, pipeline)
        if request.exit is not None:
            self._stop()
        shown = asyncio.create_task(self._show_progress(queue, limits, feeder))
        try:
            feeder.start()
            await pipeline.run(feeding)
        finally:
            feeder.stop()
            shown.cancel()
            await asyncio.wait([shown])
        self._halt = carrier.halted or _halt_of(feeder.failure)

    def _stop(self) -> None:
        """Take no more; what is in flight may finish within the time for draining."""
        if self._working is None:
            return
        feeder, machinery, pipeline = self._working
        feeder.stop()
        machinery.carrier.stop()
        loop = asyncio.get_running_loop()
        loop.call_later(self._settings.drain.timeout, pipeline.abandon)

    def _stop_now(self) -> None:
        if self._working is not None:
            self._working[2].abandon()

    async def _show_progress(self, queue: SqliteQueue, limits: Limits, feeder: Feeder) -> None:
        if self._options.show_progress:
            await progress.show(queue.counts, self._counters, limits, lambda: feeder.feeding)

    async def _report(self, queue: SqliteQueue, request: StopRequest) -> Exit:
        counts = await queue.counts()
        report = Report(
            counts=counts,
            counters=self._counters,
            quota_per_s=self._settings.rate.calls_per_second,
            seconds=time.monotonic() - self._started_s,
            started=self._started,
            ended=time.time(),
            halted=self._halt,
            crowded=await queue.run(lambda: queue.store.crowded_communities(COMMUNITY_TOPICS_MAX)),
        )
        out = self._options.out
        files = [out / name for name in (IMPORTED_NAME, DEAD_LETTER_NAME)]
        try:
            write_whole(out / REPORT_NAME, report.as_json())
            files.append(out / REPORT_NAME)
        except OSError as error:
            log.error("the report could not be written", reason=_sentence(error))
        lines = [*summary(report), f"results: {', '.join(map(str, files))}"]
        lines += [
            f"{name} was not read to its end: give it again to go on with it"
            for name in await queue.run(queue.store.unfinished_inputs)
        ]
        if counts.queued:
            command = shlex.join(["topic-import", *sys.argv[1:]])
            lines.append(f"{counts.queued:,} records are still queued; continue with: {command}")
        try:
            say(*lines)
        except UsageError as error:
            log.error("the summary could not be printed", reason=str(error))
        return self._exit(request, counts)

    def _exit(self, request: StopRequest, counts: Counts) -> Exit:
        if self._halt:
            return Exit.HALTED
        if request.exit is not None:
            return request.exit
        if counts.queued and self._options.limit is None:
            return Exit.HALTED
        return Exit.SOME_DEAD if counts.dead else Exit.DONE


def _halt_of(failure: Exception | None) -> Halt | None:
    """Say why the inputs were not read to their end."""
    match failure:
        case None:
            return None
        case InputError():
            return Halt("input", str(failure))
        case QueueError():
            return Halt("storage", str(failure))
        case _:
            return Halt("defect", f"reading failed: {failure!r}; please report it")


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else "a result file: "
        return (
            f"{named}{error.strerror}. Nothing is lost; make room or mend it, then run the same "
            "command again"
        )
    return str(error)
