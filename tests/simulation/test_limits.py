"""Slots, turns and the quota on a virtual clock."""

import asyncio
from collections.abc import Coroutine
from math import floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.carrying import carry
from tests.support.memory_queue import MemoryQueue
from tests.support.rolling_second import most_in_a_second
from tests.support.virtual_clock import DeadlockError, VirtualLoop
from worker.limits import Limits
from worker.quota.local import LocalQuota, bucket_and_rate
from worker.rules.breaker import Breaker
from worker.rules.counts import Counters
from worker.rules.outcome import Already, Imported
from worker.rules.pace import PAUSE_WITHOUT_RATE_S
from worker.rules.retry import RetryPolicy
from worker.rules.topic.topic import RecordRules, to_topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Reply


def play(work: Coroutine[Any, Any, None], loop: VirtualLoop) -> None:
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


def imported(body: bytes) -> Reply:
    topic_id = body.split(b'"TopicId":"')[1].split(b'"')[0].decode()
    return Reply(status=200, code=0, topic_id=topic_id, action_status="OK")


@given(st.floats(0.1, 100_000))
def test_the_steady_rate_stays_a_little_below_the_quota(quota_per_s: float) -> None:
    bucket, rate_per_s = bucket_and_rate(quota_per_s)
    whole_per_s = floor(quota_per_s) or quota_per_s
    assert bucket >= 1
    assert 0.98 * whole_per_s <= rate_per_s < whole_per_s


@given(
    st.sampled_from([0.5, 1, 2, 7, 16.7, 50, 200]),
    st.lists(st.tuples(st.integers(1, 300), st.floats(0, 3)), min_size=1, max_size=10),
)
def test_no_rolling_second_has_more_turns_than_the_quota_whenever_they_are_asked_for(
    quota_per_s: float, asked: list[tuple[int, float]]
) -> None:
    loop = VirtualLoop()
    starts: list[float] = []

    async def work() -> None:
        quota = LocalQuota(quota_per_s, loop.time)
        for count, rest_s in asked:
            starts.extend([await quota.acquire() for _ in range(count)])
            await asyncio.sleep(rest_s)

    play(work(), loop)
    assert most_in_a_second(starts) <= max(1, floor(quota_per_s))


@pytest.mark.parametrize("late_s", [0.001, 0.005, 0.01])
def test_turns_that_are_taken_late_are_caught_up(late_s: float) -> None:
    loop = VirtualLoop()
    starts: list[float] = []

    async def work() -> None:
        quota = LocalQuota(200, loop.time)
        for number in range(2000):
            starts.append(await quota.acquire())
            if number % 10 == 0:
                await asyncio.sleep(late_s)

    play(work(), loop)
    assert len(starts) >= 0.98 * 200 * (starts[-1] - starts[0])
    assert most_in_a_second(starts) <= 200


def test_a_turn_that_is_asked_for_in_between_comes_at_its_time() -> None:
    loop = VirtualLoop()

    async def work() -> None:
        quota = LocalQuota(1, loop.time)
        for _ in range(10):
            await quota.acquire()
            await asyncio.sleep(0.6)

    play(work(), loop)
    assert loop.time() == pytest.approx(9 / 0.98 + 0.6, rel=0.02)


@pytest.mark.parametrize("quota_per_s", [1, 2, 6.7, 7, 16.7, 20, 49, 50, 66.7, 200, 1000])
@pytest.mark.parametrize("idle_s", [0.0, 0.3, 5.0])
def test_every_rolling_second_uses_the_quota_without_exceeding_it(
    quota_per_s: float, idle_s: float
) -> None:
    loop = VirtualLoop()
    starts: list[float] = []

    async def work() -> None:
        limits = Limits(LocalQuota(quota_per_s, loop.time), 1000, loop.time, Breaker())
        for _ in range(3):
            for _ in range(4 * floor(quota_per_s)):
                turn = await limits.turn()
                limits.call_started(turn)
                starts.append(turn.started_s)
                limits.call_ended(turn, loop.time(), answered=True)
            await asyncio.sleep(idle_s)

    play(work(), loop)
    assert most_in_a_second(starts) <= quota_per_s
    busy_s = starts[-1] - 2 * idle_s
    assert len(starts) >= 0.9 * floor(quota_per_s) * busy_s


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.integers(0, 5), st.floats(0, 20)), min_size=1, max_size=20
    )
)
def test_rate_changes_never_allow_a_burst(
    steps: list[tuple[int, int, float]],
) -> None:
    loop = VirtualLoop()
    starts: list[float] = []

    async def work() -> None:
        quota = LocalQuota(100, loop.time)
        for count, refusals, rest_s in steps:
            starts.extend([await quota.acquire() for _ in range(count)])
            for _ in range(refusals):
                await asyncio.sleep(0.001)
                quota.throttled(loop.time())
            await asyncio.sleep(rest_s)

    play(work(), loop)
    assert most_in_a_second(starts) <= 100


