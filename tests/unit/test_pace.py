"""The rate in force: a refusal lowers it; time restores it, or proof that slowing did not help."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rules.pace import (
    ALLOWANCE_MAX,
    FACTOR_MIN,
    ONE_CALL_MAX,
    PAUSE_MAX_S,
    RANDOM_S,
    STAY_MAX_S,
    Pace,
    Trend,
)

RATE_PER_S = 200.0


def refuse(pace: Pace, now_s: float, *, after_s: float = 0.01) -> Pace:
    interval_s = 1 / (RATE_PER_S * pace.factor(now_s))
    return pace.throttled(now_s, started_s=now_s - after_s, interval_s=interval_s)


def pass_calls(pace: Pace, count: int) -> Pace:
    for _ in range(count):
        pace = pace.passed()
    return pace


@given(st.lists(st.integers(0, 20), max_size=10))
def test_calls_that_pass_may_be_counted_together(counts: list[int]) -> None:
    together = singly = Pace()
    for number, count in enumerate(counts):
        together, singly = refuse(together, number), refuse(singly, number)
        if count:
            together = together.passed(count)
        singly = pass_calls(singly, count)
        assert together == singly


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=50), st.floats(0, 10))
def test_the_pace_always_stays_within_its_bounds(
    events: list[tuple[float, bool]], interval_s: float
) -> None:
    pace, now_s = Pace(), 0.0
    for step_s, throttled in events:
        now_s += step_s
        before = pace.factor(now_s)
        if throttled:
            pace = pace.throttled(now_s, started_s=now_s, interval_s=interval_s)
            assert pace.factor(now_s) <= before
        else:
            pace = pace.passed()
        assert FACTOR_MIN <= pace.factor(now_s) <= 1
        assert pace.paused_until_s <= now_s + min(PAUSE_MAX_S, max(0.1, 2 * interval_s))


def test_one_refusal_lowers_the_rate_by_one_call_per_second() -> None:
    pace = refuse(pass_calls(Pace(), 400), 10.0)
    assert 1.0 - 1 / RATE_PER_S <= pace.factor(10.0) < 1.0 - 0.99 / RATE_PER_S
    assert pace.paused_until_s < 10.0 + 0.1 / RATE_PER_S


def test_one_refusal_takes_only_a_small_part_of_small_quotas() -> None:
    pace = Pace().throttled(10.0, started_s=9.0, interval_s=1.0)
    assert pace.factor(10.0) >= 1.0 - ONE_CALL_MAX


def test_a_second_of_refusals_pauses_calls_but_rate_recovers_soon() -> None:
    """That a service refuses every call for a second does not mean that the rate is too high."""
    pace, now_s = Pace(), 10.0
    for _ in range(50):
        now_s += 0.02
        pace = refuse(pace, now_s)
        assert pace.paused_until_s >= now_s + 2 / RATE_PER_S
    lowest = pace.factor(now_s)
    assert 0.5 < lowest < 0.9
    assert pace.wall == 1.0
    assert pace.factor(now_s + 5.0) > 0.8 + 0.2 * lowest


def test_long_refusal_of_all_calls_lowers_rate_and_wall() -> None:
    """A service that counts refused calls accepts none until the rate falls."""
    pace, now_s = Pace(), 10.0
    for _ in range(100):
        now_s += 0.05
        pace = refuse(pace, now_s)
    assert pace.factor(now_s) < 0.05
    assert pace.wall < 0.2


def call_for(pace: Pace, from_s: float, seconds: float, share: Callable[[float], float]) -> Pace:
    """Call for some seconds; a share of the calls that depends on the factor is refused, evenly."""
    now_s, refused = from_s, 0.0
    while now_s < from_s + seconds:
        factor = pace.factor(now_s)
        refused += share(factor)
        if refused >= 1.0:
            refused -= 1.0
            pace = refuse(pace, now_s)
        else:
            pace = pace.passed()
        now_s += 1 / (RATE_PER_S * factor)
    return pace


def over(limit: float, at_random: float = 0.0) -> Callable[[float], float]:
    """Return the share refused by a service that accepts so much of the quota."""
    return lambda factor: max(0.0, 1.0 - limit / factor) + at_random


def test_partial_refusal_lowers_the_wall_to_the_refused_rate() -> None:
    pace, now_s = call_for(Pace(), 10.0, 20.0, over(0.5)), 30.0
    assert pace.factor(now_s) < pace.wall < pace.factor(now_s) + 0.1 < 0.6


def test_late_refusals_do_not_lower_the_rate_below_what_passes() -> None:
    """Replies take 5 s; a third of the calls in flight are refused and two thirds pass."""
    pace = refuse(Pace(), 10.0)
    for n in range(300):
        pace = pass_calls(refuse(pace, 10.0 + n / 100, after_s=5.0), 2)
    assert 0.6 < pace.factor(13.0) < 0.75


def test_a_refusal_far_below_the_quota_lowers_the_rate_more() -> None:
    """At that rate our calls cause refusals for another client too."""
    whole = Pace(slowed_to=1.0, slowed_at_s=9.0, answered=100)
    half = Pace(slowed_to=0.5, wall=0.5, slowed_at_s=9.0, answered=100)
    lost = [1 - refuse(p, 10.0).factor(10.0) / p.factor(10.0) for p in (whole, half)]
    assert lost[1] > 3 * lost[0]


def test_the_rate_recovers_fast_below_the_wall_and_slowly_above() -> None:
    pace = Pace(slowed_to=0.4, wall=0.5, slowed_at_s=0.0)
    assert 0.46 < pace.factor(3.0) < 0.5 < pace.factor(10.0) < 0.6
    assert pace.factor(30.0) == 1.0


def test_the_rate_does_not_recover_during_a_pause() -> None:
    pace = Pace(slowed_to=0.5, slowed_at_s=0.0, paused_until_s=100.0)
    assert pace.factor(100.0) == 0.5


def test_a_refusal_pauses_calls_without_a_quota() -> None:
    assert Pace().throttled(10.0, started_s=9.0, interval_s=0.0).paused_until_s == 10.1


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.1, 0.2])
def test_refusals_at_random_leave_the_full_rate(share: float) -> None:
    pace = call_for(Pace(), 10.0, 20.0, lambda _: share)
    assert pace.random_share == pytest.approx(share, rel=0.3)
    assert pace.factor(30.0) > 0.95


def test_refusals_below_a_limit_do_not_lower_the_rate_further() -> None:
    pace = call_for(Pace(), 10.0, 60.0, over(0.5, at_random=0.02))
    assert 0.4 < pace.factor(70.0) < 0.6
    assert 0.0 < pace.random_share < 0.1


@pytest.mark.parametrize("limit", [0.1, 0.5, 0.9])
def test_refusals_over_a_limit_are_never_taken_for_chance(limit: float) -> None:
    pace = Pace()
    for second in range(60):
        pace = call_for(pace, 10.0 + second, 1.0, over(limit))
        assert pace.random_share == 0.0
    assert pace.factor(70.0) < limit + 0.1


def test_a_limit_that_replaces_random_refusals_is_found_within_seconds() -> None:
    pace = call_for(Pace(), 10.0, 20.0, lambda _: 0.02)
    pace = call_for(pace, 30.0, 10.0, over(0.5))
    assert 0.4 < pace.factor(40.0) < 0.6


def test_random_refusals_are_proved_again_after_a_minute() -> None:
    pace = call_for(Pace(), 10.0, 20.0, lambda _: 0.05)
    proved = call_for(pace, 30.0, 1.5 * RANDOM_S, lambda _: 0.05)
    assert proved.random_share == pytest.approx(0.05, rel=0.3)
    assert proved.random_until_s > pace.random_until_s + 0.5 * RANDOM_S


def test_without_new_proof_random_refusals_lower_the_rate_again() -> None:
    pace = Pace(random_share=0.02, random_until_s=100.0, allowance=3.0)
    assert refuse(pace, 101.0).factor(101.0) < 1.0


def test_more_refusals_than_come_at_random_lower_the_rate() -> None:
    pace = call_for(Pace(), 10.0, 20.0, lambda _: 0.02)
    whole = pace.factor(30.0)
    for n in range(int(ALLOWANCE_MAX) + 2):
        pace = refuse(pace, 30.0 + n / 100)
    assert pace.factor(30.2) < whole


def test_no_refusal_pauses_calls_while_it_is_expected() -> None:
    pace = Pace(random_share=0.02, random_until_s=100.0, allowance=3.0)
    expected = refuse(pace, 10.0)
    assert expected.paused_until_s == pace.paused_until_s
    assert expected.factor(10.0) == 1.0


def test_more_refusals_at_a_lower_rate_prove_nothing() -> None:
    """Another client came: what was seen before it is forgotten, and the rate is not raised."""
    trend = Trend()
    for factor, calls, refusals in ((1.0, 100, 4), (0.85, 10, 30)):
        for _ in range(refusals):
            trend = trend.with_refusal(factor, calls=calls, kept=2500.0)
    pace = refuse(Pace(slowed_to=0.85, wall=0.85, slowed_at_s=9.9, trend=trend), 10.0)
    assert pace.trend == Trend()
    assert pace.random_share == 0.0
    assert pace.factor(10.0) < 0.85


def test_rate_waits_at_the_wall_longer_the_longer_all_calls_were_refused() -> None:
    """A service that counts refused calls refuses all of them beyond its limit."""
    waits = []
    for refusals in (1, 15, 50, 200):
        pace = pass_calls(Pace(), 100)
        for n in range(refusals):
            pace = refuse(pace, 10.0 + n / 50)
        pace = pace.passed()
        waits.append(pace.stay_s)
        assert (pace.wall < 1.0) == (refusals > 1)
    assert waits[0] == 0.0 < waits[1] < waits[2] <= STAY_MAX_S
    pace = Pace(slowed_to=0.5, wall=0.5, slowed_at_s=0.0, stay_s=20.0)
    assert pace.factor(20.0) == 0.5 < pace.factor(25.0)


def test_a_straggler_does_not_end_the_wait_at_the_wall() -> None:
    pace = Pace(slowed_to=0.8, wall=0.9, slowed_at_s=9.8, round_at_s=9.0, answered=100, stay_s=20.0)
    assert refuse(pace, 10.0).stay_s == 20.0
    assert refuse(pace, 12.0).stay_s == 0.0


def test_mostly_refused_late_replies_make_the_rate_wait_at_the_wall() -> None:
    """A few calls pass while the window of the service drains."""
    pace = pass_calls(refuse(Pace(), 10.0), 10)
    for n in range(100):
        pace = refuse(pace, 10.0 + n / 200, after_s=1.0)
    assert 0.0 < pace.stay_s <= STAY_MAX_S
    assert pace.wall < 1.0


def test_an_outage_leaves_no_wall_that_is_waited_at() -> None:
    pace = pass_calls(Pace(), 100)
    for n in range(400):
        pace = refuse(pace, 10.0 + n / 50)
    assert pace.passed().stay_s == 0.0


def test_late_refusals_of_all_calls_lower_the_rate_only_a_little() -> None:
    """Replies take 2 s, and the service counts refused calls: a little less may be enough."""
    pace = refuse(Pace(), 10.0)
    for n in range(300):
        pace = refuse(pace, 10.0 + n / 200, after_s=2.0)
    assert 0.85 < pace.factor(12.0) < 0.95


@given(st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 1000)), min_size=1, max_size=30))
def test_a_trend_of_any_calls_has_a_slope_and_a_share(calls: list[tuple[float, int]]) -> None:
    trend = Trend()
    for factor, count in calls:
        trend = trend.with_refusal(factor, calls=count, kept=500.0)
    slope, error = trend.slope()
    assert abs(slope) < float("inf")
    assert 0.0 <= error < float("inf")
    assert 0.0 < trend.share <= 1.0
    assert 0.0 < trend.highest <= 1.0
