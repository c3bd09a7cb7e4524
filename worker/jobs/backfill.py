"""The one-off job: import the files, stop when every record is settled."""

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from worker.chat import ImportTopicClient
from worker.intake.sources import InputError, Source
from worker.job_directory import DEAD_LETTER_NAME, IMPORTED_NAME
from worker.jobs import Exit, UsageError, calling, from_settings, print_result
from worker.jobs.assembly import QUOTA_WINDOW_S, Machinery, assemble, open_quota
from worker.jobs.embedded import EmbeddedEngine, OpenJob
from worker.jobs.engine import unfinished_lines
from worker.jobs.feeding import Feeder, Stayed, resolve_inputs, stayed_lines
from worker.jobs.opening import embedded_engine
from worker.jobs.running import Run, prepare, storage_sentence
from worker.jobs.signals import StopRequest
from worker.limits import Limits, Quota
from worker.logs import logger
from worker.monitoring import progress
from worker.outputs.report import COMMUNITY_TOPICS_MAX, WORST_LISTED, Report, summary
from worker.outputs.result_files import ResultFiles
from worker.pipeline import Pipeline
from worker.queues.contract import JobMismatchError, QueueError, QueueTakenError
from worker.rules.counts import Counts
from worker.rules.halts import HaltCode
from worker.rules.topic.oddities import NO_EQUAL_NAMES
from worker.rules.verdict import Halt
from worker.settings.model import Settings

