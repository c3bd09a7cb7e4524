"""The quota of one process: aiolimiter's leaky bucket at the pace that the service accepts."""

import asyncio
from collections.abc import Callable
from math import floor

from aiolimiter import AsyncLimiter

from worker.rules.pace import Pace

SMALL_QUOTA_PER_S = 50.0
"""Below this a bucket of one call is enough, and a larger one would cost too much of the rate."""
SMALL_STEADY_SHARE = 0.98
STEPS = 400
"""The rate changes in so many steps, because each change costs a new limiter."""
BUCKET_SHARE = 0.0045
UNUSED_SHARE = 0.002
TICK_S = 0.001
"""uvloop's timers have whole milliseconds."""
POLL_SHARE = 0.01
"""Of the interval between two calls: how often a waiter checks whether the bucket has room."""


def bucket_and_rate(quota_per_s: float) -> tuple[float, float]:
    """Return a bucket (calls) and a steady rate (calls a second) that together keep a quota.

    A bucket of c at rate r lets at most c + r calls through in a rolling second. A bucket of one
    cannot make up for late timers, which matters from about SMALL_QUOTA_PER_S on. A little of the
    quota stays unused, because calls that start evenly arrive a little unevenly: with 198 + 2 of
    200 a server counted 201.
    """
    if quota_per_s < SMALL_QUOTA_PER_S:
        # Whole calls: 200/s shared by 12 processes are 16.7/s each, and 17 each would be too many.
        return 1.0, (floor(quota_per_s) or quota_per_s) * SMALL_STEADY_SHARE
    bucket = float(max(2, round(quota_per_s * BUCKET_SHARE)))
    return bucket, quota_per_s * (1.0 - UNUSED_SHARE) - bucket


class LocalQuota:
    """Gives turns at `calls_per_second`, which no rolling second exceeds; 0: without a limit.

    A refused call lowers the rate and pauses all calls for a moment; without a limit it only
    pauses. `clock`: seconds of a monotonic clock. `closed_for_s`: seconds before the first turn,
    because calls of a previous process may still count.
    """

    is_reachable = True
    gives_turns = True

    def __init__(
        self, calls_per_second: float, clock: Callable[[], float], *, closed_for_s: float = 0.0
    ) -> None:
        self._quota_per_s = calls_per_second
        self._clock = clock
        self._closed_for_s = closed_for_s
        self._pace = Pace()
        self._passed = 0
        self._step = 0
        self._limiter: AsyncLimiter | None = None

    def __repr__(self) -> str:
        return f"<LocalQuota {self._quota_per_s}/s at {self._step / STEPS:.2%} {self._pace}>"

    @property
    def rate_per_s(self) -> float:
        """The rate in force, in calls a second; 0: no quota is kept."""
        if not self._quota_per_s:
            return 0.0
        return bucket_and_rate(self._quota_per_s)[1] * self._pace.factor(self._clock())

    async def acquire(self) -> float:
        """Wait for one turn; return its time on the clock."""
        while True:
            # In a loop: a refusal during the pause prolongs it.
            while (pause_s := self._pace.paused_until_s - self._clock()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(pause_s)
            await self._turn()
            # If a call was refused while this one waited, the turn is not used.
            if (now_s := self._clock()) >= self._pace.paused_until_s:
                return now_s

    def throttled(self, turn: float) -> None:
        """Slow down, because the call that had this turn was throttled."""
        self._add_passed()
        rate_per_s = self.rate_per_s
        self._pace = self._pace.throttled(
            self._clock(), started_s=turn, interval_s=1 / rate_per_s if rate_per_s else 0.0
        )

    def not_throttled(self) -> None:
        """Record a call that was answered and not throttled."""
        self._passed += 1
        # Only the first one after a refusal changes the rate; the others can wait for the next.
        if self._pace.refused and not self._pace.answered:
            self._add_passed()

    def _add_passed(self) -> None:
        if self._passed:
            self._pace, self._passed = self._pace.passed(self._passed), 0

    async def _turn(self) -> None:
        if not self._quota_per_s:
            return
        step = max(1, round(self._pace.factor(self._clock()) * STEPS))
        if self._limiter is None or step != self._step:
            self._limiter = await self._new_limiter(step)
            self._step = step
        # Not by the limiter's own waiting: uvloop's timers may fire a little early, and it then
        # spins until there is room (a quarter of a core at 2,000/s).
        if not self._limiter.has_capacity():
            pause_s = max(TICK_S, POLL_SHARE / self.rate_per_s)
            while not self._limiter.has_capacity():  # noqa: ASYNC110 - the limiter has no event
                await asyncio.sleep(pause_s)
        await self._limiter.acquire()

    async def _new_limiter(self, step: int) -> AsyncLimiter:
        """Return a limiter for a changed rate, because aiolimiter cannot change the rate of one."""
        bucket, rate_per_s = bucket_and_rate(self._quota_per_s)
        limiter = AsyncLimiter(bucket, bucket / (rate_per_s * step / STEPS))
        at_once = 0
        if self._limiter is None:
            await asyncio.sleep(self._closed_for_s)
            at_once = 1
        # A new bucket must not allow a burst, so it starts empty: the old one may have been used up
        # just now, and the first calls of a process wait for connections, so that the calls behind
        # them follow closely.
        for _ in range(int(bucket) - at_once):
            await limiter.acquire()
        return limiter
