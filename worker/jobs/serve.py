"""The long-lived job: import from the queue until it is asked to stop."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from worker.jobs import Exit, UsageError, calling, print_result
from worker.jobs.assembly import QUOTA_WINDOW_S, open_quota
from worker.jobs.engine import Engine, GiveUp
from worker.jobs.importing import Importer
from worker.jobs.opening import choose_engine
from worker.jobs.running import Run, prepare
from worker.jobs.service_state import ServiceState
from worker.jobs.signals import StopRequest
from worker.limits import Quota
from worker.logs import logger
from worker.monitoring.admin import AdminError, AdminServer
from worker.outputs.report import summary
from worker.queues.contract import (
    EvidenceError,
    JobMismatchError,
    QueueAwayError,
    QueueError,
    QueueLostError,
    QueueTakenError,
)
from worker.rules.halts import FORGET_AFTER_S, HaltCode, pauses_s
from worker.rules.verdict import Halt
from worker.settings.model import Settings, base_url

log = logger()

AWAY_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command that are no settings."""

    out: Path
    until_empty: bool = False
    adopt: bool = False


async def serve(settings: Settings, options: Options) -> Exit:
    """Serve until a signal, or until the queue is empty if `until_empty` is set.

    Raises UsageError, QueueTakenError, JobMismatchError or EvidenceError if nothing was started.
    """
    engine = choose_engine(settings, options.out, adopt=options.adopt)
    service = _Service(settings, options, engine)
    with service.stopping.at_signals() as request:
        prepare(settings, options.out)
        try:
            async with AdminServer(
                settings.admin.listen, service.state.status, service.state.metrics
            ) as admin:
                log.info(
                    "serving",
                    admin=admin.url,
                    app=settings.app.sdk_app_id,
                    service=base_url(settings.app),
                    out=str(options.out),
                )
                return await service.run(request)
        except AdminError as error:
            raise UsageError(str(error)) from None


class _Service:
    """One process of the service: opens the queue, waits while it cannot be used, reports."""

    def __init__(self, settings: Settings, options: Options, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._run = Run(settings, options.out)
        self.stopping = self._run.stopping
        self.state = ServiceState(
            self._run,
            calling.credentials(settings),
            quota_per_s=settings.rate.calls_per_second,
            until_empty=options.until_empty,
        )
        self._importer = Importer(
            settings,
            self._run,
            self.state,
            calling.endpoint(settings),
        )
        self._give_up_queue: GiveUp | None = None
        self._clock = asyncio.get_running_loop().time
        self._failed_at_s = float("-inf")
        self._pauses_s = pauses_s()

    async def run(self, request: StopRequest) -> Exit:
        """Import until a stop or an empty queue, then report.

        Goes on through troubles of the queue and through halts, unless it is to end when empty.
        """
        with self.stopping.of_work(drain=lambda: None, abandon=self._give_up):
            async with open_quota(self._settings, closed_for_s=QUOTA_WINDOW_S) as quota:
                self.state.quota = quota
                while not self.state.is_done:
                    await self._import_while_open(quota)
        self._report()
        return self._exit(request)

    def _exit(self, request: StopRequest) -> Exit:
        state = self.state
        if self._importer.left_unsettled or (state.until_empty and state.halt):
            return Exit.HALTED
        if request.is_now and request.exit is not None:
            return request.exit
        if state.is_empty and state.counts and state.counts.dead:
            return Exit.SOME_DEAD
        return Exit.DONE

    async def _import_while_open(self, quota: Quota) -> None:
        """Open the queue and import; pause after a failure of the queue.

        Raises QueueTakenError, JobMismatchError, EvidenceError, QueueLostError.
        """
        try:
            async with self._engine.open_taker(self._opening) as taker:
                self.state.queue, self._run.job_id = taker.queue, taker.job_id
                await self._importer.import_all(taker, quota)
        except (QueueTakenError, JobMismatchError, EvidenceError, QueueLostError):
            raise
        except QueueAwayError as error:
            self._note_queue_away(str(error))
            await self.stopping.pause(AWAY_PAUSE_S)
        except (QueueError, OSError) as error:
            self._note_storage_failure(str(error))
            if not self.state.is_done:
                await self.stopping.pause(self._next_pause_s())
        finally:
            self.state.queue = self._give_up_queue = None

    def _opening(self, give_up: GiveUp) -> None:
        self._give_up_queue = give_up

    def _give_up(self) -> None:
        if self._give_up_queue:
            self._give_up_queue()

    def _note_queue_away(self, reason: str) -> None:
        if self.state.queue_away is None:
            log.warning("the queue cannot be reached; waiting for it", reason=reason)
        self.state.queue_away = reason.removeprefix("queue.url: ")

    def _note_storage_failure(self, reason: str) -> None:
        if self.stopping.requested.is_set():
            log.error(
                "not all outcomes could be stored: start again with the same --out; calls that "
                "may have taken effect are checked then",
                reason=reason,
            )
            return
        if not self.state.is_halted_by_storage:
            log.error("halted", code=HaltCode.STORAGE, reason=reason)
        self.state.halt = Halt(HaltCode.STORAGE, reason)

    def _next_pause_s(self) -> float:
        """Return the pause after a failure; longer ones follow only while failures go on."""
        if self._clock() - self._failed_at_s > FORGET_AFTER_S:
            self._pauses_s = pauses_s()
        self._failed_at_s = self._clock()
        return next(self._pauses_s)

    def _report(self) -> None:
        """Write the report and print the summary."""
        if self.state.counts is None:
            print_result("the queue was never reached: nothing is known of it")
            return
        held = self.state.machinery.held() if self.state.machinery else {}
        report = self._run.report(
            self.state.counts, self.state.halt, worst=self.state.worst, held=held
        )
        self._run.write(report)
        if not self._importer.is_counted:
            print_result("the queue could not be read at the end: these sums are older")
        print_result(*summary(report))
