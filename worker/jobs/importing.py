"""How a service imports from an open queue: through halts, until a stop or an empty queue."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from worker.chat import Endpoint, ImportTopicClient
from worker.jobs import UsageError, calling
from worker.jobs.assembly import Machinery, assemble
from worker.jobs.engine import OpenTaker
from worker.jobs.running import Run
from worker.jobs.service_state import ServiceState
from worker.jobs.upkeep import Upkeep
from worker.limits import Quota
from worker.logs import logger
from worker.monitoring.counted_queue import CountedQueue
from worker.outputs.report import WORST_LISTED
from worker.pipeline import Pipeline
from worker.queues.contract import QueueError
from worker.rules.halts import HaltCode, probes
from worker.rules.service_status import drain_sentence
from worker.rules.verdict import Halt
from worker.settings.model import Settings

log = logger()

DRAIN_LOG_EVERY_S = 1.0


class Importer:
    """Imports from the queue of a service each time that it was opened.

    `is_counted`: whether the counts in the state are those at the end. `left_unsettled`: whether
    outcomes could not be settled when the service stopped.
    """

    def __init__(
        self,
        settings: Settings,
        run: Run,
        state: ServiceState,
        endpoint: Endpoint,
    ) -> None:
        self._settings = settings
        self._run = run
        self._state = state
        self._endpoint = endpoint
        self.is_counted = False
        self.left_unsettled = False

    async def import_all(self, taker: OpenTaker, quota: Quota) -> None:
        """Import until the service is done; if it goes on after a halt, with a few records first.

        Raises QueueError and OSError for what the queue or the disk refuses.
        """
        state, queue = self._state, taker.queue
        state.counts = await queue.counts()
        if state.halt or state.queue_away:
            log.info("the queue can be used again")
        state.halt = state.queue_away = None
        log.info("importing", queue=queue.name, queued=state.counts.queued)
        records_max, schedule = None, probes()
        while not state.is_done:
            halt = await self._import(taker, quota, records_max)
            if halt is None:
                records_max = None
                self._end_halt()
                continue
            if state.halt is None:
                schedule = probes()
            probe = next(schedule)
            state.halt, records_max = halt, probe.records
            if state.is_done:
                break
            await self._wait_for_a_person(probe.pause_s, probe.records)
        with suppress(QueueError):  # what was settled stays settled
            state.counts, self.is_counted = await queue.counts(), True
            state.worst = await queue.worst_communities(WORST_LISTED)

    async def _wait_for_a_person(self, pause_s: float, records: int) -> None:
        log.info("halted: trying again after a pause", after_s=pause_s, records=records)
        await self._run.stopping.pause(pause_s)
        # The person may have replaced the key.
        with suppress(UsageError):
            self._state.credentials = calling.credentials(self._settings)

    def _end_halt(self) -> None:
        if self._state.halt:
            self._state.halt = None
            log.info("the halt is over: importing again")

    async def _import(self, taker: OpenTaker, quota: Quota, records_max: int | None) -> Halt | None:
        """Import until the service is done, or until a halt, which is returned.

        `records_max`: how many records may be taken; None: any number.
        """
        state, stopping = self._state, self._run.stopping
        async with ImportTopicClient(self._endpoint) as chat:
            machinery = state.machinery = self._assemble(chat, quota)
            counted = CountedQueue(
                taker.queue,
                state.metrics,
                untried_first=records_max is not None,
                on_imported=self._end_halt,
                clock=asyncio.get_running_loop().time,
            )
            pipeline = Pipeline(
                counted,
                machinery.carrier,
                machinery.traffic,
                calling.bounds(self._settings, take_max=records_max),
                after_settling=taker.after_settling,
            )
            with stopping.of_work(
                drain=lambda: self._drain(machinery, pipeline), abandon=pipeline.abandon
            ):
                try:
                    async with self._upkeep(taker, pipeline, machinery):
                        await self._run_pipeline(pipeline)
                finally:
                    counted.log_rest()
        return machinery.carrier.halted

    def _assemble(self, chat: ImportTopicClient, quota: Quota) -> Machinery:
        state = self._state
        return assemble(
            self._settings,
            chat=chat,
            credentials=state.credentials,
            quota=quota,
            counters=self._run.counters,
            anything_imported=state.counts is not None and state.counts.imported > 0,
            is_service=not state.until_empty,
            observe=state.metrics.called,
        )

    async def _run_pipeline(self, pipeline: Pipeline) -> None:
        self._state.pipeline = pipeline
        try:
            await pipeline.run(lambda: not self._state.is_empty)
        except (QueueError, OSError):
            is_stopping = self._run.stopping.requested.is_set()
            self.left_unsettled = is_stopping and pipeline.unsettled > 0
            raise
        finally:
            self._state.pipeline = None

    @asynccontextmanager
    async def _upkeep(
        self, taker: OpenTaker, pipeline: Pipeline, machinery: Machinery
    ) -> AsyncIterator[None]:
        """Keep the state up to date beside the pipeline; a defect there halts the pipeline."""
        upkeep = Upkeep(self._state, taker.queue, self._run.counters)
        ended = asyncio.Event()

        def halt_at_defect(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                reason = f"counting the queue failed: {error!r}; please report it"
                machinery.carrier.halt(Halt(HaltCode.DEFECT, reason))
                log.error("counting the queue failed by a defect of the program", exc_info=error)

        polling = asyncio.create_task(upkeep.run(pipeline, machinery.limits, ended))
        polling.add_done_callback(halt_at_defect)
        try:
            yield
        finally:
            # Ended by a flag: redis-py swallows most cancellations that come during a call.
            ended.set()
            await asyncio.wait([polling])

    def _drain(self, machinery: Machinery, pipeline: Pipeline) -> None:
        machinery.carrier.stop()
        asyncio.get_running_loop().call_soon(self._log_drain, pipeline)

    def _log_drain(self, pipeline: Pipeline) -> None:
        """Log what the drain waits for, every second until the pipeline ended."""
        if self._state.pipeline is pipeline:
            log.info(drain_sentence(self._state.snapshot()))
            loop = asyncio.get_running_loop()
            loop.call_later(DRAIN_LOG_EVERY_S, self._log_drain, pipeline)
