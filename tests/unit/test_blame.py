"""How much a failure says against its record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rules.blame import ALL_FAIL_FROM, ALONE_UNTIL, Blame, FailedCall, Failures, weight
from worker.rules.breaker import Breaker
from worker.rules.retry import RetryPolicy


@pytest.mark.parametrize(
    ("failing_beside", "expected"),
    [(0.0, 1.0), (ALONE_UNTIL, 1.0), (0.25, 0.5), (ALL_FAIL_FROM, 0.0), (1.0, 0.0)],
)
def test_a_failure_weighs_less_the_more_others_fail(failing_beside: float, expected: float) -> None:
    assert weight(failing_beside) == pytest.approx(expected)


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_weight_never_grows_with_the_others_failures(one: float, other: float) -> None:
    fewer, more = sorted((one, other))
    assert 0.0 <= weight(more) <= weight(fewer) <= 1.0


def failed(failing_beside: float, times: int) -> Failures:
    blame = Blame(RetryPolicy(), Breaker())
    failures: Failures | None = None
    for _ in range(times):
        call = FailedCall(1, 0.0, 0.1, 0, 10002, failing_beside=failing_beside)
        failures = blame.failed(call, failures)
    assert failures is not None
    return failures


def test_where_half_of_all_fail_nothing_counts_against_a_record() -> None:
    assert failed(0.5, 50).count == 0.0
    assert failed(0.5, 50).tries == 50


def test_a_record_backs_off_less_where_the_others_fail_too() -> None:
    assert failed(0.0, 8).backoff_tries == 8
    assert failed(0.5, 8).backoff_tries == 2
    assert failed(0.5, 1).backoff_tries == 1


def test_failures_that_are_nobody_s_outage_open_no_breaker() -> None:
    breaker = Breaker()
    blame = Blame(RetryPolicy(), breaker)
    for record in range(100):
        call = FailedCall(record, 0.0, 0.1, 0, 10002, counts_for_outage=False)
        blame.failed(call, None)
    assert not breaker.is_open


def test_the_halt_after_an_outage_repeats_the_last_failure() -> None:
    blame = Blame(RetryPolicy(patience_s=10.0), Breaker())
    call = FailedCall(1, 0.0, 0.1, 0, None, message="the server does not speak TLS")
    failures = blame.failed(call, None)
    judgement = blame.judge(1, failures, 20.0, is_coded=False, has_untried=True)
    assert "the server does not speak TLS" in str(judgement)
