"""Whose fault a failure is, and when the run stops."""

from hypothesis import given
from hypothesis import strategies as st

from worker.rules.blame import Exhausted, FailedCall, Failures
from worker.rules.breaker import OUTAGE_RECORDS
from worker.rules.health import Health
from worker.rules.renewals import RENEWALS_MAX
from worker.rules.retry import RetryPolicy, backoff_s
from worker.rules.streaks import GATEWAY_REFUSALS_MAX, GatewayRefusals
from worker.rules.verdict import Halt, Throttled

POLICY = RetryPolicy(max_attempts=3, base_delay_s=0.5, max_delay_s=30, patience_s=600)


def answer(health: Health, at_s: float = 0.0) -> None:
    health.blame.answer(at_s, started_s=at_s)
    health.renewals.end()
    health.rejections.end()


def failed(
    health: Health,
    record: int,
    before: Failures | None,
    at_s: float,
    *,
    started_s: float | None = None,
    answered_at_start: int | None = None,
    code: int | None = None,
    reached: bool = True,
    no_record_s_fault: bool = True,
) -> Failures:
    """Fail at once, unless the call is said to have begun earlier."""
    call = FailedCall(
        record=record,
        started_s=at_s if started_s is None else started_s,
        ended_s=at_s,
        answered_at_start=(
            health.blame.answered if answered_at_start is None else answered_at_start
        ),
        code=code,
        reached=reached,
        no_record_s_fault=no_record_s_fault,
    )
    return health.blame.failed(call, before)


def is_over(
    health: Health,
    failures: Failures,
    at_s: float,
    *,
    has_untried: bool = False,
    is_coded: bool = True,
) -> bool | Halt:
    judgement = health.blame.judge(0, failures, at_s, is_coded=is_coded, has_untried=has_untried)
    return judgement if isinstance(judgement, Halt) else isinstance(judgement, Exhausted)


def fail(
    health: Health, record: int, times: int, *, code: int | None = 10002, at_s: float = 0.0
) -> Failures:
    failures: Failures | None = None
    for _ in range(times):
        failures = failed(health, record, failures, at_s, code=code)
    assert failures is not None
    return failures


def test_a_record_that_fails_while_another_is_answered_is_exhausted() -> None:
    health = Health(POLICY)
    first = failed(health, 1, None, 0.0, code=10002)
    answer(health)
    second = failed(health, 1, first, 1.0, code=10002)
    assert not is_over(health, second, 1.0, has_untried=True)
    third = failed(health, 1, second, 2.0, code=10002)
    assert is_over(health, third, 2.0, has_untried=True)


def test_in_an_outage_nobody_s_attempts_run_out() -> None:
    health = Health(POLICY)
    failures = [fail(health, record, 50, code=None, at_s=1e6) for record in range(100)]
    assert health.breaker.is_outage
    assert not any(is_over(health, f, 1e6 + 599, has_untried=True) for f in failures)


def test_failures_of_an_outage_are_forgiven_when_it_ends() -> None:
    health = Health(POLICY)
    failures = [fail(health, record, 50) for record in range(OUTAGE_RECORDS)]
    answer(health)
    again = failed(health, 0, failures[0], 100.0, code=10002)
    assert again.count == 1
    assert not is_over(health, again, 100.0, has_untried=False)


def test_a_failure_from_before_an_outage_does_not_condemn_while_it_lasts() -> None:
    health = Health(POLICY)
    early = failed(health, 0, None, 0.0, code=10002)
    answer(health)
    for record in range(1, OUTAGE_RECORDS + 1):
        fail(health, record, 1)
    early = failed(health, 0, early, 1.0, code=10002)
    early = failed(health, 0, early, 2.0, code=10002)
    assert not is_over(health, early, 599.0, has_untried=False)
    for has_untried in (True, False):
        assert isinstance(is_over(health, early, 600.0, has_untried=has_untried), Halt)