class StallingAtFirst:
    """A service that accepts all calls, and answers none in the first five seconds."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.starts: list[float] = []

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        self.starts.append(self._loop.time())
        await asyncio.sleep(max(0.01, 5.0 - self._loop.time()))
        return imported(body)


def test_calls_do_not_burst_after_all_slots_stalled() -> None:
    loop, queue = VirtualLoop(), MemoryQueue()
    for number in range(500):
        record = {"GroupId": "@TGS#_a", "TopicName": f"topic {number}"}
        queue.put(to_topic(record, RecordRules()))
    chat = StallingAtFirst(loop)
    carry(queue, chat, loop=loop, slots=10, quota_per_s=100)
    assert not queue.unsettled
    assert most_in_a_second(chat.starts) <= 100


def test_a_new_process_waits_out_the_second_of_the_last_one() -> None:
    loop = VirtualLoop()

    async def work() -> None:
        quota = LocalQuota(100, loop.time, closed_for_s=1.0)
        await quota.acquire()
        assert loop.time() >= 1.0

    play(work(), loop)


def test_a_refusal_extends_the_pause_of_a_waiting_call() -> None:
    loop = VirtualLoop()

    async def work() -> None:
        quota = LocalQuota(0, loop.time)
        quota.throttled(await quota.acquire())
        waiting = asyncio.ensure_future(quota.acquire())
        await asyncio.sleep(PAUSE_WITHOUT_RATE_S / 2)
        quota.throttled(prolonged_at_s := loop.time())
        assert await waiting >= prolonged_at_s + PAUSE_WITHOUT_RATE_S

    play(work(), loop)


class FailingOnceForHalf:
    """A service that fails the first call of every other record and accepts all the rest."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._seen: set[bytes] = set()
        self.most_in_flight = self._in_flight = 0

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        await asyncio.sleep(0.05)
        self._in_flight -= 1
        is_first = body not in self._seen
        self._seen.add(body)
        if is_first and len(self._seen) % 2:
            return Reply(status=200, code=80005)
        return imported(body)


def test_a_record_waiting_for_its_retry_holds_no_slot() -> None:
    loop = VirtualLoop()
    queue = MemoryQueue()
    for number in range(100):
        record = {"GroupId": "@TGS#_a", "TopicName": f"topic {number}"}
        queue.put(to_topic(record, RecordRules()))
    chat = FailingOnceForHalf(loop)
    retry = RetryPolicy(base_delay_s=100.0, max_delay_s=100.0)

    carry(queue, chat, loop=loop, slots=2, retry=retry, chance=lambda: 0.999)
    assert not queue.unsettled
    assert chat.most_in_flight == 2
    assert loop.time() < 110, "all waited for their retry at the same time"


class RefusingFirst:
    """A service that replies with the given codes, last one first, and then accepts."""

    def __init__(self, codes: list[int]) -> None:
        self._codes = codes

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        if self._codes:
            return Reply(status=200, code=self._codes.pop())
        return imported(body)


def test_throttled_and_renewed_calls_use_up_no_attempt() -> None:
    queue = MemoryQueue()
    queue.put(to_topic({"GroupId": "@TGS#_a", "TopicName": "b"}, RecordRules()))
    retry = RetryPolicy(max_attempts=1, patience_s=0.0)
    counters = Counters()

    chat = RefusingFirst([60007, 60011, 70001, 60007, 70052, 10006] + [60007] * 10)
    carry(queue, chat, slots=1, retry=retry, counters=counters)
    (outcome,) = queue.outcomes.values()
    assert isinstance(outcome, Imported)
    assert outcome.already is Already.NO
    assert (counters.calls, counters.throttled, counters.renewals) == (17, 14, 2)


def test_the_virtual_clock_detects_a_deadlock() -> None:
    loop = VirtualLoop()
    with pytest.raises(DeadlockError):
        loop.run_until_complete(loop.create_future())
    loop.close()
