"""A queue whose outcomes are counted in the metrics, and whose dead letters are logged."""

from collections import Counter
from collections.abc import Callable

from worker.logs import RepeatedEvents, logger
from worker.monitoring.metrics import Metrics
from worker.queues.contract import Queue
from worker.rules.outcome import DeadLetter, Delivery, Imported, Outcome

log = logger()


class CountedQueue:
    """A queue to take from and to settle, as the pipeline needs it.

    `untried_first`: passed to every take. `on_imported`: called after each batch in which a record
    was imported.
    """

    def __init__(
        self,
        queue: Queue,
        metrics: Metrics,
        *,
        untried_first: bool,
        on_imported: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        self._untried_first = untried_first
        self._on_imported = on_imported
        self._counted = Counter(queue.found)
        self._dead_letters = RepeatedEvents(log, clock)

    @property
    def is_drained(self) -> bool:
        """Whether the last take returned all that was ready."""
        return self._queue.is_drained

    async def take(self, count: int, *, without: frozenset[str] = frozenset()) -> list[Delivery]:
        """Take up to `count` records; count those that came to an end as they were taken."""
        taken = await self._queue.take(count, untried_first=self._untried_first, without=without)
        new = Counter(self._queue.found) - self._counted
        self._metrics.settled("duplicate", new["duplicate"])
        self._metrics.settled("dead", new["dead"])
        self._metrics.lost(new["lost"])
        self._counted += new
        return taken

    async def take_of(self, group_id: str, count: int) -> list[Delivery]:
        """Take up to `count` records of one community."""
        return await self._queue.take_of(group_id, count)

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Settle a batch; count what was stored, and log each dead letter."""
        settled = await self._queue.settle(outcomes)
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

    def log_rest(self) -> None:
        """Log how many dead letters were not logged one by one."""
        self._dead_letters.tell_rest()
