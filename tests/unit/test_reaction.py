"""What a reply does to its record and to the run, decided in one place."""

from typing import Any

import pytest

from tests.support.strategies import GROUP
from worker.rules.communities import REJECTED_IN_A_ROW
from worker.rules.health import Health
from worker.rules.outcome import Already, History, Reason
from worker.rules.reaction import Attempt, GiveBack, Reaction, TryAgain
from worker.rules.retry import RetryPolicy
from worker.rules.topic.topic import RecordRules, Topic, to_topic
from worker.rules.verdict import (
    Compare,
    Halt,
    HoldCommunity,
    Imported,
    Reject,
    Renew,
    Retry,
    SetupFault,
    Throttled,
    Verdict,
)

POLICY = RetryPolicy(max_attempts=3)
TOPIC = to_topic({"GroupId": GROUP, "TopicName": "a"}, RecordRules())
WITH_ACCOUNT = to_topic({"GroupId": GROUP, "TopicName": "a", "From_Account": "x"}, RecordRules())
FAILED = Retry(10002, "internal error", "the service", ambiguous=True)
REFUSED = Renew(60004, "wrong account or signature", once=True)
PAUSED = Throttled(70050, "too many", "check the key", (60.0,), halt_after_pauses=True)


def attempt(
    *,
    topic: Topic = TOPIC,
    before: Reaction | None = None,
    at_s: float = 1.0,
    code: int | None = 10002,
    **more: Any,
) -> Attempt:
    """A call that ends at `at_s` after a tenth of a second; `before`: the reaction to the last."""
    known: dict[str, Any] = {
        "record": 1,
        "topic": topic,
        "history": History(attempts=1),
        "failures": before.failures if before else None,
        "refused": before.refused if before else None,
        "started_s": at_s - 0.1,
        "ended_s": at_s,
        "answered_at_start": 0,
        "generation": 1,
        "current_generation": 1,
        "status": 200,
        "code": code,
        "has_untried": False,
    }
    return Attempt(**(known | more))


def react(health: Health, decided: Verdict, **more: Any) -> Reaction:
    return health.react(decided, attempt(**more))


def import_another(health: Health, **more: Any) -> None:
    react(health, Imported(), record=2, **more)


def test_a_success_settles_the_record_and_is_remembered() -> None:
    health = Health(POLICY)
    imported = Imported(Already.OWN)
    assert react(health, imported) == Reaction(imported, History(attempts=1))
    assert health.anything_imported
    assert health.blame.answered == 1


def test_a_rejection_is_an_answer_and_a_dead_letter() -> None:
    health = Health(POLICY)
    reaction = react(health, Reject(Reason.REJECTED, 10010, "no group", "make it"))
    assert reaction.fate == Reject(Reason.REJECTED, 10010, "no group", "make it")
    assert not health.anything_imported
    assert health.blame.answered == 1


def test_a_failure_is_tried_again_and_remembered() -> None:
    reaction = react(Health(POLICY), FAILED)
    assert reaction.fate == TryAgain(1)
    assert reaction.history.may_exist
    assert reaction.failures is not None
    assert reaction.failures.count == 1


def test_a_record_that_alone_fails_is_exhausted() -> None:
    health = Health(POLICY)
    reaction = react(health, FAILED)
    import_another(health)
    for answered in range(1, 3):
        reaction = react(health, FAILED, before=reaction, answered_at_start=answered)
    assert isinstance(reaction.fate, Reject)
    assert reaction.fate.reason is Reason.EXHAUSTED
    assert reaction.halt is None


def test_a_retry_with_few_tries_ends_as_a_rejection() -> None:
    health = Health(POLICY)
    twice = Retry(80003, "webhook failed", "the webhook", ambiguous=False, tries=2)
    again = react(health, twice)
    assert again.fate == TryAgain(1)
    dead = react(health, twice, before=again)
    assert dead.fate == Reject(Reason.REJECTED, 80003, "webhook failed", "the webhook")


def test_refusals_of_a_gateway_in_a_row_halt_and_give_the_record_back() -> None:
    health = Health(POLICY)
    gateway = Retry(None, "HTTP 404", "the address", ambiguous=False)
    reactions = [react(health, gateway, record=n, status=404, code=None) for n in range(10)]
    assert [r.halt is not None for r in reactions] == [False] * 9 + [True]
    assert isinstance(reactions[-1].fate, GiveBack)


