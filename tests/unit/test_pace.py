"""The rate that holds: a refusal takes one call of a second's back, time brings it back."""

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
def test_the_pace_stays_within_its_bounds_whatever_happens(
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


def test_a_single_refusal_takes_one_call_of_a_second_back_and_hardly_pauses() -> None:
    pace = refuse(pass_calls(Pace(), 400), 10.0)
    assert 1.0 - 1 / RATE_PER_S <= pace.factor(10.0) < 1.0 - 0.99 / RATE_PER_S
    assert pace.paused_until_s < 10.0 + 0.1 / RATE_PER_S


def test_of_a_small_quota_a_refusal_takes_no_large_part() -> None:
    pace = Pace().throttled(10.0, started_s=9.0, interval_s=1.0)
    assert pace.factor(10.0) >= 1.0 - ONE_CALL_MAX


def test_where_all_are_refused_calls_pause_for_two_intervals_and_the_rate_is_soon_back() -> None:
    """A service that refuses all for a second says nothing of the rate."""
    pace, now_s = Pace(), 10.0
    for _ in range(50):
        now_s += 0.02
        pace = refuse(pace, now_s)
        assert pace.paused_until_s >= now_s + 2 / RATE_PER_S
    lowest = pace.factor(now_s)
    assert 0.5 < lowest < 0.9
    assert pace.wall == 1.0
    assert pace.factor(now_s + 5.0) > 0.8 + 0.2 * lowest


def test_where_all_are_refused_for_long_the_rate_falls_and_the_wall_with_it() -> None:
    """A service that counts what it refuses lets nobody through until it is called less."""
    pace, now_s = Pace(), 10.0
    for _ in range(100):
        now_s += 0.05
        pace = refuse(pace, now_s)
    assert pace.factor(now_s) < 0.05
    assert pace.wall < 0.2


def test_where_some_pass_the_wall_comes_down_to_where_calls_are_refused() -> None:
    pace, now_s = Pace(), 10.0
    for _ in range(150):
        now_s += 0.05
        pace = refuse(pass_calls(pace, 9), now_s)
    assert pace.factor(now_s) < pace.wall < pace.factor(now_s) + 0.1 < 0.6


def test_no_less_than_what_passes_is_tried_again_while_old_refusals_come_in() -> None:
    """With seconds to an answer a third of the calls under way is refused: two thirds pass."""
    pace = refuse(Pace(), 10.0)
    for n in range(300):
        pace = pass_calls(refuse(pace, 10.0 + n / 100, after_s=5.0), 2)
    assert 0.6 < pace.factor(13.0) < 0.75


def test_far_below_the_quota_a_refusal_lowers_the_rate_by_more() -> None:
    """There another client is refused as well, because of us."""
    whole = Pace(slowed_to=1.0, slowed_at_s=9.0, answered=100)
    half = Pace(slowed_to=0.5, wall=0.5, slowed_at_s=9.0, answered=100)
    lost = [1 - refuse(p, 10.0).factor(10.0) / p.factor(10.0) for p in (whole, half)]
    assert lost[1] > 3 * lost[0]


def test_the_rate_comes_back_to_the_wall_fast_and_beyond_it_late() -> None:
    pace = Pace(slowed_to=0.4, wall=0.5, slowed_at_s=0.0)
    assert 0.46 < pace.factor(3.0) < 0.5 < pace.factor(10.0) < 0.6
    assert pace.factor(30.0) == 1.0


def test_the_time_of_a_pause_brings_nothing_back() -> None:
    pace = Pace(slowed_to=0.5, slowed_at_s=0.0, paused_until_s=100.0)
    assert pace.factor(100.0) == 0.5


def test_without_a_quota_a_refusal_still_pauses() -> None:
    assert Pace().throttled(10.0, started_s=9.0, interval_s=0.0).paused_until_s == 10.1