def test_many_bad_records_at_the_end_are_no_outage() -> None:
    health = Health(POLICY)
    first = [failed(health, record, None, 0.0, code=80005) for record in range(9)]
    answer(health)
    first += [failed(health, record, None, 0.0, code=80005) for record in range(9, 18)]
    answer(health)
    again = [failed(health, n, failures, 1.0, code=80005) for n, failures in enumerate(first)]
    again = [failed(health, n, failures, 2.0, code=80005) for n, failures in enumerate(again)]
    assert not health.breaker.is_open, "each failed while others were answered"
    assert all(is_over(health, f, 2.0, has_untried=False) for f in again)


def test_a_line_that_is_cut_for_them_too_is_an_outage() -> None:
    health = Health(POLICY)
    first = [failed(health, record, None, 0.0, code=80005) for record in range(9)]
    answer(health)
    first += [failed(health, 9, None, 0.0, code=80005)]
    answer(health)
    for number, failures in enumerate(first):
        failed(health, number, failures, 1.0, code=None)
    assert health.breaker.is_outage


def test_codes_that_nobody_knows_are_no_outage() -> None:
    health = Health(POLICY)
    for record in range(100):
        failed(health, record, None, 0.0, code=99999, no_record_s_fault=False)
    assert not health.breaker.is_open


def test_a_record_alone_is_given_patience_if_the_service_itself_refuses_it() -> None:
    health = Health(POLICY)
    refused = fail(health, 1, 5)
    assert not is_over(health, refused, 599.0, has_untried=False)
    assert is_over(health, refused, 600.0, has_untried=False) is True


def test_what_fails_with_nobody_answered_ends_in_a_halt_and_in_no_dead_letter() -> None:
    health = Health(POLICY)
    cut = fail(health, 1, 5, code=None)
    assert is_over(health, cut, 599.0, is_coded=False) is False
    assert isinstance(is_over(health, cut, 600.0, is_coded=False), Halt)


def test_where_no_call_ever_gets_through_patience_ends_in_a_halt_too() -> None:
    """A wrong host or port: no attempt counts, and yet a run must not wait for ever."""
    health = Health(POLICY)
    failures = failed(health, 0, None, 0.0, code=None, reached=False)
    for second in range(2, 700, 2):
        failures = failed(health, 0, failures, float(second), code=None, reached=False)
    assert is_over(health, failures, 599.0, has_untried=True) is False
    assert isinstance(is_over(health, failures, 700.0, has_untried=True), Halt)
    answer(health, 700.0)
    assert is_over(health, failures, 700.0) is False, "somebody was answered: it is tried again"


def test_a_line_that_dies_after_a_call_got_through_ends_in_a_halt_too() -> None:
    health = Health(POLICY)
    answer(health)
    failures = failed(health, 0, None, 1.0, code=None)
    for second in range(2, 700, 2):
        failures = failed(health, 0, failures, float(second), code=None, reached=False)
    assert is_over(health, failures, 700.0, has_untried=True) is False
    assert isinstance(is_over(health, failures, 700.0), Halt)


def test_an_outage_that_outlasts_the_patience_of_a_backfill_halts_it() -> None:
    health = Health(POLICY)
    answer(health)
    failures = [fail(health, record, 50) for record in range(OUTAGE_RECORDS)]
    assert not any(is_over(health, f, 599.0, has_untried=True) for f in failures)
    for has_untried in (True, False):
        at_the_end = [is_over(health, f, 600.0, has_untried=has_untried) for f in failures]
        assert all(isinstance(over, Halt) for over in at_the_end)


def test_an_outage_from_the_start_on_names_the_settings_of_the_address() -> None:
    health = Health(POLICY)
    cut = [fail(health, record, 1, code=None) for record in range(OUTAGE_RECORDS)]
    assert health.breaker.is_outage
    assert is_over(health, cut[0], 599.0, has_untried=True) is False
    halt = is_over(health, cut[0], 600.0, has_untried=True)
    assert isinstance(halt, Halt)
    assert "app.base_url" in halt.message


