"""How many calls at once and how fast: first a slot, then a turn.

Slot before turn: a turn taken while all slots are busy would be used late, and the calls saved
up during a stall would go out together (after 5 s at 100/s the next second saw 568 calls).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from worker.logs import logger
from worker.rules.breaker import OUTAGES, Breaker, Why

log = logger()

INSTANT_S = 1e-6
"""A call that starts after a reply starts so much later at least, because uvloop's clock has whole
milliseconds: what a reply says is compared with the calls that start after it."""


class Quota(Protocol):
    """Permission to start calls, held in every rolling second, at the rate that holds.

    The pace belongs to it, not to the process: replicas that share a quota share what its
    refusals say.
    """

    @property
    def rate_per_s(self) -> float:
        """Calls a second that go out now; 0: no quota is kept."""
        ...

    @property
    def is_reachable(self) -> bool:
        """Whether turns come from where the quota is kept."""
        ...

    @property
    def gives_turns(self) -> bool:
        """Whether turns are given now, by the quota itself or by its fallback."""
        ...

    async def acquire(self) -> float:
        """Wait for one turn; its time on the quota's own clock names it to `throttled`."""
        ...

    def throttled(self, turn: float) -> None:
        """Slow down: the call that had this turn was refused for its frequency."""
        ...

    def not_throttled(self) -> None:
        """Record a call that was not refused."""
        ...


class Turn(NamedTuple):
    """Permission that was given: when on the process's clock, and by what name at the quota."""

    started_s: float
    quota_turn: float


class Limits:
    """Slots and turns for all calls of a process, and the breaker that stops them.

    `slots`: how many calls may be open at once; the line keeps to it.
    """

    def __init__(
        self, quota: Quota, slots: int, clock: Callable[[], float], breaker: Breaker
    ) -> None:
        self._quota = quota
        self.slots = slots
        self._clock = clock
        self._breaker = breaker
        self._ended_s = float("-inf")
        self._announced: Why | None = None
        self._something_changed = asyncio.Event()
        self._all_may_call = asyncio.Event()
        self._all_may_call.set()

    def __repr__(self) -> str:
        return f"<Limits {self.slots} slots {self._quota!r} {self._breaker!r}>"

    @property
    def is_probing(self) -> bool:
        """Whether the breaker lets single probes out only."""
        return self._breaker.is_open

    @property
    def rate_per_s(self) -> float:
        """Calls a second that go out now; 0: no quota is kept."""
        return self._quota.rate_per_s

    @property
    def probing_for_s(self) -> float:
        """Seconds for which the breaker has been open; 0: it is closed."""
        return self._breaker.open_for_s(self._clock())

    async def turn(self) -> Turn:
        """Wait for a turn; for one at a time, who holds a slot.

        Whoever uses the turn does so before anything else happens in the loop.
        """
        while True:
            asked_s = await self._until_calls_may_start()
            quota_turn = await self._quota.acquire()
            started_s = self._clock()
            # The breaker may have opened meanwhile: then the turn is lost.
            if started_s == asked_s or self._wait_s(started_s) <= 0:
                return Turn(max(started_s, self._ended_s + INSTANT_S), quota_turn)

    async def _until_calls_may_start(self) -> float:
        """Wait until the breaker lets a call out; return the time."""
        while (wait_s := self._wait_s(now_s := self._clock())) > 0:
            self._something_changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._something_changed.wait()
        return now_s

    def _wait_s(self, now_s: float) -> float:
        wait_s = self._breaker.wait_s(now_s)
        if self._breaker.why is not self._announced:
            self._announce()
        return wait_s

    async def closes_within(self, seconds: float) -> bool:
        """Wait so long, or until the breaker lets all calls out again: True then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_may_call.wait()
        return not self._breaker.is_open

    def call_started(self, turn: Turn) -> None:
        """Record the start of a call."""
        self._breaker.started(turn.started_s)

    def call_ended(self, turn: Turn, now_s: float, *, answered: bool) -> None:
        """Record the end of a call, with an answer or without."""
        self._ended_s = now_s
        self._breaker.ended(turn.started_s, now_s, answered=answered)

    def wake_waiters(self) -> None:
        """Wake those who wait for a turn: a reply may have changed what they wait for."""
        if self._breaker.is_open or self._announced:
            self._something_changed.set()
            self._announce()

    def throttled(self, turn: Turn) -> None:
        """Slow down: the call that had this turn was refused for its frequency."""
        self._quota.throttled(turn.quota_turn)

    def not_throttled(self) -> None:
        """Record a call that was not refused."""
        self._quota.not_throttled()

    def _announce(self) -> None:
        """Let waiting records know whether calls flow, and people when an outage begins or ends."""
        before, self._announced = self._announced, self._breaker.why
        if self._breaker.is_open:
            self._all_may_call.clear()
        else:
            self._all_may_call.set()
        if self._breaker.is_outage == (before in OUTAGES):
            return
        if self._breaker.is_outage:
            log.warning(
                "outage: the service fails for all or does not answer; calls stop, single ones "
                "find out when it is back, and no record's attempts run out",
                last_failure=self._breaker.last_failure or None,
            )
        else:
            log.info("the service is back: calls go on at the full rate")
