"""What a reply does to its record and to the run, decided in one place."""

from typing import Any

from tests.support.strategies import GROUP
from worker.rules.health import Health
from worker.rules.outcome import Already, History, Reason
from worker.rules.reaction import Attempt, GiveBack, Reaction, TryAgain
from worker.rules.retry import RetryPolicy
from worker.rules.topic.topic import RecordRules, Topic, to_topic
from worker.rules.verdict import (
    Halt,
    Imported,
    Reject,
    Renew,
    Retry,
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
    reactions = [react(health, REFUSED, topic=WITH_ACCOUNT, record=record) for record in range(10)]
    assert [reaction.renew is not None for reaction in reactions] == [False] * 9 + [True]


def test_a_halt_gives_the_record_back() -> None:
    halt = Halt(70009, "wrong key")
    reaction = react(Health(POLICY), halt)
    assert reaction == Reaction(GiveBack(), History(attempts=1), halt=halt)
