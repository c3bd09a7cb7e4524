"""How many calls at once and how fast: first a slot, then a turn.

Slot before turn: a turn taken while all slots are busy would be used late, and the calls saved
up during a stall would go out together (after 5 s at 100/s the next second saw 568 calls).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from worker.pace import Pace


class Quota(Protocol):
    """Permission to start calls, held in every rolling second."""

    async def acquire(self, factor: float) -> None:
        """Wait for one turn at `factor` (0 to 1] of the quota."""
        ...


class Limits:
    """Slots and turns for all calls of a process."""

    def __init__(self, quota: Quota, slots: int, clock: Callable[[], float]) -> None:
        self._quota = quota
        self._slots = asyncio.Semaphore(slots)
        self._clock = clock
        self._pace = Pace()
        # One waiter at a time asks for the turn: aiolimiter lets newcomers overtake.
        self._first_in_line = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Limits {self._slots!r} {self._pace}>"

    @asynccontextmanager
    async def slot_and_turn(self) -> AsyncIterator[float]:
        """Hold a slot for one call, entered when its turn has come, with the time of it."""
        async with self._slots:
            async with self._first_in_line:
                await self._pause()
                await self._quota.acquire(self._pace.factor(self._clock()))
            yield self._clock()

    async def _pause(self) -> None:
        # A loop: the pause may be prolonged while it lasts.
        while (pause_s := self._pace.paused_until_s - self._clock()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(pause_s)

    def throttled(self, *, started_s: float, least_pause_s: float) -> bool:
        """Slow down: the call started at `started_s` was refused for its frequency.

        True where that is news, False for a call that was under way when the last pause began.
        """
        before = self._pace
        self._pace = before.throttled(
            self._clock(), started_s=started_s, least_pause_s=least_pause_s
        )
        return self._pace.streak > before.streak

    def answered(self, *, started_s: float) -> None:
        self._pace = self._pace.answered(started_s=started_s)
