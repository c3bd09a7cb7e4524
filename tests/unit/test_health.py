"""Whose fault a failure is, and when the run stops."""

from hypothesis import given
from hypothesis import strategies as st

from worker.health import (
    GATEWAY_REFUSALS_MAX,
    OUTAGE_RECORDS,
    RENEWALS_MAX,
    Failures,
    Health,
)
from worker.pace import FACTOR_MIN, PAUSE_MAX_S, Pace
from worker.retry import RetryPolicy, backoff_s

POLICY = RetryPolicy(max_attempts=3, base_delay_s=0.5, max_delay_s=30, patience_s=600)


def fail(
    health: Health, record: int, times: int, *, code: int | None = 10002, at_s: float = 0.0
) -> Failures:
    failures: Failures | None = None
    for _ in range(times):
        failures = health.failed(record, failures, at_s, code=code, status=200)
    assert failures is not None
    return failures


def test_a_record_that_fails_while_another_is_answered_is_exhausted() -> None:
    health = Health(POLICY)
    first = health.failed(1, None, 0.0, code=10002, status=200)
    health.imported()
    second = health.failed(1, first, 1.0, code=10002, status=200)
    assert not health.is_exhausted(second, 1.0, fresh_waiting=True)
    third = health.failed(1, second, 2.0, code=10002, status=200)
    assert health.is_exhausted(third, 2.0, fresh_waiting=True)


def test_in_an_outage_nobody_s_attempts_run_out() -> None:
    health = Health(POLICY)
    failures = [fail(health, record, 50, code=None, at_s=1e6) for record in range(100)]
    assert health.looks_like_an_outage
    assert not any(health.is_exhausted(f, 1e9, fresh_waiting=True) for f in failures)


def test_failures_of_an_outage_are_forgiven_when_it_ends() -> None:
    health = Health(POLICY)
    failures = [fail(health, record, 50) for record in range(OUTAGE_RECORDS)]
    health.imported()
    again = health.failed(0, failures[0], 100.0, code=10002, status=200)
    assert again.count == 1
    assert not health.is_exhausted(again, 100.0, fresh_waiting=False)


def test_a_failure_from_before_the_outage_does_not_condemn_while_it_lasts() -> None:
    health = Health(POLICY)
    early = health.failed(0, None, 0.0, code=10002, status=200)
    health.imported()
    for record in range(1, OUTAGE_RECORDS + 1):
        fail(health, record, 1)
    early = health.failed(0, early, 1.0, code=10002, status=200)
    early = health.failed(0, early, 2.0, code=10002, status=200)
    assert not health.is_exhausted(early, 2.0, fresh_waiting=True)
    assert health.is_exhausted(early, 2.0, fresh_waiting=False), "nobody is left to ask with"


def test_a_record_alone_is_given_patience_if_the_service_itself_refuses_it() -> None:
    health = Health(POLICY)
    refused = fail(health, 1, 5)
    assert not health.is_exhausted(refused, 599.0, fresh_waiting=False)
    assert health.is_exhausted(refused, 600.0, fresh_waiting=False)
    cut = fail(Health(POLICY), 1, 5, code=None)
    assert not health.is_exhausted(cut, 1e9, fresh_waiting=False)


def test_an_outage_may_last_longer_than_the_patience() -> None:
    health = Health(POLICY)
    health.imported()
    failures = [fail(health, record, 50) for record in range(OUTAGE_RECORDS)]
    for fresh_waiting in (True, False):
        assert not any(
            health.is_exhausted(f, 1e9, fresh_waiting=fresh_waiting) for f in failures
        ), "no answer since their first failure"


def test_a_line_that_is_dead_says_nothing_about_a_record() -> None:
    health = Health(POLICY)
    failures: Failures | None = None
    for _ in range(50):
        failures = health.failed(1, failures, 0.0, code=None, reached=False)
        health.imported()
    assert failures is not None
    assert (failures.tries, failures.count) == (50, 0)
    assert not health.is_exhausted(failures, 1e9, fresh_waiting=False)


def test_the_same_rejection_many_times_over_two_communities_halts() -> None:
    health = Health(POLICY, same_rejection=5)
    assert [health.rejected(10004, "a") for _ in range(9)] == [None] * 9, "one community"
    halt = health.rejected(10004, "b")
    assert halt is not None
    assert "10004" in halt.message


def test_a_success_or_another_code_begins_the_count_anew() -> None:
    health = Health(POLICY, same_rejection=3)
    for code in (10004, 10004, 10010, 10004, 10004):
        assert health.rejected(code, f"community of {code}") is None
    health.imported()
    assert health.rejected(10004, "b") is None


