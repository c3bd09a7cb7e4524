"""The quota of one process, with aiolimiter's leaky bucket."""

import asyncio

from aiolimiter import AsyncLimiter

SMALL_QUOTA_PER_S = 50.0
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
        return 1.0, quota_per_s * 0.98
    bucket = float(max(2, round(quota_per_s * BUCKET_SHARE)))
    return bucket, quota_per_s * (1.0 - UNUSED_SHARE) - bucket


class LocalQuota:
    """Turns at `calls_per_second`, which no rolling second exceeds; 0: as fast as they come.

    `closed_for_s`: seconds before the first turn, for the calls of a process that went before.
    """

    def __init__(self, calls_per_second: float, *, closed_for_s: float = 0.0) -> None:
        self._quota_per_s = calls_per_second
        self._closed_for_s = closed_for_s
        self._step = 0
        self._limiter: AsyncLimiter | None = None

    def __repr__(self) -> str:
        return f"<LocalQuota {self._quota_per_s}/s at {self._step / STEPS:.2%}>"

    def rate_per_s(self, factor: float = 1.0) -> float:
        """Tell the turns a second at `factor` of the quota; 0: no quota is kept."""
        return bucket_and_rate(self._quota_per_s)[1] * factor if self._quota_per_s else 0.0

    async def acquire(self, factor: float = 1.0) -> None:
        if not self._quota_per_s:
            return
        step = max(1, round(factor * STEPS))
        if self._limiter is None or step != self._step:
            self._limiter = await self._new_limiter(step)
            self._step = step
        # Its own waiting spins: uvloop's timers keep whole milliseconds, and one that fires a
        # little early is set anew with nothing left to wait for (a quarter of a core at 2,000/s).
        pause_s = max(TICK_S, POLL_SHARE / self.rate_per_s(factor))
        while not self._limiter.has_capacity():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(pause_s)
        await self._limiter.acquire()

    async def _new_limiter(self, step: int) -> AsyncLimiter:
        """Make a limiter for a changed rate; aiolimiter's own cannot change."""
        bucket, rate_per_s = bucket_and_rate(self._quota_per_s)
        limiter = AsyncLimiter(bucket, bucket / (rate_per_s * step / STEPS))
        if self._limiter is None:
            await asyncio.sleep(self._closed_for_s)
        else:
            # The old bucket may have been emptied just now: the new one starts empty too.
            for _ in range(int(bucket)):
                await limiter.acquire()
        return limiter