log = logger()


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command that are no settings."""

    inputs: list[str]
    out: Path
    limit: int | None = None
    adopt: bool = False
    show_progress: bool = True


async def backfill(settings: Settings, options: Options) -> Exit:
    """Run the job and print its summary.

    Raises UsageError, QueueTakenError or JobMismatchError if nothing was started.
    """
    engine = embedded_engine(settings, options.out, adopt=options.adopt)
    sources = resolve_inputs(options.inputs, settings.records)
    if not sources and not engine.exists and not engine.was_lost:
        raise UsageError(
            f"nothing to import: name an input file, or the --out of a job ({options.out} has none)"
        )
    job = _Backfill(settings, options, sources)
    prepare(settings, options.out)
    return await job.run(engine)


class _Backfill:
    """One run of the job: opens the queue, imports, reports."""

    def __init__(self, settings: Settings, options: Options, sources: list[Source]) -> None:
        self._settings = settings
        self._options = options
        self._sources = sources
        self._run = Run(settings, options.out)
        self._credentials = calling.credentials(settings)
        self._endpoint = calling.endpoint(settings)
        self._halt: Halt | None = None
        self._held: dict[str, str] = {}
        self._stayed: dict[str, Stayed] = {}
        self._skipped = 0

    async def run(self, engine: EmbeddedEngine) -> Exit:
        """Import and report. Raises QueueTakenError, JobMismatchError."""
        try:
            async with engine.open_job() as job:
                self._run.job_id = job.job_id
                if job.recovered:
                    log.info("taken back from a run that was cut off", records=job.recovered)
                return await self._run_job(job)
        except (JobMismatchError, QueueTakenError):
            raise
        except (QueueError, OSError) as error:
            # Before the first record or after the last: the queue could not be opened or closed.
            log.error("halted", code=HaltCode.STORAGE, reason=storage_sentence(error))
            return Exit.HALTED

    async def _run_job(self, job: OpenJob) -> Exit:
        with self._run.stopping.at_signals() as request:
            try:
                await self._import_to_files(job, job.files)
            except (QueueError, OSError) as error:
                self._halt = Halt(HaltCode.STORAGE, storage_sentence(error))
                log.error("halted", code=self._halt.code, reason=self._halt.message)
            return await self._report(job, request)

    async def _import_to_files(self, job: OpenJob, files: ResultFiles) -> None:
        """Reconcile the result files, import, and complete the result files."""
        paths = [source.path for source in self._sources]
        paths = await job.queue.run(lambda: files.reconcile(paths))
        self._sources = [
            replace(source, path=path) for source, path in zip(self._sources, paths, strict=True)
        ]
        # Calls of an earlier run that has just ended count in the quota of this second.
        closed_for_s = QUOTA_WINDOW_S if job.was_used else 0.0
        async with (
            ImportTopicClient(self._endpoint) as chat,
            open_quota(self._settings, closed_for_s=closed_for_s) as quota,
        ):
            await self._import(job, files, chat, quota)
        await job.queue.run(files.finish)

    async def _import(
        self, job: OpenJob, files: ResultFiles, chat: ImportTopicClient, quota: Quota
    ) -> None:
        machinery = await self._assemble(job, chat, quota)
        pipeline = Pipeline(
            job.queue,
            machinery.carrier,
            machinery.traffic,
            calling.bounds(self._settings, take_max=self._options.limit),
            after_settling=lambda: job.queue.run(files.follow),
        )
        feeder = self._feeder(job, pipeline)
        self._stayed = feeder.stayed

        lost: list[QueueError] = []

        def is_feeding() -> bool:
            for failure in (feeder.failure, *lost):
                if isinstance(failure, QueueError | UsageError):
                    raise failure
            return feeder.feeding

        def stop_for_loss(error: QueueError) -> None:
            lost.append(error)
            pipeline.queue_was_fed()

        def drain() -> None:
            feeder.stop()
            machinery.carrier.stop()

        with self._run.stopping.of_work(drain=drain, abandon=pipeline.abandon):
            async with (
                job.watched(stop_for_loss),
                self._progress(job, machinery.limits, feeder),
            ):
                try:
                    feeder.start()
                    await pipeline.run(is_feeding)
                finally:
                    feeder.stop()
        self._skipped = feeder.skipped
        self._halt = machinery.carrier.halted or _halt_of(feeder.failure)
        self._held = machinery.held()

    async def _assemble(self, job: OpenJob, chat: ImportTopicClient, quota: Quota) -> Machinery:
        counts = await job.queue.counts()
        return assemble(
            self._settings,
            chat=chat,
            credentials=self._credentials,
            quota=quota,
            counters=self._run.counters,
            anything_imported=counts.imported > 0,
            is_service=False,
        )

    def _feeder(self, job: OpenJob, pipeline: Pipeline) -> Feeder:
        return Feeder(
            job.queue,
            self._sources,
            from_settings.record_rules(self._settings),
            line_bytes_max=self._settings.records.max_line_bytes,
            limit=self._options.limit,
            on_change=pipeline.queue_was_fed,
        )

    @asynccontextmanager
    async def _progress(self, job: OpenJob, limits: Limits, feeder: Feeder) -> AsyncIterator[None]:
        """Show the progress beside the import, unless the user wants none."""
        if not self._options.show_progress:
            yield
            return
        showing = asyncio.create_task(
            progress.show(job.queue.counts, self._run.counters, limits, lambda: feeder.feeding)
        )
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait([showing])

    async def _report(self, job: OpenJob, request: StopRequest) -> Exit:
        """Write the report, print the summary, return the exit code."""
        counts = await job.queue.counts()
        crowded = await job.crowded_communities(COMMUNITY_TOPICS_MAX)
        worst = await job.queue.worst_communities(WORST_LISTED) if counts.dead else []
        # Reading all names takes seconds for a million: only where some may have been cut.
        is_cutting = self._settings.records.on_too_long == "truncate" or counts.cut
        equal_names = await job.equal_names() if is_cutting else NO_EQUAL_NAMES
        report = self._run.report(
            counts,
            self._halt,
            crowded=crowded,
            worst=worst,
            held=self._held,
            equal_names=equal_names,
            skipped=self._skipped,
        )
        report_path = self._run.write(report)
        lines = self._summary(report, report_path, await job.unfinished_inputs())
        try:
            print_result(*lines)
        except UsageError as error:
            log.error("the summary could not be printed", reason=str(error))
        return self._exit(request, counts)

    def _summary(
        self, report: Report, report_path: Path | None, unfinished: Sequence[str]
    ) -> list[str]:
        files = [self._options.out / name for name in (IMPORTED_NAME, DEAD_LETTER_NAME)]
        if report_path:
            files.append(report_path)
        lines = [*summary(report), f"results: {', '.join(map(str, files))}"]
        lines += unfinished_lines(list(unfinished))
        lines += stayed_lines(self._stayed.values(), self._options.out)
        if queued := report.counts.queued:
            command = shlex.join(["topic-import", *sys.argv[1:]])
            lines.append(f"{queued:,} records are still queued; continue with: {command}")
        return lines

    def _exit(self, request: StopRequest, counts: Counts) -> Exit:
        if self._halt:
            return Exit.HALTED
        if request.exit is not None:
            return request.exit
        if counts.queued and self._options.limit is None:
            return Exit.HALTED
        return Exit.SOME_DEAD if counts.dead else Exit.DONE


def _halt_of(failure: Exception | None) -> Halt | None:
    """Return the halt for inputs that were not read to their end."""
    match failure:
        case None:
            return None
        case InputError():
            return Halt(HaltCode.INPUT, str(failure))
        case QueueError():
            return Halt(HaltCode.STORAGE, str(failure))
        case _:
            return Halt(HaltCode.DEFECT, f"reading failed: {failure!r}; please report it")
