"""The quota that several processes share, with their pace, in a Redis.

Every turn is one run of a script there, on Redis' own clock: no two clocks have to agree. While
Redis is away each process goes on at its share of the quota, or waits.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from worker.logs import logger
from worker.quota.local import LocalQuota
from worker.redis_client import sentence
from worker.rules import pace

log = logger()

STEADY_SHARE = 0.98
"""Of the quota. With what a late caller may catch up it is 0.99: calls that leave up to 10 ms later
than their turns, not all of them equally late, still keep every rolling second."""
CATCH_UP_S = 0.01
"""A turn so long past may still be taken: timers and round trips are late by less."""
LATE_MAX_S = 0.01
"""A turn that was overslept by more is lost."""
LOOK_AHEAD_S = 1.0
ASK_AGAIN_S = 1.0
ANSWER_TIMEOUT_S = 1.0
WINDOW_S = 1.0
"""Closed for so long when turns begin to come from elsewhere: the second before counts too."""
TICK_S = 0.001
US_PER_S = 1_000_000
UNREACHABLE = (RedisError, OSError, TimeoutError)
PACE = (
    "ALLOWANCE_MAX", "ALLOWED", "ALL_REFUSED_MAX_S", "ALL_REFUSED_MIN_S", "ALL_REFUSED_RATE",
    "ALL_REFUSED_S", "ALL_REFUSED_WALL", "CALLS_KEPT", "CALLS_MIN", "DEVIATION_MIN", "DOUBT",
    "FACTOR_MIN", "FOR_OTHERS", "KEPT_S", "LIMIT_SLOPE", "MOSTLY_REFUSED", "ONE_CALL_MAX",
    "PAUSE_INTERVALS", "PAUSE_MAX_S",
    "RANDOM_MAX", "RANDOM_S", "RETURN_S", "RISE_PER_S2", "SPREAD", "STAY_MAX_S", "STAY_PER_S",
    "SURE", "VARIANCE_MIN",
)  # fmt: skip
"""The constants of the pace that the script is handed."""


def script() -> str:
    return resources.files(__package__).joinpath("shared.lua").read_text()


def rules(calls_per_second: float) -> bytes:
    """Say by what rules the script gives turns: the same for all who share a quota."""
    return orjson.dumps(
        {
            "rate_per_s": calls_per_second * STEADY_SHARE,
            "catch_up_us": round(CATCH_UP_S * US_PER_S),
            "look_ahead_us": round(LOOK_AHEAD_S * US_PER_S),
            "pace": {name: getattr(pace, name) for name in PACE},
        }
    )


def key(app: str) -> str:
    return f"topic-import:quota:{{{app}}}"


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the script said, in seconds of Redis' clock."""

    is_reserved: bool
    at_s: float
    now_s: float
    factor: float