def test_patience_with_an_outage_ends_in_a_halt() -> None:
    health = Health(POLICY)
    cut = Retry(None, "cut", "the network", ambiguous=True)
    first = react(health, cut, status=None, code=None)
    last = react(health, cut, before=first, at_s=700.0, status=None, code=None)
    assert isinstance(last.fate, GiveBack)
    assert last.halt is not None
    assert last.halt.code == "outage"


def test_a_throttle_slows_the_pace_and_counts_no_failure() -> None:
    reaction = react(Health(POLICY), Throttled(60007, "too fast", "slow down"))
    assert reaction.fate == TryAgain()
    assert reaction.slow_down
    assert reaction.failures is None


def test_a_throttle_that_its_pauses_do_not_end_halts() -> None:
    health = Health(POLICY)
    assert react(health, PAUSED).halt is None
    last = react(health, PAUSED, at_s=100.0)
    assert last.halt is not None
    assert not last.slow_down, "a probe says nothing about the rate"
    assert isinstance(last.fate, GiveBack)


def test_a_refused_signature_is_renewed_and_the_call_made_again() -> None:
    reaction = react(Health(POLICY), REFUSED)
    assert reaction.fate == TryAgain()
    assert reaction.renew == REFUSED


def test_a_signature_that_was_renewed_meanwhile_is_not_renewed_again() -> None:
    reaction = react(Health(POLICY), REFUSED, current_generation=2)
    assert reaction.renew is None
    assert reaction.fate == TryAgain()


def test_a_renewal_that_does_not_help_halts() -> None:
    health = Health(POLICY)
    first = react(health, REFUSED)
    second = react(health, REFUSED, before=first, generation=2, current_generation=2)
    assert second.halt is not None
    assert second.halt.code == 60004


def test_an_account_refused_beside_a_success_is_dead_lettered() -> None:
    health = Health(POLICY)
    first = react(health, REFUSED, topic=WITH_ACCOUNT)
    assert first.fate == TryAgain(1)
    import_another(health, at_s=2.0)
    second = react(health, REFUSED, before=first, topic=WITH_ACCOUNT, at_s=3.0)
    assert isinstance(second.fate, Reject)
    assert second.fate.code == 60004


def test_a_success_that_began_before_the_refusal_proves_no_account_wrong() -> None:
    health = Health(POLICY)
    first = react(health, REFUSED, topic=WITH_ACCOUNT)
    import_another(health, at_s=2.0, started_s=0.95)
    second = react(health, REFUSED, before=first, topic=WITH_ACCOUNT, at_s=3.0)
    assert isinstance(second.fate, TryAgain)


def test_a_success_with_another_signature_proves_no_account_wrong() -> None:
    health = Health(POLICY)
    first = react(health, REFUSED, topic=WITH_ACCOUNT)
    import_another(health, at_s=2.0, generation=2, current_generation=2)
    second = react(health, REFUSED, before=first, topic=WITH_ACCOUNT, at_s=3.0)
    assert isinstance(second.fate, TryAgain)


def test_a_blamed_account_proves_nothing_for_the_signature() -> None:
    """Else the first one blamed after the key was revoked would condemn all others in turn."""
    health = Health(POLICY)
    bad = react(health, REFUSED, topic=WITH_ACCOUNT)
    import_another(health, at_s=2.0)
    innocent = react(health, REFUSED, topic=WITH_ACCOUNT, record=3, at_s=3.0)
    blamed = react(health, REFUSED, before=bad, topic=WITH_ACCOUNT, at_s=4.0)
    assert isinstance(blamed.fate, Reject)
    again = react(health, REFUSED, before=innocent, topic=WITH_ACCOUNT, record=3, at_s=5.0)
    assert isinstance(again.fate, TryAgain)


def test_some_accounts_refused_beside_answers_put_no_signature_in_doubt() -> None:
    health = Health(POLICY)
    for record in range(10, 30):
        refused = react(health, REFUSED, topic=WITH_ACCOUNT, record=record, at_s=1.0)
        assert refused.fate == TryAgain(1)
        assert refused.renew is None
        import_another(health, at_s=1.0, started_s=0.5)


def test_ten_accounts_refused_in_a_row_put_the_signature_in_doubt() -> None:
    health = Health(POLICY)
    reactions = [react(health, REFUSED, topic=WITH_ACCOUNT, record=record) for record in range(11)]
    assert [reaction.renew is not None for reaction in reactions] == [False] * 9 + [True, False]
    assert reactions[-1].halt is not None, "this kind has no pauses"


