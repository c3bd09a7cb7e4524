"""What both engines of the quota promise, on real time; the shared one on a real Redis."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support.redis_server import RedisServer, binaries
from tests.support.rolling_second import most_in_a_second
from worker.limits import Quota
from worker.quota import shared
from worker.quota.local import LocalQuota, bucket_and_rate
from worker.quota.shared import CATCH_UP_S, LOOK_AHEAD_S, STEADY_SHARE, US_PER_S, SharedQuota
from worker.rules import pace
from worker.rules.pace import Pace

QUOTA_PER_S = 200
PATIENCE_S = 20.0
LOCAL = "local"

Engine = Callable[[float], AbstractAsyncContextManager[Quota]]


@pytest.fixture(scope="module", params=binaries(), ids=str)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    server = RedisServer(request.param, tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=binaries(), ids=str)
def doomed_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server for this test alone, which it may kill."""
    server = RedisServer(request.param, tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module", params=[LOCAL, *binaries()], ids=str)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    if request.param == LOCAL:
        yield local
        return
    server = RedisServer(request.param, tmp_path_factory.mktemp("redis"))
    server.start()
    yield lambda calls_per_second: sharing(server, calls_per_second)
    server.kill()


@asynccontextmanager
async def local(calls_per_second: float) -> AsyncIterator[LocalQuota]:
    yield LocalQuota(calls_per_second, asyncio.get_running_loop().time)


@asynccontextmanager
async def sharing(
    server: RedisServer,
    calls_per_second: float = QUOTA_PER_S,
    *,
    fallback: LocalQuota | None = None,
    app: str | None = None,
    timeout_s: float = 1.0,
) -> AsyncIterator[SharedQuota]:
    """Open the shared quota of an app; the default app belongs to the running test alone."""
    clock = asyncio.get_running_loop().time
    test = os.environ["PYTEST_CURRENT_TEST"].split("::")[-1]
    client = Redis.from_url(
        server.url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    quota = SharedQuota(client, app or test, calls_per_second, clock=clock, fallback=fallback)
    try:
        yield quota
    finally:
        await quota.close()
        await client.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a quota has no event for a test
            await asyncio.sleep(0.002)


async def use_for(quota: Quota, seconds: float) -> list[float]:
    """Take every turn for some seconds. Returns their times in seconds."""
    turns = []
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds
    while loop.time() < end_s:
        turns.append(await quota.acquire())
    return turns


async def test_the_quota_is_used_fully_and_never_exceeded(engine: Engine) -> None:
    async with engine(QUOTA_PER_S) as quota:
        assert quota.is_reachable
        turns = await use_for(quota, 2.0)
    assert turns == sorted(turns)
    assert most_in_a_second(turns) <= QUOTA_PER_S
    assert len(turns) >= 0.9 * QUOTA_PER_S * 2.0


async def test_unused_turns_are_not_saved_up(engine: Engine) -> None:
    async with engine(QUOTA_PER_S) as quota:
        await use_for(quota, 0.05)
        await asyncio.sleep(0.3)
        turns = [await quota.acquire() for _ in range(20)]
    burst = 4
    assert turns[-1] - turns[0] >= (20 - burst) / QUOTA_PER_S


async def test_a_refusal_lowers_the_rate_and_time_raises_it(engine: Engine) -> None:
    async with engine(QUOTA_PER_S) as quota:
        full_per_s = quota.rate_per_s
        assert 0.95 * QUOTA_PER_S <= full_per_s <= QUOTA_PER_S
        quota.not_throttled()
        quota.throttled(await quota.acquire())
        await until(lambda: quota.rate_per_s < full_per_s)
        lowered_per_s = quota.rate_per_s
        # One of two calls was refused, so the rate falls by three quarters of a call a second.
        assert lowered_per_s == pytest.approx(full_per_s - 0.75, rel=1e-3)
        await use_for(quota, 0.3)
        assert lowered_per_s < quota.rate_per_s < full_per_s


async def test_without_a_quota_only_a_refusal_pauses(engine: Engine) -> None:
    async with engine(0) as quota:
        turns = [await quota.acquire() for _ in range(500)]
        assert quota.rate_per_s == 0
        assert turns[-1] - turns[0] < 0.5
        quota.throttled(turns[-1])
        assert await quota.acquire() - turns[-1] >= pace.PAUSE_WITHOUT_RATE_S


async def test_three_processes_share_the_quota_evenly_and_never_exceed_it(
    server: RedisServer,
) -> None:
    seconds = 2.0
    async with AsyncExitStack() as stack:
        quotas = [await stack.enter_async_context(sharing(server)) for _ in range(3)]
        turns = await asyncio.gather(*(use_for(quota, seconds) for quota in quotas))
    together = sorted(turn for each in turns for turn in each)
    print(  # noqa: T201
        f"{[len(each) for each in turns]}, {len(together) / (together[-1] - together[0]):.1f}/s, "
        f"most {most_in_a_second(together)}"
    )
    assert most_in_a_second(together) <= QUOTA_PER_S
    assert len(together) >= 0.9 * QUOTA_PER_S * seconds
    fair = len(together) / 3
    # Roughly, because they do not begin together; evenly on a clock that a test moves, below.
    assert all(0.7 * fair <= len(each) <= 1.3 * fair for each in turns)


async def test_a_refusal_slows_and_pauses_the_other_processes(server: RedisServer) -> None:
    async with sharing(server) as one, sharing(server) as other:
        full_per_s = other.rate_per_s
        turn = 0.0
        for _ in range(8):
            turn = await one.acquire()
            one.throttled(turn)
            await until(lambda: not one._tasks)
        next_turn = await other.acquire()
        assert other.rate_per_s < 0.99 * full_per_s
        assert other.rate_per_s == pytest.approx(one.rate_per_s, rel=0.01)
        assert next_turn - turn > 1.5 / full_per_s


async def test_a_script_that_redis_forgot_is_loaded_again(server: RedisServer) -> None:
    async with sharing(server) as quota:
        await quota.acquire()
        with redis.Redis.from_url(server.url) as client:
            client.script_flush()
        await quota.acquire()
        assert quota.is_reachable


async def test_a_wait_for_a_turn_can_be_cancelled_any_time(server: RedisServer) -> None:
    async with sharing(server) as quota:
        for number in range(100):
            user = User(quota)
            await asyncio.sleep(number * 0.0001)
            await user.stop()
        await quota.acquire()
        assert quota.is_reachable


class User:
    """Takes every turn of a quota and records its time, and whether Redis gave it."""

    def __init__(self, quota: SharedQuota) -> None:
        self.quota = quota
        self.shared_s: list[float] = []
        self.own_s: list[float] = []
        self.turns: list[float] = []
        self._work = asyncio.create_task(self._use())

    async def _use(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            turn = await self.quota.acquire()
            (self.shared_s if self.quota.is_reachable else self.own_s).append(clock())
            self.turns.append(turn)

    async def stop(self) -> None:
        self._work.cancel()
        await asyncio.wait_for(asyncio.wait([self._work]), PATIENCE_S)
        assert self._work.cancelled()


async def test_without_redis_a_process_uses_its_share_or_waits(doomed_server: RedisServer) -> None:
    clock = asyncio.get_running_loop().time
    share = LocalQuota(QUOTA_PER_S / 2, clock)
    async with sharing(doomed_server, fallback=share) as going_on, sharing(doomed_server) as w:
        users = careful, patient = [User(going_on), User(w)]
        await until(lambda: all(len(user.shared_s) >= 20 for user in users))
        doomed_server.kill()
        await until(lambda: not any(user.quota.is_reachable for user in users))
        assert [user.quota.gives_turns for user in users] == [True, False]
        before = [len(user.shared_s) for user in users]
        await until(lambda: len(careful.own_s) >= 60)
        check_the_outage(careful, patient, before)
        full_per_s = going_on.rate_per_s
        going_on.throttled(careful.turns[-1])
        assert going_on.rate_per_s < full_per_s
        await asyncio.to_thread(doomed_server.start)
        await until(lambda: all(user.quota.is_reachable for user in users))
        await until(
            lambda: all(len(u.shared_s) >= n + 20 for u, n in zip(users, before, strict=True))
        )
        for user in users:
            await user.stop()
    assert careful.shared_s[before[0]] >= careful.own_s[-1] + 1.0
    assert careful.turns == sorted(careful.turns), "all turns are on the clock of Redis"
    starts = sorted(at for user in users for at in (*user.shared_s, *user.own_s))
    assert most_in_a_second(starts) <= QUOTA_PER_S


def check_the_outage(careful: User, patient: User, before: list[int]) -> None:
    assert [len(careful.shared_s), len(patient.shared_s)] == before
    assert not patient.own_s, "without a fallback it waits"
    own_s, rate_per_s = careful.own_s, bucket_and_rate(QUOTA_PER_S / 2)[1]
    assert own_s[0] >= careful.shared_s[-1] + 1.0, "the second before the switch counts too"
    assert (len(own_s) - 3) / (own_s[-1] - own_s[0]) <= rate_per_s
    assert len(own_s) / (own_s[-1] - own_s[0]) >= 0.8 * rate_per_s


async def test_a_hanging_redis_counts_as_unreachable(doomed_server: RedisServer) -> None:
    clock = asyncio.get_running_loop().time
    share = LocalQuota(QUOTA_PER_S, clock)
    async with sharing(doomed_server, fallback=share, timeout_s=0.2) as quota:
        turn = await quota.acquire()
        assert doomed_server._process is not None
        doomed_server._process.send_signal(signal.SIGSTOP)
        assert await quota.acquire() >= turn + 1.0
        assert not quota.is_reachable
        assert quota.gives_turns, "the fallback serves, so a service is ready"
        doomed_server._process.send_signal(signal.SIGCONT)
        await until(lambda: quota.is_reachable)


class Script:
    """Runs the script alone, at times that a test chooses."""

    def __init__(self, server: RedisServer, calls_per_second: float) -> None:
        self._redis = redis.Redis.from_url(server.url, decode_responses=True)
        self._script = self._redis.register_script(shared.script())
        self._rules = shared.rules(calls_per_second)
        self._key = shared.key("by itself")
        self._redis.delete(self._key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()

    def reserve(self, now_us: int, *, not_refused: int = 0) -> tuple[bool, int, float]:
        """Return if a turn was reserved, its time or when to ask again in µs, and the factor."""
        count, first_us, _, factor, _ = self._run("reserve", not_refused, 1, now_us)
        return bool(count), max(first_us, now_us) if count else first_us, float(factor)

    def reserve_row(self, now_us: int, count: int) -> list[int]:
        """Return the turns that were reserved of `count` wanted ones, in µs."""
        reserved, first_us, _, _, interval_us = self._run("reserve", 0, count, now_us)
        return [max(now_us, first_us + n * interval_us) for n in range(reserved)]

    def throttled(self, now_us: int, *turns_us: int, not_refused: int = 0) -> float:
        turns = " ".join(map(str, turns_us))
        return float(self._run("throttled", not_refused, turns, now_us)[3])

    def stored(self, name: str) -> float:
        return float(str(self._redis.hget(self._key, name)))

    def forget(self, *names: str) -> None:
        self._redis.hdel(self._key, *names)

    @property
    def expires_in_s(self) -> float:
        return float(str(self._redis.pttl(self._key))) / 1000

    def _run(self, *arguments: str | int) -> tuple[int, int, int, str, int]:
        answer: Any = self._script(keys=[self._key], args=[self._rules, *arguments])
        count, first_us, now_us, factor, interval_us = answer
        return count, first_us, now_us, factor, interval_us


START_US = 1_800_000_000 * US_PER_S


@given(
    events=st.lists(
        st.tuples(
            st.integers(0, 4 * US_PER_S),
            st.integers(0, 30),
            st.booleans(),
            st.integers(0, US_PER_S),
        ),
        max_size=60,
    )
)
def test_the_script_computes_the_same_pace_as_python(
    server: RedisServer, events: list[tuple[int, int, bool, int]]
) -> None:
    kept, now_us = Pace(), START_US
    rate_per_s = QUOTA_PER_S * STEADY_SHARE
    with Script(server, QUOTA_PER_S) as script:
        for step_us, not_refused, is_refused, under_way_us in events:
            now_us += step_us
            now_s = now_us / US_PER_S
            for _ in range(not_refused):
                kept = kept.passed()
            if is_refused:
                turn_us = now_us - under_way_us
                kept = kept.throttled(
                    now_s,
                    started_s=turn_us / US_PER_S,
                    interval_s=1 / (rate_per_s * kept.factor(now_s)),
                )
                factor = script.throttled(now_us, turn_us, not_refused=not_refused)
            else:
                _, _, factor = script.reserve(now_us, not_refused=not_refused)
            assert factor == pytest.approx(kept.factor(now_s), abs=1e-6)
            assert script.stored("refused_calls") == kept.refused
            assert script.stored("answered") == kept.answered
            assert script.stored("slowed_to") == pytest.approx(kept.slowed_to, abs=1e-6)
            assert script.stored("wall") == pytest.approx(kept.wall, abs=1e-6)
            assert_equal_trend(script, kept)
            if kept.slowed_at_s > 0:
                assert script.stored("slowed_at") == round(kept.slowed_at_s * US_PER_S)
                paused_until_us = script.stored("paused_until")
                assert paused_until_us == pytest.approx(kept.paused_until_s * US_PER_S, abs=2)


def assert_equal_trend(script: Script, kept: Pace) -> None:
    for name in ("calls", "factors", "squares", "refused", "refused_factors"):
        assert script.stored(name) == pytest.approx(getattr(kept.trend, name), rel=1e-6, abs=1e-6)
    assert script.stored("passed_since") == kept.passed_since
    assert script.stored("random_share") == pytest.approx(kept.random_share, abs=1e-6)
    assert script.stored("allowance") == pytest.approx(kept.allowance, abs=1e-5)
    assert script.stored("stay") == pytest.approx(kept.stay_s, abs=1e-5)


@pytest.mark.parametrize(("at_random", "limit"), [(0.05, 1.0), (0.2, 1.0), (0.02, 0.5), (0.0, 0.5)])
def test_the_script_judges_a_minute_of_refusals_as_python_does(
    server: RedisServer, at_random: float, limit: float
) -> None:
    kept, now_us, refused, judged = Pace(), START_US, 0.0, 0
    rate_per_s, passed = QUOTA_PER_S * STEADY_SHARE, 0
    with Script(server, QUOTA_PER_S) as script:
        while now_us < START_US + 60 * US_PER_S:
            now_s = now_us / US_PER_S
            factor = kept.factor(now_s)
            refused += max(0.0, 1.0 - limit / factor) + at_random
            if refused < 1.0:
                kept, passed = kept.passed(), passed + 1
            else:
                refused -= 1.0
                started_us = now_us - 1000
                interval_s = 1 / (rate_per_s * factor)
                kept = kept.throttled(now_s, started_s=started_us / US_PER_S, interval_s=interval_s)
                script_factor = script.throttled(now_us, started_us, not_refused=passed)
                passed = 0
                assert script_factor == pytest.approx(kept.factor(now_s), abs=1e-4)
                assert script.stored("random_share") == pytest.approx(kept.random_share, abs=1e-4)
                judged += kept.random_share > 0
            now_us += round(US_PER_S / (rate_per_s * factor))
    assert (judged > 0) == (at_random > 0)


def test_state_of_an_older_version_is_taken_over(server: RedisServer) -> None:
    with Script(server, QUOTA_PER_S) as script:
        script.throttled(START_US, START_US - 1000, not_refused=5)
        lowered = script.reserve(START_US)[2]
        new = ("stay", "calls", "factors", "squares", "refused", "refused_factors", "passed_since",
               "random_share", "random_until", "allowance")  # fmt: skip
        script.forget(*new)
        assert script.reserve(START_US)[2] == lowered < 1.0
        script.throttled(START_US + 1000, START_US, not_refused=5)
        assert script.stored("calls") == 6


@given(
    quota_per_s=st.sampled_from([1, 3, 7, 50, 200, 1000]),
    events=st.lists(
        st.tuples(st.integers(0, US_PER_S // 2), st.integers(1, 10), st.integers(0, 2)), max_size=30
    ),
)
def test_the_script_keeps_the_quota_in_every_rolling_second(
    server: RedisServer, quota_per_s: int, events: list[tuple[int, int, int]]
) -> None:
    now_us, turns_us = START_US, [START_US]
    with Script(server, quota_per_s) as script:
        for step_us, wanted, refusals in events:
            now_us += step_us
            for _ in range(wanted):
                is_reserved, at_us, _ = script.reserve(now_us)
                assert now_us <= at_us or not is_reserved
                assert at_us <= now_us + LOOK_AHEAD_S * US_PER_S or not is_reserved
                if is_reserved:
                    turns_us.append(at_us)
            for _ in range(refusals):
                script.throttled(now_us, now_us)
    del turns_us[0]
    assert turns_us == sorted(turns_us)
    assert most_in_a_second([(at_us - START_US) / US_PER_S for at_us in turns_us]) <= quota_per_s


def test_a_late_caller_may_catch_up_only_a_little(server: RedisServer) -> None:
    with Script(server, QUOTA_PER_S) as script:
        script.reserve(START_US)
        later_us = START_US + 60 * US_PER_S
        at_once = [script.reserve(later_us)[1] for _ in range(10)].count(later_us)
    assert at_once == 1 + int(CATCH_UP_S * QUOTA_PER_S * STEADY_SHARE)


def test_beyond_the_look_ahead_nothing_is_reserved(server: RedisServer) -> None:
    with Script(server, 2) as script:
        answers = [script.reserve(START_US) for _ in range(5)]
        assert [is_reserved for is_reserved, _, _ in answers] == [True, True, False, False, False]
        ask_again_us = answers[-1][1]
        assert script.reserve(ask_again_us)[0]
        assert 60 < script.expires_in_s < 600


def test_a_clock_set_back_delays_callers_only_briefly(server: RedisServer) -> None:
    with Script(server, QUOTA_PER_S) as script:
        script.reserve(START_US)
        script.throttled(START_US, START_US)
        hour_before_us = START_US - 3600 * US_PER_S
        is_reserved, at_us, lowered = script.reserve(hour_before_us)
        assert is_reserved
        assert at_us == hour_before_us + US_PER_S, "the second before counts too"
        _, _, later = script.reserve(hour_before_us + 40 * US_PER_S)
        assert lowered < later == 1
