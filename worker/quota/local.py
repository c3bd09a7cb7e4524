"""The quota of one process, with aiolimiter's leaky bucket and a pace of its own."""

import asyncio
from collections.abc import Callable
from math import floor

from aiolimiter import AsyncLimiter

from worker.rules.pace import Pace

SMALL_QUOTA_PER_S = 50.0
SMALL_STEADY_SHARE = 0.98
STEPS = 400
BUCKET_SHARE = 0.0045
UNUSED_SHARE = 0.002
TICK_S = 0.001
POLL_SHARE = 0.01


def bucket_and_rate(quota_per_s: float) -> tuple[float, float]:
    """Split a quota into a bucket and a steady rate that together never exceed it in a second.

    A bucket of c at rate r lets at most c + r through in a rolling second. One turn of bucket
    cannot make up for late timers, which matters above some 50/s; below it would cost too much
    of the rate. A little stays unused: calls started evenly arrive a little unevenly, and at
    198 + 2 of 200 a server saw 201.
    """
    if quota_per_s < SMALL_QUOTA_PER_S:
        # Of 16.7/s, a share of 200/s, 17 calls a second by 12 processes would be too many.
        return 1.0, (floor(quota_per_s) or quota_per_s) * SMALL_STEADY_SHARE
    bucket = float(max(2, round(quota_per_s * BUCKET_SHARE)))
    return bucket, quota_per_s * (1.0 - UNUSED_SHARE) - bucket


class LocalQuota:
    """Turns at `calls_per_second`, which no rolling second exceeds; 0: as fast as they come.

    Refusals lower the rate and pause for a moment, with a quota and without.

    `closed_for_s`: seconds before the first turn, for the calls of a process that went before.
    """

    is_reachable = True

    def __init__(
        self, calls_per_second: float, clock: Callable[[], float], *, closed_for_s: float = 0.0
    ) -> None:
        self._quota_per_s = calls_per_second
        self._clock = clock
        self._closed_for_s = closed_for_s
        self._pace = Pace()
        self._step = 0
        self._limiter: AsyncLimiter | None = None

    def __repr__(self) -> str:
        return f"<LocalQuota {self._quota_per_s}/s at {self._step / STEPS:.2%} {self._pace}>"

    @property
    def rate_per_s(self) -> float:
        """Calls a second that go out now; 0: no quota is kept."""
        if not self._quota_per_s:
            return 0.0
        return bucket_and_rate(self._quota_per_s)[1] * self._pace.factor(self._clock())

    async def acquire(self) -> float:
        """Wait for one turn; the time of it."""
        while True:
            # Again and again: a refusal during the pause prolongs it.
            while (pause_s := self._pace.paused_until_s - self._clock()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(pause_s)
            await self._turn()
            # A refusal may have come meanwhile: then the turn is lost.
            if (now_s := self._clock()) >= self._pace.paused_until_s:
                return now_s

    def throttled(self, turn: float) -> None:
        """Slow down: the call that had this turn was refused for its frequency."""
        rate_per_s = self.rate_per_s
        self._pace = self._pace.throttled(
            self._clock(), started_s=turn, interval_s=1 / rate_per_s if rate_per_s else 0.0
        )

    def not_throttled(self) -> None:
        self._pace = self._pace.passed()

    async def _turn(self) -> None:
        if not self._quota_per_s:
            return
        step = max(1, round(self._pace.factor(self._clock()) * STEPS))
        if self._limiter is None or step != self._step:
            self._limiter = await self._new_limiter(step)
            self._step = step
        # Its own waiting spins: uvloop's timers keep whole milliseconds, and one that fires a
        # little early is set anew with nothing left to wait for (a quarter of a core at 2,000/s).
        pause_s = max(TICK_S, POLL_SHARE / self.rate_per_s)
        while not self._limiter.has_capacity():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(pause_s)
        await self._limiter.acquire()

    async def _new_limiter(self, step: int) -> AsyncLimiter:
        """Make a limiter for a changed rate; aiolimiter's own cannot change."""
        bucket, rate_per_s = bucket_and_rate(self._quota_per_s)
        limiter = AsyncLimiter(bucket, bucket / (rate_per_s * step / STEPS))
        at_once = 0
        if self._limiter is None:
            await asyncio.sleep(self._closed_for_s)
            at_once = 1
        # The old bucket may have been emptied just now, and the first calls of a process wait for
        # their connections, so that those behind them come close: no burst from a new one.
        for _ in range(int(bucket) - at_once):
            await limiter.acquire()
        return limiter