def test_a_halt_gives_the_record_back() -> None:
    halt = Halt(70009, "wrong key")
    reaction = react(Health(POLICY), halt)
    assert reaction == Reaction(GiveBack(), History(attempts=1), halt=halt)


OTHER = to_topic({"GroupId": "@TGS#_other", "TopicName": "a"}, RecordRules())
THIRD = to_topic({"GroupId": "@TGS#_third", "TopicName": "a"}, RecordRules())
NO_GROUP = Reject(Reason.REJECTED, 10010, "no group", "make it")
FULL = HoldCommunity(Reject(Reason.REJECTED, 10037, "full", "buy more"))


def test_a_topic_to_be_compared_is_an_answer() -> None:
    health = Health(POLICY)
    compare = Compare(10021, "in use")
    assert react(health, compare) == Reaction(compare, History(attempts=1))
    assert health.blame.answered == 1
    assert not health.anything_imported


def test_what_a_comparison_shows_counts_for_the_streak() -> None:
    health = Health(POLICY, same_rejection=2)
    conflict = Reject(Reason.CONFLICT, 10021, "in use", "choose another")
    assert health.compared(conflict, attempt()).fate == conflict
    assert health.compared(Imported(Already.UNPROVEN), attempt()).halt is None
    assert health.compared(conflict, attempt(topic=OTHER)).halt is None, "it began anew"
    assert health.compared(conflict, attempt()).halt is not None


@pytest.mark.parametrize("code", [10037, 11000])
def test_a_record_of_a_held_community_goes_back(code: int) -> None:
    health = Health(POLICY)
    hold = HoldCommunity(Reject(Reason.REJECTED, code, "held", "a hint"))
    assert react(health, hold) == Reaction(GiveBack(), History(attempts=1))
    assert health.held == {GROUP}
    halted = react(health, hold, topic=OTHER, at_s=2.0)
    assert halted.halt is not None
    assert halted.halt.code == code


def test_the_probe_of_a_full_community_is_dead_lettered() -> None:
    health = Health(POLICY)
    react(health, FULL)
    import_another(health, topic=OTHER, at_s=2.0)
    health.communities.probe_started(GROUP, 3.0)
    assert react(health, FULL, at_s=3.2).fate == FULL.letter


def test_no_permission_for_two_communities_halts() -> None:
    health = Health(POLICY)
    refused = Reject(Reason.REJECTED, 10007, "no permission", "a hint")
    assert react(health, refused).fate == refused
    halted = react(health, refused, topic=OTHER)
    assert halted.halt is not None
    assert isinstance(halted.fate, GiveBack)


def test_a_missing_community_is_answered_without_a_call() -> None:
    health = Health(POLICY, same_rejection=REJECTED_IN_A_ROW + 2)
    assert health.answer_without_call(GROUP, 1.0) is None
    for record in range(REJECTED_IN_A_ROW):
        react(health, NO_GROUP, record=record)
    answer = health.answer_without_call(GROUP, 2.0)
    assert answer is not None
    assert answer[0].code == 10010
    assert answer[1] is None
    react(health, NO_GROUP, topic=OTHER)
    answer = health.answer_without_call(GROUP, 2.0)
    assert answer is not None
    assert answer[1] is not None, "such records count for halt.same_rejection"


def test_a_service_slows_down_for_a_streak_and_an_import_ends_it() -> None:
    health = Health(POLICY, same_rejection=2, is_service=True)
    bad = Reject(Reason.REJECTED, 10004, "bad", "a hint")
    react(health, bad)
    reaction = react(health, bad, topic=OTHER)
    assert (reaction.fate, reaction.halt) == (bad, None)
    assert health.stopped_by_rejections is not None
    assert health.breaker.is_stopped_by_rejections
    assert health.held == {GROUP, "@TGS#_other"}
    react(health, bad, topic=THIRD, at_s=2.0)
    assert health.breaker.is_stopped_by_rejections
    import_another(health, topic=THIRD, at_s=3.0)
    assert not health.breaker.is_open
    assert health.stopped_by_rejections is None
    assert not health.held