class SharedQuota:
    """Turns that all who name the same Redis and app share; 0 `calls_per_second`: no quota.

    `redis` belongs to the caller, who gives it timeouts of about a second and no retries.
    `fallback`: this process's share, for while Redis cannot be reached; without one it waits.
    One that cannot reach a Redis which others still reach adds its share to theirs.
    """

    def __init__(
        self,
        redis: Redis,
        app: str,
        calls_per_second: float,
        *,
        clock: Callable[[], float],
        fallback: LocalQuota | None = None,
    ) -> None:
        self._script = redis.register_script(script())
        self._key = key(app)
        self._rules = rules(calls_per_second)
        self._steady_per_s = calls_per_second * STEADY_SHARE
        self._clock = clock
        self._fallback = fallback
        # Turns come from here while it is set.
        self._substitute = None if calls_per_second else LocalQuota(0, clock)
        self._is_reachable = True
        self._reached_again = asyncio.Event()
        self._switches = 0
        self._closed_until_s = float("-inf")
        self._factor = 1.0
        self._not_refused = 0
        self._ahead_s = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        state = "reachable" if self._is_reachable else "away"
        return f"<SharedQuota {self._key} {state} {self.rate_per_s:.1f}/s>"

    @property
    def is_reachable(self) -> bool:
        """Whether Redis answers."""
        return self._is_reachable

    @property
    def rate_per_s(self) -> float:
        """Calls a second that go out now, of all who share; 0: no quota is kept."""
        if self._substitute:
            return self._substitute.rate_per_s
        return self._steady_per_s * self._factor

    async def acquire(self) -> float:
        """Wait for one turn; the time of it on Redis' clock."""
        while True:
            if self._clock() < self._closed_until_s:
                await self._sleep_until(self._closed_until_s)
                continue
            switches = self._switches
            turn = await self._next_turn()
            # A turn that was waited for across a switch is lost: its quota is not in force.
            if turn is not None and switches == self._switches:
                return turn

    def throttled(self, turn: float) -> None:
        """Slow all down: the call that had this turn was refused for its frequency."""
        if self._substitute:
            self._substitute.throttled(turn - self._ahead_s)
        elif self._is_reachable:
            self._in_background(self._tell_throttled(turn))

    def not_throttled(self) -> None:
        """Note a call that was not refused; Redis hears of it with the next turn."""
        if self._substitute:
            self._substitute.not_throttled()
        else:
            self._not_refused += 1

    async def close(self) -> None:
        """End what runs in the background."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # Bounded: redis-py swallows most cancellations that come during a call.
            await asyncio.wait(self._tasks, timeout=2 * ANSWER_TIMEOUT_S)

    async def _next_turn(self) -> float | None:
        if self._substitute:
            return await self._substitute.acquire() + self._ahead_s
        if not self._is_reachable:
            await self._reached_again.wait()
            return None
        return await self._reserve()

    async def _reserve(self) -> float | None:
        try:
            answer = await self._ask("reserve")
        except UNREACHABLE as error:
            self._lose(error)
            return None
        # From when the answer is here: a turn is used late by half a round trip, never early.
        due_s = self._clock() + answer.at_s - answer.now_s
        await self._sleep_until(due_s)
        # After a stall of this process the turns of the others have come close: 201 of 200 seen.
        is_in_time = self._clock() <= due_s + LATE_MAX_S
        return answer.at_s if answer.is_reserved and is_in_time else None

    async def _tell_throttled(self, turn: float) -> None:
        try:
            await self._ask("throttled", round(turn * US_PER_S))
        except UNREACHABLE as error:
            self._lose(error)

    async def _ask(self, mode: str, turn_us: int | str = "") -> _Answer:
        not_refused, self._not_refused = self._not_refused, 0
        # In a task of its own: redis-py 8.1 swallows most cancellations that come during a call
        # (76 of 100 measured), so that who waits for a turn would not stop.
        asking = self._in_background(self._run(mode, not_refused, turn_us))
        answer = await asyncio.shield(asking)
        self._factor = answer.factor
        self._ahead_s = answer.now_s - self._clock()
        return answer

    async def _run(self, *arguments: str | int) -> _Answer:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answer = await self._script(keys=[self._key], args=[self._rules, *arguments])
        is_reserved, at_us, now_us, factor = answer
        return _Answer(bool(is_reserved), at_us / US_PER_S, now_us / US_PER_S, float(factor))

    def _lose(self, error: Exception) -> None:
        if not self._is_reachable:
            return
        self._is_reachable = False
        self._reached_again.clear()
        self._switch_to(self._fallback)
        log.warning(
            "the shared quota cannot be used",
            reason=sentence(error),
            instead=f"{self.rate_per_s:.1f} calls/s" if self._fallback else "waiting for it",
        )
        self._in_background(self._find_again())

    async def _find_again(self) -> None:
        ask_at_s = self._clock() + ASK_AGAIN_S
        while not self._is_reachable:
            await self._sleep_until(ask_at_s)
            # From start to start: within a second of its return all have left their fallbacks.
            ask_at_s = self._clock() + ASK_AGAIN_S
            try:
                # The turn is lost, but it shows that one can be reserved: PING would not.
                await self._ask("reserve")
            except UNREACHABLE:
                continue
            self._is_reachable = True
        self._switch_to(None)
        self._reached_again.set()
        log.info("the shared quota is used again")

    def _switch_to(self, substitute: LocalQuota | None) -> None:
        self._substitute = substitute
        self._switches += 1
        self._closed_until_s = self._clock() + WINDOW_S

    async def _sleep_until(self, due_s: float) -> None:
        # uvloop's timers keep whole milliseconds and may fire a little early.
        while (wait_s := due_s - self._clock()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(max(TICK_S, wait_s))

    def _in_background(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # The failure of a call whose caller was cancelled interests nobody.
        if not task.cancelled() and not isinstance(task.exception(), UNREACHABLE):
            task.result()