def test_an_outage_of_many_records_is_seen_once_and_stays_bounded() -> None:
    health = Health(POLICY)
    for record in range(1000):
        health.failed(record, None, 0.0, code=10002)
    assert repr(health).count(f"failing={OUTAGE_RECORDS}") == 1


def test_many_rejections_with_the_check_off_never_halt() -> None:
    health = Health(POLICY, same_rejection=0)
    assert not any(health.rejected(10004, f"g{n % 5}") for n in range(5000))


def test_records_that_run_out_of_attempts_with_one_code_halt_too_and_are_no_answer() -> None:
    health = Health(POLICY, same_rejection=2)
    assert health.exhausted(99999, "a") is None
    assert health.exhausted(99999, "b") is not None


def test_renewals_without_success_halt_and_with_success_go_on() -> None:
    health = Health(POLICY)
    assert [health.renewal(70001, "", 0.0, once=False) for _ in range(RENEWALS_MAX)] == (
        [None] * RENEWALS_MAX
    )
    assert health.renewal(70001, "expired", 1.0, once=False) is not None
    assert health.renewal(70001, "", 100.0, once=False) is None, "a minute later"
    health.imported()
    assert health.renewal(70003, "", 100.0, once=True) is None
    assert health.renewal(70003, "", 100.0, once=True) is not None


def test_a_wrong_address_halts_after_many_answers_that_are_not_the_service_s() -> None:
    health = Health(POLICY)
    for record in range(GATEWAY_REFUSALS_MAX - 1):
        health.failed(record, None, 0.0, code=None, status=404)
    assert health.gateway_halt("HTTP 404") is None
    health.failed(99, None, 0.0, code=None, status=404)
    assert health.gateway_halt("HTTP 404") is not None
    health.failed(99, None, 0.0, code=10002, status=200)
    assert health.gateway_halt("HTTP 404") is None


def test_a_throttle_that_waiting_should_have_ended_halts_the_second_time() -> None:
    health = Health(POLICY)
    assert health.throttle_halt(70050, "too many") is None
    assert health.throttle_halt(70050, "too many") is not None
    health.imported()
    assert health.throttle_halt(None, "too many") is None


def test_the_state_can_be_read_off() -> None:
    health = Health(POLICY)
    health.imported()
    fail(health, 1, 1)
    assert repr(health) == "<Health answered=1 failing=1 outages=0 rejections=0>"


@given(st.integers(1, 10_000), st.integers(0, 999))
def test_back_off_grows_to_its_ceiling_and_never_beyond(failures: int, thousandths: int) -> None:
    chance = thousandths / 1000
    wait_s = backoff_s(POLICY, failures, chance)
    assert 0 <= wait_s <= POLICY.max_delay_s
    assert wait_s <= chance * POLICY.base_delay_s * 2 ** min(failures - 1, 60)


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=50))
def test_the_pace_stays_within_its_bounds_whatever_happens(
    events: list[tuple[float, bool]],
) -> None:
    pace, now_s = Pace(), 0.0
    for step_s, throttled in events:
        now_s += step_s
        pace = (
            pace.throttled(now_s, started_s=now_s) if throttled else pace.answered(started_s=now_s)
        )
        assert FACTOR_MIN <= pace.factor(now_s) <= 1
        assert pace.paused_until_s <= now_s + PAUSE_MAX_S


def test_calls_under_way_when_a_pause_begins_do_not_slow_down_further() -> None:
    pace = Pace().throttled(10.0, started_s=9.5)
    late = pace.throttled(10.1, started_s=9.9)
    assert (late.streak, late.factor(10.1)) == (pace.streak, pace.factor(10.1))
    assert pace.answered(started_s=9.9).streak == 1
    assert pace.answered(started_s=11.0).streak == 0


def test_throttles_on_each_other_s_heels_pause_longer_each_time() -> None:
    pace, pauses, now_s = Pace(), [], 0.0
    for _ in range(6):
        now_s += 100.0
        pace = pace.throttled(now_s, started_s=now_s)
        pauses.append(pace.paused_until_s - now_s)
    assert pauses == sorted(pauses)
    assert pauses[-1] > 2


def test_the_rate_comes_back_after_a_throttle() -> None:
    pace = Pace().throttled(0.0, started_s=0.0, least_pause_s=60.0)
    assert pace.paused_until_s == 60.0
    assert pace.factor(0.0) < 1 == pace.factor(120.0)
