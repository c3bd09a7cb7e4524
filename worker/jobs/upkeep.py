"""What a service does beside importing: find new records, count them, log the progress."""

import asyncio
from contextlib import suppress

from worker.jobs.running import pause
from worker.jobs.service_state import ServiceState
from worker.limits import Limits
from worker.monitoring.progress import log_progress
from worker.pipeline import Pipeline
from worker.queues.contract import Queue, QueueError
from worker.rules.counts import Counters, Counts

POLL_S = 0.2
"""How often a queue is asked for new records."""
COUNT_EVERY_S = 1.0
PROGRESS_EVERY_S = 60.0


class Upkeep:
    """Keeps the state of a service up to date while a pipeline works on its queue."""

    def __init__(self, state: ServiceState, queue: Queue, counters: Counters) -> None:
        self._state = state
        self._queue = queue
        self._counters = counters
        self._clock = asyncio.get_running_loop().time
        self._counted_at_s = float("-inf")
        self._logged_at_s = self._clock()
        self._logged_calls = counters.calls

    async def run(self, pipeline: Pipeline, limits: Limits, ended: asyncio.Event) -> None:
        """Poll until `ended` is set. Troubles of the queue are reported by the queue itself."""
        while not ended.is_set():
            with suppress(QueueError, OSError):
                await self._poll()
            self._log_progress(limits)
            pipeline.queue_was_fed()
            await pause(POLL_S, ended)

    async def _poll(self) -> None:
        if self._state.until_empty and await self._queue.is_empty():
            self._state.is_empty = True
        if self._clock() - self._counted_at_s >= COUNT_EVERY_S and not self._queue.trouble:
            self._counted_at_s = self._clock()
            self._state.counts = await self._queue.counts()
            self._state.oldest_age_s = await self._queue.oldest_age_s()

    def _log_progress(self, limits: Limits) -> None:
        """Log the progress now and then, if calls were made since."""
        is_due = self._clock() - self._logged_at_s >= PROGRESS_EVERY_S
        if is_due and self._counters.calls > self._logged_calls:
            self._logged_at_s, self._logged_calls = self._clock(), self._counters.calls
            log_progress(self._state.counts or Counts(), self._counters, limits)
