"""The line of records: they wait in it for a slot and a turn, and leave it for their call.

First come, first served. A slot is a coroutine that makes one call after the other, so the usual
record costs no task of its own and, while others wait behind it, no switch between two of them. A
turn belongs to nobody until it comes: the first in line that may call then uses it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from worker.delivery import Carried, Carrier, Comparing, Step, Wait
from worker.limits import Limits, Turn
from worker.logs import logger
from worker.rules.halts import HaltCode
from worker.rules.outcome import Delivery, Outcome
from worker.rules.verdict import Halt
from worker.traffic import Traffic

log = logger()


class Line:
    """Records on their way: those in line, those that call, and those that stand apart for a while.

    `settle` is called with the outcome of each. The pipeline is woken when `low_at` records are
    left in line, and at every change while there is trouble.
    """

    def __init__(
        self,
        carrier: Carrier,
        traffic: Traffic,
        settle: Callable[[Outcome], None],
        *,
        low_at: int,
    ) -> None:
        self._carrier = carrier
        self._limits: Limits = carrier.limits
        self._health = carrier.health
        self._traffic = traffic
        self._settle = settle
        self._low_at = low_at
        self._waiting: deque[Carried] = deque()
        self._came = asyncio.Event()
        # One slot at a time asks for a turn, so turns are used in the order in which they come.
        self._first = asyncio.Lock()
        self._slots: list[asyncio.Task[None]] = []
        # A dict as an ordered set: equal runs of a simulation cancel in equal order.
        self._idle: dict[asyncio.Task[None], None] = {}
        self._apart: dict[asyncio.Task[Outcome | None], tuple[Carried, Wait | Comparing]] = {}

    def __repr__(self) -> str:
        return f"<Line {len(self._slots)} slots, {len(self._idle)} idle, {self._traffic!r}>"

    def enter(self, delivery: Delivery, *, is_probe: bool = False) -> None:
        """Carry a delivery to its outcome.

        `is_probe`: it asks for a community whose other records wait.
        """
        self._line_up(self._carrier.carried(delivery, is_probe=is_probe))

    def release_waiting(self) -> None:
        """Release all whose call is not open."""
        while self._waiting:
            carried = self._waiting.popleft()
            self._traffic.waiting -= 1
            self._end(carried, carried.released())
        for task in (*self._idle, *self._apart):
            task.cancel()

    def abandon(self) -> None:
        """Release all: open calls are cut off, and leave their records in doubt."""
        self.release_waiting()
        for task in self._slots:
            task.cancel()

    async def finish(self) -> None:
        """Let open calls end; release all that wait."""
        self.release_waiting()
        while tasks := [*self._slots, *self._apart]:
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # the last done-callbacks

    # ---- slots

    async def _serve(self) -> None:
        """Hold one slot: make one call after the other, until the run stops."""
        slot = cast("asyncio.Task[None]", asyncio.current_task())
        while not self._carrier.stopping.is_set() and (turn := await self._turn(slot)):
            carried = self._first_that_may_call()
            if self._waiting:
                self._open_slot()
            if carried is None:
                continue
            try:
                step = await self._carrier.call(carried, turn)
            except asyncio.CancelledError:
                self._end(carried, carried.released())
                raise
            self._go_on(carried, step)

    async def _turn(self, slot: asyncio.Task[None]) -> Turn | None:
        """Wait for somebody in line, and for a turn; None: the run stops."""
        self._idle[slot] = None
        try:
            await self._first.acquire()
            try:
                while not self._waiting:
                    self._came.clear()
                    await self._came.wait()
                turn = await self._limits.turn()
            finally:
                self._first.release()
        finally:
            self._idle.pop(slot, None)
        return None if self._carrier.stopping.is_set() else turn

    def _first_that_may_call(self) -> Carried | None:
        while self._waiting:
            carried = self._waiting.popleft()
            self._traffic.waiting -= 1
            if self._traffic.waiting == self._low_at or not self._health.is_all_well:
                self._traffic.wake()
            if self._carrier.may_call(carried):
                return carried
            self._line_up(carried)
        return None

    def _open_slot(self) -> None:
        """Have one idle slot for those who wait, as long as there are slots."""
        if not self._idle and len(self._slots) < self._limits.slots:
            slot = asyncio.create_task(self._serve())
            self._slots.append(slot)
            self._idle[slot] = None
            slot.add_done_callback(self._close_slot)

    def _close_slot(self, slot: asyncio.Task[None]) -> None:
        self._slots.remove(slot)
        self._idle.pop(slot, None)
        if not slot.cancelled() and (error := slot.exception()):
            self._fail(error)

    # ---- between calls

    def _line_up(self, carried: Carried) -> None:
        """Let a record wait in line, unless something is known that makes its call needless."""
        if self._carrier.stopping.is_set():
            self._end(carried, carried.released())
        elif step := self._carrier.without_call(carried):
            self._go_on(carried, step)
        else:
            self._waiting.append(carried)
            self._traffic.waiting += 1
            self._came.set()
            self._open_slot()

    def _go_on(self, carried: Carried, step: Step) -> None:
        match step:
            case Wait() if not step.is_pause:
                self._line_up(carried)
            case Wait() if self._carrier.stopping.is_set():
                self._end(carried, carried.released())
            case Wait() | Comparing():
                self._stand_apart(carried, step)
            case _:
                self._end(carried, step)

    def _stand_apart(self, carried: Carried, step: Wait | Comparing) -> None:
        """Wait, or compare with the service, without a slot."""
        task = asyncio.create_task(self._carrier.stand_apart(carried, step))
        self._apart[task] = (carried, step)
        self._count_apart(step, 1)
        task.add_done_callback(self._come_back)

    def _come_back(self, task: asyncio.Task[Outcome | None]) -> None:
        carried, step = self._apart.pop(task)
        self._count_apart(step, -1)
        if task.cancelled():
            self._end(carried, carried.released())
        elif error := task.exception():
            self._fail(error)
        elif outcome := task.result():
            self._end(carried, outcome)
        else:
            self._line_up(carried)

    def _count_apart(self, step: Wait | Comparing, count: int) -> None:
        if isinstance(step, Wait):
            self._traffic.backing_off += count
        else:
            self._traffic.comparing += count
        self._traffic.wake()

    def _end(self, carried: Carried, outcome: Outcome) -> None:
        self._carrier.end_probe(carried)
        self._settle(outcome)
        if not self._health.is_all_well:
            self._traffic.wake()

    def _fail(self, error: BaseException) -> None:
        """Halt because of a defect; the record stays taken, for nobody knows what became of it."""
        self._carrier.halt(Halt(HaltCode.DEFECT, f"a delivery failed: {error!r}; please report it"))
        log.error("a delivery failed by a defect of the program", exc_info=error)
        self._traffic.wake()
