"""The rate that holds: down by a factor at a refusal, up again by a sum."""

from hypothesis import given
from hypothesis import strategies as st

from worker.pace import FACTOR_MIN, PAUSE_MAX_S, SLOW_DOWN_MIN, Pace

INTERVAL_S = 0.005


def refuse(pace: Pace, now_s: float, *, after_s: float = 0.01) -> Pace:
    return pace.throttled(now_s, started_s=now_s - after_s, interval_s=INTERVAL_S)


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
            pace = pace.answered()
        assert FACTOR_MIN <= pace.factor(now_s) <= 1
        assert pace.paused_until_s <= now_s + min(PAUSE_MAX_S, max(0.1, 2 * interval_s))


def test_one_refusal_lowers_the_rate_by_the_least() -> None:
    assert refuse(Pace(), 10.0).factor(10.0) == 1.0 - SLOW_DOWN_MIN


def test_many_refusals_lower_it_by_much_and_pause_for_two_intervals() -> None:
    pace, now_s = Pace(), 10.0
    for _ in range(20):
        now_s += 0.1
        pace = refuse(pace, now_s)
    assert pace.factor(now_s) < 0.1
    assert pace.paused_until_s == now_s + 2 * INTERVAL_S


def test_calls_under_way_when_the_rate_was_lowered_do_not_lower_it_again() -> None:
    pace = refuse(Pace(), 10.0)
    late = refuse(pace, 10.1, after_s=0.2)
    assert late.factor(10.1) == pace.factor(10.1)
    assert late.refused > pace.refused, "but it is remembered that there were more"


def test_many_refused_of_the_calls_under_way_lower_it_further() -> None:
    """With seconds to an answer, the first refusal alone would take minutes to find the rate."""
    first = pace = refuse(Pace(), 10.0)
    for n in range(300):
        pace = refuse(pace, 10.0 + n / 100, after_s=5.0) if n % 2 else pace.answered()
    assert 0.4 < pace.factor(13.0) < 0.8 < first.factor(13.0)


def test_far_below_the_quota_a_refusal_lowers_the_rate_by_more() -> None:
    """There another client is refused as well, because of us."""
    whole = Pace(slowed_to=1.0, slowed_at_s=9.0)
    half = Pace(slowed_to=0.5, slowed_at_s=9.0)
    lost = [1 - refuse(p, 10.0).factor(10.0) / p.factor(10.0) for p in (whole, half)]
    assert lost[1] > 3 * lost[0]


def test_the_rate_comes_back_slowly_at_first_and_then_faster() -> None:
    pace = Pace(slowed_to=0.5, slowed_at_s=0.0)
    first, later = pace.factor(2.0) - 0.5, pace.factor(20.0) - pace.factor(18.0)
    assert 0 < first < 0.02 < later
    assert pace.factor(30.0) == 1.0


def test_the_time_of_a_pause_brings_nothing_back() -> None:
    pace = Pace(slowed_to=0.5, slowed_at_s=0.0, paused_until_s=100.0)
    assert pace.factor(100.0) == 0.5


def test_answers_wipe_out_the_memory_of_refusals() -> None:
    pace = refuse(Pace(), 10.0)
    for _ in range(100):
        pace = pace.answered()
    assert pace.refused < 0.003
    assert pace.answered() is pace


def test_without_a_quota_a_refusal_still_pauses() -> None:
    assert Pace().throttled(10.0, started_s=9.0, interval_s=0.0).paused_until_s == 10.1