def test_a_service_slows_down_for_answers_without_a_call_too() -> None:
    health = Health(POLICY, same_rejection=REJECTED_IN_A_ROW + 2, is_service=True)
    react(health, NO_GROUP, topic=OTHER)
    for record in range(REJECTED_IN_A_ROW):
        react(health, NO_GROUP, record=record)
    answer = health.answer_without_call(GROUP, 2.0)
    assert answer is not None
    assert answer[1] is None
    assert health.stopped_by_rejections is not None


def test_records_of_a_community_whose_patience_ended_are_exhausted() -> None:
    health = Health(POLICY)
    import_another(health, topic=OTHER)
    for record in range(10, 12):
        reaction = react(health, FAILED, record=record)
        assert isinstance(reaction.fate, TryAgain)
    assert health.held == {GROUP}
    import_another(health, topic=OTHER, at_s=2.0)
    assert health.communities.expired(1000.0) == [GROUP]
    answer = health.answer_without_call(GROUP, 1000.0)
    assert answer is not None
    assert answer[0].reason is Reason.EXHAUSTED
    assert answer[1] is None


def test_the_end_of_an_outage_probes_what_failed_in_it() -> None:
    health = Health(POLICY)
    topics = [
        to_topic({"GroupId": f"@TGS#_g{n}", "TopicName": "a"}, RecordRules()) for n in range(11)
    ]
    for number, topic in enumerate(topics):
        react(health, FAILED, record=number, topic=topic)
    assert health.communities.is_outage
    assert health.held == {"@TGS#_g9", "@TGS#_g10"}
    import_another(health, topic=OTHER, at_s=5.0)
    assert not health.communities.is_outage
    assert set(health.communities.due(5.0)) == health.held


@pytest.mark.parametrize("code", [60999, 12345])
def test_ten_unknown_codes_halt_and_dead_letter_nobody(code: int) -> None:
    health = Health(POLICY)
    unknown = Retry(
        code, "unknown", "ask", ambiguous=False, is_unknown=True, no_record_s_fault=False
    )
    reactions = [react(health, unknown, record=n, code=code) for n in range(10)]
    assert [r.halt is not None for r in reactions] == [False] * 9 + [True]
    assert isinstance(reactions[-1].fate, GiveBack)
    assert not health.breaker.is_open


def test_a_wrong_address_halts_a_backfill_and_no_service() -> None:
    lost = Retry(
        None,
        "no such host",
        "the network",
        ambiguous=False,
        reached=False,
        setup_fault=SetupFault.ADDRESS,
    )
    for is_service in (False, True):
        health = Health(POLICY, is_service=is_service)
        react(health, lost, status=None, code=None)
        last = react(health, lost, status=None, code=None, at_s=30.0)
        assert (last.halt is None) is is_service


def test_retry_after_delays_a_record_up_to_the_patience() -> None:
    asked = Retry(None, "HTTP 503", "the service", ambiguous=True, wait_s=40.0)
    fate = react(Health(POLICY), asked, status=503, code=None).fate
    assert isinstance(fate, TryAgain)
    assert fate.at_least_s == 40.0
    for_long = Retry(None, "HTTP 503", "the service", ambiguous=True, wait_s=1e9)
    fate = react(Health(POLICY), for_long, status=503, code=None).fate
    assert isinstance(fate, TryAgain)
    assert fate.at_least_s == POLICY.patience_s


def test_retry_after_delays_the_next_probe_of_an_outage() -> None:
    health = Health(POLICY)
    health.breaker.fail_for_all(1.0)
    asked = Retry(None, "HTTP 503", "the service", ambiguous=True, wait_s=40.0)
    react(health, asked, status=503, code=None, at_s=2.0)
    assert health.breaker.wait_s(2.0) == 40.0


def test_a_refused_signature_that_a_renewal_does_not_mend_pauses_all_then_halts() -> None:
    health = Health(POLICY)
    pausing = Renew(60004, "refused", once=True, hint="check the key", pauses_s=(1.0, 2.0))
    assert react(health, pausing).renew == pausing
    for at_s in (10.0, 20.0):
        paused = react(health, pausing, at_s=at_s)
        assert paused.fate == TryAgain()
        assert paused.halt is None
        assert health.breaker.is_open
    halted = react(health, pausing, at_s=30.0)
    assert halted.halt is not None
    assert "check the key" in halted.halt.message


def test_only_the_latest_signatures_are_remembered() -> None:
    health = Health(POLICY)
    for generation in range(100):
        import_another(health, generation=generation)
    assert len(health._succeeded_at_s) <= 4
