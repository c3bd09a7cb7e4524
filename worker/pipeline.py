"""The story of many records: take, carry, settle.

How much can be in memory at once: deliveries that wait for a slot or a turn (a second of quota at
most), those that call (`max_in_flight`), those that back off (`backing_off_max`), and outcomes
that wait to be settled, which still count as the deliveries that they were.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from worker.delivery import Carrier
from worker.logs import logger
from worker.rules.outcome import Delivery, Outcome, Released
from worker.rules.verdict import Halt
from worker.traffic import Traffic

log = logger()

SETTLE_WITHIN_S = 0.1
SETTLE_AT = 500


class Queue(Protocol):
    """What the pipeline needs of a queue; the promises stand in `worker.queues.contract`."""

    @property
    def is_drained(self) -> bool: ...

    async def take(self, count: int) -> list[Delivery]: ...

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many deliveries may be where, and how many this run may take in all."""

    waiting_max: int = 100
    backing_off_max: int = 4000
    unsettled_max: int = 10_000
    take_max: int | None = None


class Pipeline:
    """Takes deliveries, has them carried, settles what became of them."""

    def __init__(
        self,
        queue: Queue,
        carrier: Carrier,
        traffic: Traffic,
        bounds: Bounds,
        *,
        after_settling: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._queue = queue
        self._carrier = carrier
        self._traffic = traffic
        self._bounds = bounds
        self._after_settling = after_settling
        self._tasks: dict[asyncio.Task[None], Delivery] = {}
        self._outcomes: list[Outcome] = []
        self._settling = 0
        self._outcome_came = asyncio.Event()
        self._batch_is_full = asyncio.Event()
        self._taken = 0
        self._all_carried = False
        self._may_hold_more = True
        traffic.has_untried = True

    def __repr__(self) -> str:
        return f"<Pipeline {len(self._tasks)} carried, {self.unsettled} unsettled>"

    @property
    def unsettled(self) -> int:
        """Deliveries that were taken and are not settled."""
        return len(self._tasks) + len(self._outcomes) + self._settling

    @property
    def outcomes_waiting(self) -> int:
        """Outcomes that the queue was not told yet."""
        return len(self._outcomes) + self._settling

    def queue_was_fed(self) -> None:
        """Tell that the queue may hold more, or that nothing feeds it any longer."""
        self._may_hold_more = True
        self._traffic.changed.set()

    async def run(self, is_feeding: Callable[[], bool]) -> None:
        """Work until the queue is empty and nothing feeds it, or until the carrier stops.

        Raises what the queue raises when it cannot settle or take.
        """
        settler = asyncio.create_task(self._settle_in_batches())
        stopper = asyncio.create_task(self._cancel_waiting_at_stop())
        settler.add_done_callback(lambda _: self._traffic.wake())
        try:
            await self._take_and_carry(settler, is_feeding)
        finally:
            stopper.cancel()
            await self._finish(settler)

    def abandon(self) -> None:
        """Wait for no reply any more: calls under way may have taken effect, and are kept so."""
        self._carrier.stop()
        for task in self._tasks:
            task.cancel()

    async def _take_and_carry(
        self, settler: asyncio.Task[None], is_feeding: Callable[[], bool]
    ) -> None:
        while not self._carrier.stopping.is_set() and not settler.done():
            self._traffic.changed.clear()
            feeding = is_feeding()
            room = self._room() if self._may_hold_more or not self.unsettled else 0
            self._may_hold_more = self._may_hold_more and not room
            taken = await self._queue.take(room) if room else []
            self._taken += len(taken)
            if room:
                self._traffic.has_untried = not (self._queue.is_drained or self._all_taken())
            for delivery in taken:
                self._start(delivery)
            # Their first step makes them count as waiting, before more are taken.
            await asyncio.sleep(0)
            if room and not self._queue.is_drained:
                self._may_hold_more = True
                continue
            if not self.unsettled and (self._all_taken() or (room and not feeding)):
                return
            await self._traffic.changed.wait()

    def _room(self) -> int:
        """Deliveries to take now; 0 while it is not worth a transaction."""
        bounds = self._bounds
        backing_off = self._traffic.backing_off
        waiting = self._traffic.waiting
        if backing_off >= bounds.backing_off_max or waiting > bounds.waiting_max // 2:
            return 0
        room = min(bounds.waiting_max - waiting, bounds.unsettled_max - self.unsettled)
        if bounds.take_max is not None:
            room = min(room, bounds.take_max - self._taken)
        return max(0, room)

    def _all_taken(self) -> bool:
        return self._bounds.take_max is not None and self._taken >= self._bounds.take_max

    def _start(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._carry(delivery))
        self._tasks[task] = delivery
        task.add_done_callback(self._forget)

    async def _carry(self, delivery: Delivery) -> None:
        outcome = await self._carrier.carry(delivery)
        self._add_outcome(outcome)

    def _add_outcome(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._outcome_came.set()
        if len(self._outcomes) >= SETTLE_AT:
            self._batch_is_full.set()

    def _forget(self, task: asyncio.Task[None]) -> None:
        delivery = self._tasks.pop(task)
        self._traffic.changed.set()
        if not self._tasks:
            self._batch_is_full.set()
        if task.cancelled():
            # Cancelled before its first step: nothing was called.
            self._add_outcome(Released(delivery.id, delivery.history))
        elif error := task.exception():
            self._carrier.halt(Halt("defect", f"a delivery failed: {error!r}; please report it"))
            log.error("a delivery failed by a defect of the program", exc_info=error)

    async def _settle_in_batches(self) -> None:
        # Ended by a flag, not by a cancellation: one that hits a commit would lose its outcomes.
        while not self._all_carried:
            await self._outcome_came.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_WITHIN_S):
                    await self._batch_is_full.wait()
            self._outcome_came.clear()
            self._batch_is_full.clear()
            await self._settle()

    async def _settle(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        if not outcomes:
            return
        self._settling = len(outcomes)
        try:
            await self._queue.settle(outcomes)
        except BaseException:
            self._outcomes[:0] = outcomes
            raise
        finally:
            self._settling = 0
        self._traffic.changed.set()
        if self._after_settling:
            await self._after_settling()

    async def _cancel_waiting_at_stop(self) -> None:
        await self._carrier.stopping.wait()
        for task, delivery in self._tasks.items():
            if not self._traffic.is_calling(delivery.id):
                task.cancel()
        self._traffic.wake()

    async def _finish(self, settler: asyncio.Task[None]) -> None:
        """Let what is in flight end, settle it, and pass on why the settler ended, if it did."""
        self._carrier.stop()
        for task, delivery in self._tasks.items():
            if not self._traffic.is_calling(delivery.id):
                task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
            await asyncio.sleep(0)  # the last done-callbacks
        self._all_carried = True
        self._outcome_came.set()
        self._batch_is_full.set()
        try:
            await settler
        finally:
            await self._settle()