def test_a_service_waits_for_the_end_of_an_outage() -> None:
    health = Health(POLICY, is_service=True)
    failures = [fail(health, record, 50) for record in range(OUTAGE_RECORDS)]
    for has_untried in (True, False):
        assert not any(is_over(health, f, 1e9, has_untried=has_untried) for f in failures)


def test_a_service_judges_its_last_record_when_another_is_answered() -> None:
    health = Health(POLICY, is_service=True)
    answer(health)
    cut = fail(health, 1, 5, code=None, at_s=1.0)
    assert is_over(health, cut, 1e6, is_coded=False) is False
    refused = fail(health, 2, 5, at_s=1.0)
    assert is_over(health, refused, 1e6) is False, "nobody was answered meanwhile"
    answer(health, 1e6)
    assert is_over(health, refused, 1e6) is True


def test_attempts_made_in_an_outage_too_small_to_be_seen_do_not_count() -> None:
    """Two records are left, both failed once while others were answered, then all is quiet."""
    health = Health(POLICY)
    pair = [failed(health, n, None, 0.0, code=502) for n in range(2)]
    answer(health)
    for at_s in range(1, 50):
        pair = [failed(health, n, f, at_s, code=None) for n, f in enumerate(pair)]
    assert [f.confirmed for f in pair] == [1, 1]
    assert not any(is_over(health, f, 50.0, is_coded=False) for f in pair)


def test_a_call_that_ends_after_an_outage_in_which_it_began_is_no_attempt() -> None:
    health = Health(POLICY)
    for record in range(OUTAGE_RECORDS):
        failed(health, record, None, 10.0)
    answer(health, 20.0)
    echo = failed(health, 3, None, 25.0, started_s=15.0)
    assert (echo.tries, echo.count) == (1, 0)


def test_an_answer_during_a_long_call_does_not_confirm_the_attempt_before() -> None:
    health = Health(POLICY)
    first = failed(health, 3, None, 10.0)
    answer(health, 15.0)
    hung = failed(health, 3, first, 20.0, started_s=11.0, answered_at_start=0)
    assert (hung.count, hung.confirmed) == (2, 0)


def test_a_line_that_is_dead_says_nothing_about_a_record() -> None:
    health = Health(POLICY)
    failures: Failures | None = None
    for _ in range(50):
        failures = failed(health, 1, failures, 0.0, code=None, reached=False)
        answer(health)
    assert failures is not None
    assert (failures.tries, failures.count) == (50, 0)
    assert not is_over(health, failures, 599.0, has_untried=False)
    assert isinstance(is_over(health, failures, 600.0), Halt), "nobody was answered for so long"
    answer(health, 1000.0)
    assert not is_over(health, failures, 1001.0, has_untried=False)


def test_the_same_rejection_many_times_over_two_communities_halts() -> None:
    health = Health(POLICY, same_rejection=5)
    assert [health.rejections.count(10004, "a") for _ in range(9)] == [None] * 9, "one community"
    halt = health.rejections.count(10004, "b")
    assert halt is not None
    assert "10004" in halt.message


def test_a_success_or_another_code_begins_the_count_anew() -> None:
    health = Health(POLICY, same_rejection=3)
    for code in (10004, 10004, 10010, 10004, 10004):
        assert health.rejections.count(code, f"community of {code}") is None
    answer(health)
    assert health.rejections.count(10004, "b") is None


def test_a_community_is_held_where_it_is_one_of_those_held() -> None:
    health = Health(POLICY, same_rejection=10)
    for number in range(10):
        health.rejections.count(10004, f"g{number % 2}")
    known = ["failing", "g0", "g1", "other"]
    assert not any(map(health.is_held, known))
    health.communities.failed_in_outage("failing", 0.0)
    assert [group for group in known if health.is_held(group)] == ["failing"]
    health.breaker.stop_for_rejections(1.0)
    assert [group for group in known if health.is_held(group)] == sorted(health.held)
    assert health.held == {"failing", "g0", "g1"}


