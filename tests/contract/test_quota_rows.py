"""Processes at different distances share one quota in rows of turns, on a clock that a test moves.

The script is the real one on a real Redis; it is told the time. The processes are their stocks of
turns, each with a caller that is always in line, or comes now and then.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from tests.support.redis_server import RedisServer, binaries
from tests.support.rolling_second import most_in_a_second
from worker.quota import shared
from worker.quota.shared import STEADY_SHARE, US_PER_S
from worker.quota.stock import AHEAD_S, LATE_MAX_S, Row, Stock, Turn

QUOTA_PER_S = 200
TICK_S = 0.001
REDIS_BEGAN_S = 1_800_000_000.0
"""What the clock of Redis shows when those of the processes show 0."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(binaries()[0], tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


class Together:
    """Processes that share a quota, one tick after the other."""

    def __init__(self, server: RedisServer, quota_per_s: int = QUOTA_PER_S) -> None:
        self._redis: Any = redis.Redis.from_url(server.url)
        self._redis.flushdb()
        self._script = self._redis.register_script(shared.script())
        self._rules = shared.rules(quota_per_s)
        self.now_s = 0.0
        self.requests = 0

    def reserve(self, count: int) -> Row:
        self.requests += 1
        now_us = round((REDIS_BEGAN_S + self.now_s) * US_PER_S)
        arguments = [self._rules, "reserve", 0, count, now_us]
        got, first, now, _, interval = self._script(keys=[shared.key("app")], args=arguments)
        return Row(got, first / US_PER_S, interval / US_PER_S, now / US_PER_S)

    def run(self, processes: list["Process"], seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            for process in processes:
                process.go_on(self)
            self.now_s += TICK_S

    def close(self) -> None:
        self._redis.close()


@dataclass
class Process:
    """A process, `round_trip_s` away from Redis, whose callers come `every_s`."""

    round_trip_s: float
    every_s: float = 0.0
    stock: Stock = field(default_factory=Stock)
    used_s: list[float] = field(default_factory=list)
    turn: Turn | None = None
    came_s: float | None = None
    next_s: float = 0.0
    asked_s: float | None = None
    row: Row | None = None
    wanted: int = 0

    def go_on(self, together: Together) -> None:
        now_s = together.now_s
        self._hear(together)
        if self.came_s is None and now_s >= self.next_s:
            self.came_s = now_s
            self.stock.caller_came(now_s)
        if self.came_s is None:
            return
        if self.turn is None:
            self.turn = self.stock.pop(now_s)
            self._ask(now_s)
        if self.turn and now_s >= self.turn.due_s:
            self.used_s.append(now_s)
            self.stock.used(now_s)
            self.turn, self.came_s, self.next_s = None, None, now_s + self.every_s

    def _ask(self, now_s: float) -> None:
        wanted = self.stock.wanted(now_s) if self.turn else max(1, self.stock.wanted(now_s))
        if self.asked_s is None and wanted:
            self.asked_s, self.wanted = now_s, wanted

    def _hear(self, together: Together) -> None:
        if self.asked_s is None:
            return
        if self.row is None and together.now_s >= self.asked_s + self.round_trip_s / 2:
            self.row = together.reserve(self.wanted)
        if self.row and together.now_s >= self.asked_s + self.round_trip_s:
            self.stock.note(self.asked_s, together.now_s, self.row.now_s)
            self.stock.add(self.row, together.now_s)
            self.asked_s = self.row = None


@pytest.fixture
def together(server: RedisServer) -> Iterator[Together]:
    opened = Together(server)
    yield opened
    opened.close()


@pytest.mark.parametrize("round_trip_s", [0.0, 0.005, 0.02, 0.05])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_the_whole_quota_is_used_at_any_distance(
    together: Together, count: int, round_trip_s: float
) -> None:
    processes = [Process(round_trip_s) for _ in range(count)]
    together.run(processes, 2.0)
    before, requests = [len(p.used_s) for p in processes], together.requests
    together.run(processes, 4.0)
    used = [len(p.used_s) - n for p, n in zip(processes, before, strict=True)]
    assert sum(used) >= 0.99 * STEADY_SHARE * QUOTA_PER_S * 4.0
    assert max(used) <= 1.2 * min(used)
    assert together.requests - requests <= sum(used) / 3, "several turns in one round trip"
    assert most_in_a_second(sorted(at for p in processes for at in p.used_s)) <= QUOTA_PER_S


def test_a_process_on_another_continent_uses_the_whole_quota(together: Together) -> None:
    process = Process(0.2)
    together.run([process], 3.0)
    before = len(process.used_s)
    together.run([process], 3.0)
    assert len(process.used_s) - before >= 0.97 * STEADY_SHARE * QUOTA_PER_S * 3.0


def test_processes_at_different_distances_get_the_same(together: Together) -> None:
    processes = [Process(0.001), Process(0.02), Process(0.05)]
    together.run(processes, 8.0)
    used = [len(process.used_s) for process in processes]
    assert max(used) <= 1.2 * min(used)
    assert most_in_a_second(sorted(at for p in processes for at in p.used_s)) <= QUOTA_PER_S


def test_one_that_needs_little_takes_little_from_the_others(together: Together) -> None:
    busy, quiet = Process(0.02), Process(0.02, every_s=0.1)
    together.run([busy, quiet], 6.0)
    assert len(quiet.used_s) >= 0.7 * 6.0 / (0.1 + 0.02 + AHEAD_S / 2)
    assert len(busy.used_s) + len(quiet.used_s) >= 0.95 * STEADY_SHARE * QUOTA_PER_S * 6.0


def test_what_a_process_no_longer_needs_is_soon_used_by_others(together: Together) -> None:
    first, second = Process(0.05), Process(0.05)
    together.run([first, second], 3.0)
    before = len(second.used_s)
    together.run([second], 2.0)
    assert len(second.used_s) - before >= 0.9 * STEADY_SHARE * QUOTA_PER_S * 2.0


def test_a_stall_costs_the_turns_that_passed_and_no_burst_follows(together: Together) -> None:
    process = Process(0.02)
    together.run([process], 2.0)
    together.run([], 0.3)
    together.run([process], 2.0)
    assert most_in_a_second(process.used_s) <= QUOTA_PER_S
    last = [at for at in process.used_s if at < 2.0][-1]
    again = [at for at in process.used_s if at >= 2.3][:10]
    assert again[-1] - last >= 0.3
    assert again[-1] - again[0] >= (10 - 1) / QUOTA_PER_S - LATE_MAX_S - TICK_S


def test_a_clock_of_redis_that_is_set_holds_nobody_up(together: Together) -> None:
    for jump_s in (-3600.0, 7200.0):
        process = Process(0.02)
        together.run([process], 2.0)
        process.stock.note(together.now_s - 0.02, together.now_s, REDIS_BEGAN_S + jump_s)
        row = Row(1, REDIS_BEGAN_S + jump_s, 0.005, REDIS_BEGAN_S + jump_s)
        process.stock.clear()
        process.stock.add(row, together.now_s)
        turn = process.stock.pop(together.now_s)
        assert turn is not None
        assert abs(turn.due_s - together.now_s) <= 0.02
