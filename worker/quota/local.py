"""The quota of one process: turns at the pace that the service accepts.

aiolimiter's leaky bucket spaces the turns, and lets late ones be caught up. A bucket of c calls at
rate r lets up to c + r calls through in a second, so a log of the latest turns keeps the quota: in
no rolling second are there more turns than that.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from math import floor

from aiolimiter import AsyncLimiter

from worker.rules.pace import Pace

STEADY_SHARE = 0.9892
"""Of the quota: how fast turns are given on average. Chosen by trying, with the scenarios of
`tests/simulation`; at 0.99 another client of the same quota was refused much more often there."""
SPARE_SHARE = 0.01
"""Of the quota, in whole calls: so many stay unused in a window, because calls that start evenly
arrive a little unevenly."""
WINDOW_S = 1.001
"""How long the window is in which turns are counted."""
CATCH_UP_S = 0.015
"""A turn may come so late and is caught up; timers and busy moments of the loop delay less."""
STEPS = 400
"""The rate changes in so many steps, because each change costs a new limiter."""
TICK_S = 0.001
"""uvloop's clock and timers have whole milliseconds."""
HALVINGS = 6
"""The room in a bucket is found to so many binary digits of a call."""


def bucket_and_rate(quota_per_s: float) -> tuple[float, float]:
    """Return a bucket (calls) and a steady rate (calls a second) for a quota.

    The bucket holds the turns that may be caught up. Whole calls count: 200/s shared by 12
    processes are 16.7/s each, and 17 each would be too many.
    """
    rate_per_s = (floor(quota_per_s) or quota_per_s) * STEADY_SHARE
    return 1.0 + rate_per_s * CATCH_UP_S, rate_per_s


def window(quota_per_s: float) -> tuple[int, float]:
    """Return how many turns may be given in how many seconds (more than one if below 1/s)."""
    calls = floor(quota_per_s) - floor(quota_per_s * SPARE_SHARE)
    return (calls, WINDOW_S) if calls else (1, WINDOW_S / quota_per_s if quota_per_s else 0.0)


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
        self._closed_until_s = clock() + closed_for_s if calls_per_second else float("-inf")
        calls, self._window_s = window(calls_per_second)
        self._turns: deque[float] = deque(maxlen=calls)
        self._pace = Pace()
        self._passed = 0
        self._step = 0
        self._limiter = AsyncLimiter(1.0)

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
        # In a loop: a refusal meanwhile prolongs the wait, and another caller may be faster.
        while (wait_s := await self._wait_s(now_s := self._clock())) > 0:  # noqa: ASYNC110
            # Not less than a tick: uvloop would not wait at all, and this loop would spin.
            await asyncio.sleep(max(TICK_S, wait_s))
        if self._quota_per_s:
            await self._limiter.acquire()  # there is room, so this does not wait
            self._turns.append(now_s)
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

    async def _wait_s(self, now_s: float) -> float:
        """Return the seconds until a turn may be given, unless a call is refused meanwhile."""
        pause_s = max(self._pace.paused_until_s, self._closed_until_s) - now_s
        if pause_s > 0 or not self._quota_per_s:
            return pause_s
        await self._keep_pace(now_s)
        wait_s = 0.0
        if len(self._turns) == self._turns.maxlen:
            wait_s = self._turns[0] + self._window_s - now_s
        # Not by the limiter's own waiting: uvloop's timers may fire a little early, and it then
        # spins until there is room (a quarter of a core at 2,000/s).
        return wait_s if self._limiter.has_capacity() else max(wait_s, self._room_comes_in_s())

    def _room_comes_in_s(self) -> float:
        """Return the seconds until the bucket has room for a call.

        aiolimiter does not tell that, but whether there is room for a part of a call.
        """
        room, part = 0.0, 0.5
        for _ in range(HALVINGS):
            if self._limiter.has_capacity(room + part):
                room += part
            part /= 2
        return (1.0 - room) * self._limiter.time_period / self._limiter.max_rate

    async def _keep_pace(self, now_s: float) -> None:
        """Take a new limiter for a changed rate, because aiolimiter cannot change that of one."""
        step = max(1, round(self._pace.factor(now_s) * STEPS))
        if step == self._step:
            return
        bucket, rate_per_s = bucket_and_rate(self._quota_per_s)
        self._limiter = AsyncLimiter(bucket, bucket / (rate_per_s * step / STEPS))
        # A new bucket must not allow a burst, so it starts empty: the old one may have been used up
        # just now, and the first calls of a process wait for connections, so that the calls behind
        # them follow closely.
        await self._limiter.acquire(bucket if self._step else bucket - 1.0)
        self._step = step
