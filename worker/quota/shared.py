"""The quota that several processes share, and its pace, in Redis.

Turns are given by a script on Redis' own clock, so that no two clocks are compared: several in a
row, and before they are needed, so that no call waits for a round trip. While Redis is away each
process continues at its share of the quota, or waits.
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
from worker.quota.stock import Row, Stock, Turn
from worker.redis_client import sentence
from worker.rules import pace

log = logger()

STEADY_SHARE = 0.98
"""Of the quota. With what late callers may catch up it is 0.99. Calls that start up to 10 ms after
their turns, some later than others, then still keep the quota in every rolling second."""
CATCH_UP_S = 0.01
"""A turn may be reserved so long after its time, by processes that ask for it late."""
LOOK_AHEAD_S = 1.0
"""How far ahead the script reserves turns; a caller who would wait longer asks again."""
ASK_AGAIN_S = 1.0
ANSWER_TIMEOUT_S = 1.0
WINDOW_S = 1.0
"""No turns for so long after turns begin to come from elsewhere: earlier calls still count."""
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
"""The constants of `rules.pace` that are passed to the script."""


def script() -> str:
    """Return the text of the Lua script."""
    return resources.files(__package__).joinpath("shared.lua").read_text()


def rules(calls_per_second: float) -> bytes:
    """Return the rules of the script as JSON; all who share a quota must pass the same."""
    return orjson.dumps(
        {
            "rate_per_s": calls_per_second * STEADY_SHARE,
            "catch_up_us": round(CATCH_UP_S * US_PER_S),
            "look_ahead_us": round(LOOK_AHEAD_S * US_PER_S),
            "pace": {name: getattr(pace, name) for name in PACE},
        }
    )


def key(app: str) -> str:
    """Return the Redis key of an app's quota."""
    return f"topic-import:quota:{{{app}}}"


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Answer:
    """A reply of the script. `row.first_s` without turns: when to ask again, on Redis' clock."""

    row: Row
    factor: float


