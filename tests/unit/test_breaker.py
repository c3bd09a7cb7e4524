"""When calls stop, how the service is asked whether it is back, and when they flow again."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from worker.rules.breaker import (
    OUTAGE_RECORDS,
    PROBE_PATIENCE_S,
    PROBE_PAUSES_S,
    REJECTED_PROBE_PAUSE_S,
    SILENCE_AT_FIRST_S,
    SILENCE_MIN_S,
    Breaker,
)


def opened(at_s: float = 0.0) -> Breaker:
    breaker = Breaker()
    for record in range(OUTAGE_RECORDS):
        breaker.failed(record, at_s)
    assert breaker.is_outage
    return breaker


def probe(breaker: Breaker, now_s: float, *, lasts_s: float = 0.1) -> float:
    """Wait for the next probe and let it fail; when it began."""
    now_s += breaker.wait_s(now_s)
    breaker.started(now_s)
    breaker.ended(now_s, now_s + lasts_s, answered=True)
    breaker.failed(1, now_s + lasts_s)
    return now_s


def look_until(breaker: Breaker, from_s: float, to_s: float) -> None:
    """Look ten times a second, as those do who wait for a turn."""
    for tenth in range(round((to_s - from_s) * 10) + 1):
        breaker.wait_s(from_s + tenth / 10)


def test_ten_distinct_records_failing_in_a_row_open_it() -> None:
    breaker = Breaker()
    for record in range(OUTAGE_RECORDS - 1):
        for _ in range(20):
            breaker.failed(record, 0.0)
    assert not breaker.is_open, "nine records, however often"
    breaker.failed(99, 0.0)
    assert breaker.is_outage


def test_a_success_between_begins_the_count_anew() -> None:
    breaker = Breaker()
    for record in range(100):
        breaker.failed(record, 0.0)
        if record % 5 == 0:
            assert not breaker.succeeded(0.0, started_s=0.0), "there was no outage"
    assert not breaker.is_open


def test_a_success_closes_it_at_once_and_says_that_an_outage_ended() -> None:
    breaker = opened()
    assert breaker.wait_s(0.0) > 0
    assert breaker.succeeded(0.5, started_s=0.3)
    assert breaker.wait_s(0.5) == 0
    assert not breaker.is_open
    assert breaker.closed_at_s == 0.5


def test_a_success_of_a_call_from_before_the_outage_says_nothing_of_now() -> None:
    breaker = opened(at_s=10.0)
    assert not breaker.succeeded(10.1, started_s=9.9)
    assert breaker.is_outage


def test_one_record_fails_beside_others() -> None:
    breaker = Breaker()
    breaker.failed(1, 0.0)
    assert not breaker.fails_beside(1)
    assert breaker.fails_beside(2)


def test_a_standstill_of_the_process_itself_is_no_silence() -> None:
    breaker = Breaker()
    breaker.started(0.0)
    breaker.ended(0.0, 0.1, answered=True)
    for _ in range(OUTAGE_RECORDS):
        breaker.started(0.2)
    assert breaker.wait_s(0.2) == 0
    assert breaker.wait_s(60.0) == 0, "nobody looked for a minute, and the replies are unread"
    assert breaker.wait_s(60.1) == 0
    for look in range(10):
        breaker.wait_s(60.1 + look / 10)
    assert breaker.is_outage


@given(st.floats(10.0, 3600.0), st.floats(0.0, 2.0))
def test_probes_come_one_at_a_time_with_growing_pauses(outage_s: float, lasts_s: float) -> None:
    breaker, now_s, starts = opened(), 0.0, [0.0]
    while now_s < outage_s:
        starts.append(probe(breaker, now_s, lasts_s=lasts_s))
        now_s = starts[-1] + lasts_s
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert len(starts) <= outage_s + 20
    for pause_s, least_s in zip(pauses, PROBE_PAUSES_S, strict=False):
        assert pause_s >= max(least_s, min(lasts_s, pause_s)) - 1e-9
    assert max(pauses) <= max(PROBE_PAUSES_S[-1], lasts_s) + 1e-9, "so its end is seen soon"


def test_a_probe_that_gets_no_answer_does_not_hold_up_the_next_for_ever() -> None:
    breaker = opened()
    for expected_s in (0.25, 0.25 + PROBE_PATIENCE_S, 0.25 + 2 * PROBE_PATIENCE_S):
        wait_s = breaker.wait_s(expected_s - 0.1)
        assert abs(wait_s - 0.1) < 1e-9
        breaker.started(expected_s)


def test_open_calls_that_all_stay_silent_are_an_outage() -> None:
    breaker = Breaker()
    breaker.started(0.0)
    breaker.ended(0.0, 0.1, answered=True)
    for number in range(OUTAGE_RECORDS):
        breaker.started(1.0 + number / 100)
    look_until(breaker, 1.0, 1.0 + SILENCE_MIN_S)
    assert not breaker.is_open
    assert breaker.wait_s(1.01 + SILENCE_MIN_S) > 0
    assert breaker.is_outage


def test_a_few_open_calls_and_a_slow_service_are_none() -> None:
    breaker = Breaker()
    for _ in range(OUTAGE_RECORDS - 1):
        breaker.started(0.0)
    look_until(breaker, 0.0, 1000.0)
    assert not breaker.is_open
    slow = Breaker()
    slow.started(0.0)
    slow.ended(0.0, 3.0, answered=True)
    for _ in range(600):
        slow.started(3.0)
    look_until(slow, 3.0, 3.0 + 4 * 3.0)
    assert not slow.is_open
    assert slow.wait_s(3.1 + 4 * 3.0) > 0


def test_before_the_first_answer_more_patience_is_had() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.started(0.0)
    look_until(breaker, 0.0, SILENCE_AT_FIRST_S)
    assert not breaker.is_open
    assert breaker.wait_s(SILENCE_AT_FIRST_S + 0.1) > 0


def test_a_call_that_fails_without_an_answer_breaks_no_silence() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.started(0.0)
    for _ in range(50):
        breaker.ended(0.0, 5.0, answered=False)
    look_until(breaker, 0.0, 5.1)
    assert breaker.is_open


def test_a_throttle_holds_all_calls_and_is_no_outage() -> None:
    breaker = Breaker()
    assert breaker.pause(10.0, 60011, (1.0, 5.0), started_s=9.9) == 1
    assert breaker.is_open
    assert not breaker.is_outage
    assert breaker.wait_s(10.0) == 1.0
    assert breaker.pause(10.1, 60011, (1.0, 5.0), started_s=9.95) == 0, "under way at the time"
    breaker.started(11.0)
    assert breaker.pause(11.1, 60011, (1.0, 5.0), started_s=11.0) == 2
    breaker.ended(11.0, 11.1, answered=True)
    assert abs(breaker.wait_s(11.1) - 5.0) < 1e-9
    assert not breaker.succeeded(11.2, started_s=9.9)
    assert breaker.wait_s(11.2) > 0, "that call began before the pause"
    assert not breaker.succeeded(16.3, started_s=16.2), "it was no outage"
    assert breaker.wait_s(16.3) == 0


def test_throttles_of_another_kind_begin_their_pauses_anew() -> None:
    breaker = Breaker()
    for n in range(5):
        breaker.pause(10.0 * n, 60011, (1.0, 2.0), started_s=10.0 * n - 1)
    assert breaker.pause(60.0, 70050, (60.0,), started_s=59.0) == 1


def test_failures_during_a_hold_make_it_an_outage() -> None:
    breaker = Breaker()
    breaker.pause(0.0, 70050, (60.0,), started_s=-1.0)
    for record in range(OUTAGE_RECORDS):
        breaker.failed(record, 1.0)
    assert breaker.is_outage
    assert breaker.wait_s(1.0) == 59.0
    assert breaker.open_for_s(60.0) == 60.0
    breaker.succeeded(60.1, started_s=60.0)
    assert breaker.open_for_s(60.2) == 0.0


def test_a_service_that_rejects_all_alike_is_probed_once_a_second_until_an_import() -> None:
    breaker = Breaker()
    breaker.stop_for_rejections(10.0)
    assert breaker.is_stopped_by_rejections
    assert not breaker.is_outage
    now_s = 10.0
    for _ in range(20):
        wait_s = breaker.wait_s(now_s)
        assert abs(wait_s - REJECTED_PROBE_PAUSE_S) < 1e-9
        now_s += wait_s
        breaker.started(now_s)
        breaker.ended(now_s, now_s, answered=True)
        assert not breaker.succeeded(now_s, started_s=now_s, is_import=False)
        assert breaker.is_stopped_by_rejections
    breaker.succeeded(now_s, started_s=now_s)
    assert not breaker.is_open


def test_all_that_could_be_asked_failing_is_an_outage() -> None:
    breaker = Breaker()
    breaker.fail_for_all(5.0)
    assert breaker.is_outage
    assert breaker.open_for_s(6.0) == 1.0


def test_the_next_probe_waits_for_as_long_as_the_reply_asks() -> None:
    breaker = opened()
    breaker.wait_until(40.0)
    assert breaker.wait_s(0.0) == 40.0
    breaker.wait_until(20.0)
    assert breaker.wait_s(0.0) == 40.0, "the later one stands"
    closed = Breaker()
    closed.wait_until(40.0)
    assert closed.wait_s(0.0) == 0.0, "while calls flow it concerns its own record only"
