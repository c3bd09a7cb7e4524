"""The rate in force: a refusal lowers it by one call per second, time restores it."""

from hypothesis import given
from hypothesis import strategies as st

from worker.rules.pace import FACTOR_MIN, ONE_CALL_MAX, PAUSE_MAX_S, Pace

RATE_PER_S = 200.0


def refuse(pace: Pace, now_s: float, *, after_s: float = 0.01) -> Pace:
    interval_s = 1 / (RATE_PER_S * pace.factor(now_s))
    return pace.throttled(now_s, started_s=now_s - after_s, interval_s=interval_s)


def pass_calls(pace: Pace, count: int) -> Pace:
    for _ in range(count):
        pace = pace.passed()
    return pace


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


def test_partial_refusal_lowers_the_wall_to_the_refused_rate() -> None:
    pace, now_s = Pace(), 10.0
    for _ in range(150):
        now_s += 0.05
        pace = refuse(pass_calls(pace, 9), now_s)
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