class SharedQuota:
    """Gives turns that all processes with the same Redis and app share.

    `redis`: a client with timeouts of about a second and without retries; the caller closes it.
    `calls_per_second`: the quota of all together; 0: none. `clock`: seconds of a monotonic clock.
    `fallback`: the share of this process, used while it cannot reach Redis; None: it waits. If
    only this process cannot reach Redis, its share comes on top of what the others use.
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
        # While this is set, turns come from it and not from Redis.
        self._substitute = None if calls_per_second else LocalQuota(0, clock)
        self._is_reachable = True
        self._reached_again = asyncio.Event()
        self._switches = 0
        self._closed_until_s = float("-inf")
        self._factor = 1.0
        self._not_refused = 0
        self._stock = Stock()
        self._without_turn = 0
        self._ask_again_at_s = float("-inf")
        self._reserving: asyncio.Task[None] | None = None
        self._refused: list[float] = []
        self._reporting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        state = "reachable" if self._is_reachable else "away"
        return f"<SharedQuota {self._key} {state} {self.rate_per_s:.1f}/s>"

    @property
    def is_reachable(self) -> bool:
        """Return whether Redis answered the last request."""
        return self._is_reachable

    @property
    def gives_turns(self) -> bool:
        """Return whether turns are given: by Redis, or by the fallback while it is away."""
        return self._is_reachable or self._substitute is not None

    @property
    def rate_per_s(self) -> float:
        """The rate in force for all who share, in calls a second; 0: no quota is kept."""
        if self._substitute:
            return self._substitute.rate_per_s
        return self._steady_per_s * self._factor

    async def acquire(self) -> float:
        """Wait for one turn; return its time on Redis' clock."""
        self._stock.caller_came(self._clock())
        while True:
            if self._clock() < self._closed_until_s:
                await self._sleep_until(self._closed_until_s)
                continue
            switches = self._switches
            turn = await self._next_turn()
            # A turn that was given before a switch is not used: another quota is in force now.
            if turn is not None and switches == self._switches:
                self._stock.used(self._clock())
                return turn

    def throttled(self, turn: float) -> None:
        """Slow down all who share, because the call that had this turn was throttled."""
        if self._substitute:
            self._substitute.throttled(self._stock.clock.here_s(turn))
        elif self._is_reachable:
            self._refused.append(turn)
            if self._reporting is None:
                self._reporting = self._in_background(self._report_throttled())

    def not_throttled(self) -> None:
        """Record a call that was answered and not throttled; the next request reports it."""
        if self._substitute:
            self._substitute.not_throttled()
        else:
            self._not_refused += 1

    async def close(self) -> None:
        """Cancel the requests that run in the background, and wait for their end."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # With a timeout: redis-py ignores most cancellations during a call.
            await asyncio.wait(self._tasks, timeout=2 * ANSWER_TIMEOUT_S)

    async def _next_turn(self) -> float | None:
        if self._substitute:
            return self._stock.clock.there_s(await self._substitute.acquire())
        if not self._is_reachable:
            await self._reached_again.wait()
            return None
        turn = self._stock.pop(self._clock())
        if turn is None:
            await self._wait_for_stock()
            return None
        self._reserve_ahead()
        return await self._wait_for(turn)

    async def _wait_for(self, turn: Turn) -> float | None:
        """Wait until a turn is due; None if this process wakes up too late for it."""
        switches = self._switches
        try:
            await self._sleep_until(turn.due_s)
        except asyncio.CancelledError:
            if switches == self._switches:
                self._stock.give_back(turn)
            raise
        return None if turn.is_late(self._clock()) else turn.name_s

    async def _wait_for_stock(self) -> None:
        """Wait until more turns are reserved, or cannot be."""
        await self._sleep_until(self._ask_again_at_s)
        if self._reserving is None:
            self._reserving = self._in_background(self._reserve(self._stock.wanted(self._clock())))
        self._without_turn += 1
        try:
            # A caller that is cancelled must not take the turns of the others with it.
            await asyncio.shield(self._reserving)
        finally:
            self._without_turn -= 1

    def _reserve_ahead(self) -> None:
        if self._reserving is None and (wanted := self._stock.wanted(self._clock())):
            self._reserving = self._in_background(self._reserve(wanted))

    async def _reserve(self, ahead: int) -> None:
        """Reserve turns for those who wait and `ahead` more; a failure is no error of theirs."""
        switches = self._switches
        try:
            answer = await self._ask("reserve", max(1, self._without_turn, ahead))
        except UNREACHABLE as error:
            self._lose(error)
            return
        finally:
            self._reserving = None
        if switches != self._switches:
            return
        self._stock.add(answer.row, self._clock())
        if not answer.row.count:
            self._ask_again_at_s = self._stock.clock.here_s(answer.row.first_s)

    async def _report_throttled(self) -> None:
        """Report refused calls, one request at a time: those that come meanwhile go together."""
        try:
            while self._refused and self._is_reachable:
                refused, self._refused = self._refused, []
                turns_us = " ".join(str(round(turn * US_PER_S)) for turn in refused)
                await self._ask("throttled", turns_us)
        except UNREACHABLE as error:
            self._lose(error)
        finally:
            self._refused.clear()
            self._reporting = None

    async def _ask(self, mode: str, what: int | str) -> _Answer:
        not_refused, self._not_refused = self._not_refused, 0
        asked_s = self._clock()
        answer = await self._run(mode, not_refused, what)
        self._factor = answer.factor
        self._stock.note(asked_s, self._clock(), answer.row.now_s)
        return answer

    async def _run(self, *arguments: str | int) -> _Answer:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answer = await self._script(keys=[self._key], args=[self._rules, *arguments])
        count, first_us, now_us, factor, interval_us = answer
        row = Row(count, first_us / US_PER_S, interval_us / US_PER_S, now_us / US_PER_S)
        return _Answer(row, float(factor))

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
            # From start to start: all processes leave their fallbacks within a second.
            ask_at_s = self._clock() + ASK_AGAIN_S
            try:
                # The turn is not used, but it proves that turns can be reserved; PING would not.
                await self._ask("reserve", 1)
            except UNREACHABLE:
                continue
            self._is_reachable = True
        self._switch_to(None)
        self._reached_again.set()
        log.info("the shared quota is used again")

    def _switch_to(self, substitute: LocalQuota | None) -> None:
        self._substitute = substitute
        self._switches += 1
        self._stock.clear()
        self._refused.clear()
        self._ask_again_at_s = float("-inf")
        self._closed_until_s = self._clock() + WINDOW_S

    async def _sleep_until(self, due_s: float) -> None:
        # uvloop's timers have whole milliseconds and may fire a little early.
        while (wait_s := due_s - self._clock()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(max(TICK_S, wait_s))

    def _in_background(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # Nobody awaits a request whose caller was cancelled: its expected failures are dropped.
        if not task.cancelled() and not isinstance(task.exception(), UNREACHABLE):
            task.result()