def test_all_is_well_while_no_community_is_held_and_calls_flow() -> None:
    health = Health(RetryPolicy(), is_service=True)
    assert health.is_all_well
    assert health.is_well("@TGS#_a")
    health.communities.failed_in_outage("@TGS#_a", 1.0)
    assert not health.is_all_well
    assert not health.is_well("@TGS#_a")
    assert health.is_well("@TGS#_b")
    health.communities.open("@TGS#_a")
    health.breaker.stop_for_rejections(2.0)
    assert not health.is_all_well
    assert not health.is_well("@TGS#_b"), "any community may be one of those that are rejected"


def test_many_rejections_with_the_check_off_never_halt() -> None:
    health = Health(POLICY, same_rejection=0)
    assert not any(health.rejections.count(10004, f"g{n % 5}") for n in range(5000))


def test_records_that_run_out_of_attempts_with_one_code_halt_too_and_are_no_answer() -> None:
    health = Health(POLICY, same_rejection=2)
    assert health.rejections.count(99999, "a") is None
    assert health.rejections.count(99999, "b") is not None


def test_renewals_without_success_halt_and_with_success_go_on() -> None:
    health = Health(POLICY)
    assert [health.renewals.renew(70001, "", 0.0, once=False) for _ in range(RENEWALS_MAX)] == (
        [None] * RENEWALS_MAX
    )
    assert health.renewals.renew(70001, "expired", 1.0, once=False) is not None
    assert health.renewals.renew(70001, "", 100.0, once=False) is None, "a minute later"
    answer(health)
    assert health.renewals.renew(70003, "", 100.0, once=True) is None
    assert health.renewals.renew(70003, "", 100.0, once=True) is not None


def test_ten_answers_in_a_row_that_a_gateway_gave_halt() -> None:
    gateway = GatewayRefusals()
    for _ in range(GATEWAY_REFUSALS_MAX - 1):
        assert gateway.count(404, "HTTP 404") is None
    assert gateway.count(404, "HTTP 404") is not None
    assert gateway.count(200, "HTTP 404") is None


def throttle(*pauses_s: float, halt: bool) -> Throttled:
    return Throttled(70050, "too many", "check the key", pauses_s, halt)


def test_a_throttle_halts_when_its_pauses_are_used_up() -> None:
    health = Health(POLICY)
    twice = throttle(60.0, 120.0, halt=True)
    assert health.pause(twice, 0.0, started_s=-1.0) is None
    assert health.pause(twice, 60.2, started_s=60.1) is None
    halt = health.pause(twice, 200.0, started_s=199.9)
    assert halt is not None
    assert "3.0 minutes" in halt.message
    answer(health, 290.0)
    assert health.pause(twice, 300.0, started_s=299.0) is None, "it passed in between"


def test_calls_under_way_when_the_pause_begins_use_up_none() -> None:
    health = Health(POLICY)
    once = throttle(60.0, halt=True)
    for _ in range(100):
        assert health.pause(once, 1.0, started_s=0.9) is None


def test_a_throttle_without_an_end_goes_on_pausing() -> None:
    health = Health(POLICY)
    for at_s in range(0, 1000, 100):
        assert health.pause(throttle(1.0, 5.0, halt=False), at_s, started_s=at_s - 1) is None
    assert health.breaker.wait_s(900.0) == 5.0


def test_the_state_can_be_read_off() -> None:
    health = Health(POLICY)
    answer(health)
    fail(health, 1, 1)
    assert repr(health) == (
        "<Health <Blame answered=1 outages=0> <Communities 0 held, 0 given up> "
        "<RejectionStreak 0 x None> <Breaker closed failing=1 in_flight=0>>"
    )


@given(st.integers(1, 10_000), st.integers(0, 999))
def test_back_off_grows_to_its_ceiling_and_never_beyond(failures: int, thousandths: int) -> None:
    chance = thousandths / 1000
    wait_s = backoff_s(POLICY, failures, chance)
    assert 0 <= wait_s <= POLICY.max_delay_s
    assert wait_s <= chance * POLICY.base_delay_s * 2 ** min(failures - 1, 60)
