"""What a running service knows of itself, and how monitors read it."""

import asyncio
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field

from worker.delivery import Credentials
from worker.jobs.assembly import Machinery
from worker.jobs.running import Run
from worker.limits import Quota
from worker.monitoring.admin import Status
from worker.monitoring.metrics import Gauges, Metrics
from worker.pipeline import Pipeline
from worker.queues.contract import Queue
from worker.rules.counts import CommunityLetters, Counts
from worker.rules.halts import HaltCode
from worker.rules.service_status import Snapshot, facts, reason_not_ready, state
from worker.rules.verdict import Halt
from worker.traffic import Traffic


@dataclass(slots=True, eq=False)
class ServiceState:
    """The parts of a service that are in use now, and what it learnt last.

    The jobs of the service write it, monitors read it through `status` and `metrics`.

    - `queue`, `quota`, `machinery`, `pipeline`: None while they are not open.
    - `counts`: of the queue, None while it was never read. `oldest_age_s`: of its oldest record.
    - `worst`: the communities with the most dead letters, read at the end.
    - `halt`: why the service is halted. `queue_away`: why the queue cannot be reached.
    - `is_empty`: whether the queue was found empty by a service that ends then.
    - `until_empty`: the service ends when the queue is empty, and at a halt.
    """

    run: Run
    credentials: Credentials
    quota_per_s: InitVar[float]
    until_empty: bool = False
    metrics: Metrics = field(init=False)
    queue: Queue | None = None
    quota: Quota | None = None
    machinery: Machinery | None = None
    pipeline: Pipeline | None = None
    counts: Counts | None = None
    worst: Sequence[CommunityLetters] = ()
    oldest_age_s: float = 0.0
    halt: Halt | None = None
    queue_away: str | None = None
    is_empty: bool = False

    def __post_init__(self, quota_per_s: float) -> None:
        clock = asyncio.get_running_loop().time
        self.metrics = Metrics(self._gauges(), quota_per_s=quota_per_s, clock=clock)

    @property
    def is_done(self) -> bool:
        """Whether the service is to end."""
        is_over = self.until_empty and (self.is_empty or self.halt is not None)
        return is_over or self.run.stopping.requested.is_set()

    @property
    def is_halted_by_storage(self) -> bool:
        """Whether the service is halted because the queue cannot be used."""
        return self.halt is not None and self.halt.code == HaltCode.STORAGE

    def snapshot(self) -> Snapshot:
        """Return everything that monitors read, at this moment."""
        limits = self.machinery.limits if self.machinery else None
        traffic, counters = self._traffic, self.run.counters
        return Snapshot(
            is_open=self._is_open,
            halt=self.halt or self._stopped_by_rejections,
            queue_away=self.queue_away,
            queue_trouble=self.queue.trouble if self.queue else None,
            quota_gives_turns=self.quota is None or self.quota.gives_turns,
            probing_for_s=limits.probing_for_s if limits and limits.is_probing else None,
            drain_left_s=self.run.stopping.drain_left_s,
            counts=self.counts,
            oldest_age_s=self.oldest_age_s,
            held=tuple(self.machinery.held()) if self.machinery else (),
            calling=traffic.calling,
            backing_off=traffic.backing_off,
            outcomes_waiting=self.pipeline.outcomes_waiting if self.pipeline else 0,
            calls=counters.calls,
            throttled=counters.throttled,
            rate_per_s=self.quota.rate_per_s if self.quota else None,
        )

    @property
    def _stopped_by_rejections(self) -> Halt | None:
        return self.machinery.health.stopped_by_rejections if self.machinery else None

    @property
    def _is_open(self) -> bool:
        return self.queue is not None and self.quota is not None and self.machinery is not None

    def status(self) -> Status:
        """Return whether the service is ready, why not, and what it does."""
        now = self.snapshot()
        reason = reason_not_ready(now)
        return Status(ready=reason is None, reason=reason or "ready", facts=facts(now))

    def _gauges(self) -> Gauges:
        return Gauges(
            in_flight=lambda: self._traffic.calling,
            waiting_for_retry=lambda: self._traffic.backing_off,
            waiting_for_turn=lambda: self._traffic.waiting,
            oldest_pending_s=lambda: self.oldest_age_s,
            queued=lambda: self.counts.queued if self.counts else 0,
            rate_in_force_per_s=lambda: self.quota.rate_per_s if self.quota else 0.0,
            calls_started=lambda: self.run.counters.calls,
            signature_age_s=lambda: self.credentials.age_s,
            ready=lambda: reason_not_ready(self.snapshot()) is None,
            state=lambda: state(self.snapshot()),
        )

    @property
    def _traffic(self) -> Traffic:
        return self.machinery.traffic if self.machinery else Traffic()
