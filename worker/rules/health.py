"""The one decision on every reply: what becomes of its record, and what the run learns."""

from dataclasses import replace
from typing import assert_never

from worker.rules import verdict
from worker.rules.blame import Blame, Exhausted, FailedCall, Failures, GoOn
from worker.rules.breaker import Breaker, Why
from worker.rules.codes import ACCOUNT_OR_SIGNATURE
from worker.rules.communities import FAILING_MIN, TROUBLE_OF_CODE, Communities
from worker.rules.first_contact import FirstContact
from worker.rules.outcome import Reason
from worker.rules.reaction import Attempt, GiveBack, Reaction, Refusal, TryAgain
from worker.rules.renewals import Renewals
from worker.rules.retry import RetryPolicy
from worker.rules.streaks import GatewayRefusals, RejectionStreak, UnknownCodes
from worker.rules.verdict import Halt, Reject, Throttled, Verdict

SHOWN_IN_MINUTES_FROM_S = 120
REFUSED_IN_A_ROW = 10
"""So many records with accounts refused in a row: the signature, and not their accounts."""
GENERATIONS_KEPT = 4
"""Signatures of which is remembered when a call with them last succeeded."""


class Health:
    """The machines that a run learns with, and the reaction that they come to together.

    `same_rejection`: rejections in a row with one code that stop the run, 0 for never.
    `anything_imported`: whether this job ever imported a record. `is_service`: wait for the end of
    a trouble instead of halting where it may pass by itself.
    """

    def __init__(
        self,
        retry: RetryPolicy,
        *,
        same_rejection: int = 0,
        anything_imported: bool = False,
        is_service: bool = False,
    ) -> None:
        self._patience_s = retry.patience_s
        self._is_service = is_service
        self.breaker = Breaker()
        self.blame = Blame(retry, self.breaker, has_patience=is_service)
        self.communities = Communities(
            patience_s=retry.patience_s, anything_imported=anything_imported
        )
        self.rejections = RejectionStreak(same_rejection)
        self.gateway = GatewayRefusals()
        self.unknown_codes = UnknownCodes()
        self.first_contact = FirstContact()
        self.renewals = Renewals()
        self.stopped_by_rejections: Halt | None = None
        self._succeeded_at_s: dict[int, float] = {}
        self._refused: set[int] = set()

    def __repr__(self) -> str:
        return f"<Health {self.blame!r} {self.communities!r} {self.rejections!r} {self.breaker!r}>"

    @property
    def anything_imported(self) -> bool:
        """Whether this job ever imported a record."""
        return self.communities.anything_imported

    @property
    def held(self) -> frozenset[str]:
        """The communities whose records stay in the queue for now."""
        if self.breaker.is_stopped_by_rejections:
            return self.communities.held | self.rejections.groups
        return self.communities.held

    @property
    def is_all_well(self) -> bool:
        """Whether all calls may flow: no outage, no pause, and no community is held."""
        return self.breaker.why is None and not self.communities.held

    def is_well(self, group_id: str) -> bool:
        """Return whether nothing is known that speaks against a call for a community."""
        return self.breaker.why is not Why.REJECTIONS and self.communities.is_well(group_id)

    def is_held(self, group_id: str) -> bool:
        """Return whether a community is one of `held`."""
        if self.communities.is_held(group_id):
            return True
        return self.breaker.is_stopped_by_rejections and self.rejections.has(group_id)

    def react(self, decided: Verdict, attempt: Attempt) -> Reaction:
        """Settle the state of all machines for a verdict; what is left to do is returned."""
        if attempt.code is not None:
            self.first_contact.made()
        match decided:
            case verdict.Imported():
                return self._imported(decided, attempt)
            case Reject() | verdict.Compare():
                return self._not_imported(decided, attempt)
            case verdict.HoldCommunity():
                return self._community_exceeded(decided, attempt)
            case verdict.Retry():
                return self._failed(decided, attempt)
            case verdict.Throttled() | verdict.Renew():
                return self._for_the_worker(decided, attempt)
            case Halt():
                return _halted(decided, attempt)
            case _:
                assert_never(decided)

    # ---- proper answers

    def _imported(self, decided: verdict.Imported, attempt: Attempt) -> Reaction:
        self._answer(attempt, is_import=True)
        self.rejections.end()
        self.stopped_by_rejections = None
        return Reaction(decided, attempt.history)

    def _not_imported(self, decided: Reject | verdict.Compare, attempt: Attempt) -> Reaction:
        if isinstance(decided, Reject):
            return self._rejected(decided, attempt)
        self._answer(attempt)
        return Reaction(decided, attempt.history)

    def _rejected(self, reject: Reject, attempt: Attempt) -> Reaction:
        self._answer(attempt)
        halt = self.communities.rejected(
            reject,
            attempt.topic.group_id,
            attempt.ended_s,
            was_imported_into=attempt.was_imported_into,
        )
        if halt:
            return _halted(halt, attempt)
        return self._dead(reject, attempt)

    def _answer(self, attempt: Attempt, *, is_import: bool = False) -> None:
        """Learn from a call for which the service did its work."""
        self.blame.answer(attempt.ended_s, started_s=attempt.started_s, is_import=is_import)
        if self.communities.is_outage and not self.breaker.is_outage:
            self.communities.outage_ended(attempt.ended_s)
        learn = self.communities.imported if is_import else self.communities.answered
        learn(attempt.topic.group_id, attempt.record, started_s=attempt.started_s)
        self.renewals.end()
        self.gateway.end()
        self.unknown_codes.end()
        self._prove_signature(attempt)

    def _prove_signature(self, attempt: Attempt) -> None:
        """Remember that the service accepted the signature of a call."""
        proven = self._succeeded_at_s
        if attempt.started_s > proven.get(attempt.generation, float("-inf")):
            proven[attempt.generation] = attempt.started_s
        while len(proven) > GENERATIONS_KEPT:
            del proven[min(proven)]
        self._refused.clear()

    def _dead(self, letter: Reject, attempt: Attempt) -> Reaction:
        halt = self._count_rejection(letter, attempt.topic.group_id, attempt.ended_s)
        return Reaction(letter, attempt.history, halt=halt)

    def _count_rejection(self, letter: Reject, group_id: str, now_s: float) -> Halt | None:
        """Count a rejection; a streak of them halts a backfill and slows a service."""
        halt = self.rejections.count(letter.code or letter.message, group_id)
        if halt and self._is_service:
            self.stopped_by_rejections = halt
            self.breaker.stop_for_rejections(now_s)
            return None
        return halt

    def compared(self, decision: verdict.Imported | Reject, attempt: Attempt) -> Reaction:
        """Learn what a comparison with the service showed of a TopicId in use."""
        if isinstance(decision, Reject):
            return self._dead(decision, attempt)
        self.rejections.end()
        return Reaction(decision, attempt.history)

    def answer_without_call(self, group_id: str, now_s: float) -> tuple[Reject, Halt | None] | None:
        """Return the answer for a record whose community is given up; None: call for it."""
        letter = self.communities.answer_without_call(group_id, now_s)
        if letter is None:
            return None
        if letter.reason is Reason.EXHAUSTED:
            return letter, None
        return letter, self._count_rejection(letter, group_id, now_s)

    # ---- failures

    def _community_exceeded(self, hold: verdict.HoldCommunity, attempt: Attempt) -> Reaction:
        """React to a community, or an app, that is full or has no topics."""
        judged = self.communities.exceeded(
            TROUBLE_OF_CODE[hold.letter.code],
            attempt.topic.group_id,
            hold.letter,
            attempt.ended_s,
            started_s=attempt.started_s,
        )
        match judged:
            case None:
                return Reaction(GiveBack(), attempt.history)
            case Halt():
                return _halted(judged, attempt)
            case Reject():
                return self._dead(judged, attempt)
            case _:
                assert_never(judged)

    def _failed(self, retry: verdict.Retry, attempt: Attempt) -> Reaction:
        attempt = replace(attempt, history=attempt.history.failed(ambiguous=retry.ambiguous))
        failures = self._learn_from_failure(retry, attempt)
        if halt := self._halt_for_the_run(retry, attempt):
            return _halted(halt, attempt)
        if retry.tries is not None and failures.count >= retry.tries:
            reject = Reject(Reason.REJECTED, retry.code, retry.message, retry.hint)
            return self._rejected(reject, attempt)
        again = TryAgain(failures.backoff_tries, at_least_s=min(retry.wait_s, self._patience_s))
        reaction = Reaction(again, attempt.history, failures, attempt.refused)
        if self.communities.is_held(attempt.topic.group_id) and not self.breaker.is_outage:
            return reaction
        judgement = self.blame.judge(
            attempt.record,
            failures,
            attempt.ended_s,
            is_coded=attempt.code is not None,
            has_untried=attempt.has_untried,
        )
        match judgement:
            case GoOn():
                return reaction
            case Exhausted():
                return self._dead(_exhausted(retry), attempt)
            case Halt():
                return _halted(judgement, attempt)
            case _:
                assert_never(judgement)

    def _learn_from_failure(self, retry: verdict.Retry, attempt: Attempt) -> Failures:
        failures = self.blame.failed(self._failed_call(retry, attempt), attempt.failures)
        if self.breaker.is_outage:
            self.communities.failed_in_outage(attempt.topic.group_id, attempt.ended_s)
        if retry.wait_s:
            self.breaker.wait_until(attempt.ended_s + min(retry.wait_s, self._patience_s))
        return failures

    def _failed_call(self, retry: verdict.Retry, attempt: Attempt) -> FailedCall:
        failing = 1
        if retry.no_record_s_fault and retry.reached:
            failing = self.communities.failed(
                attempt.topic.group_id, attempt.record, _exhausted(retry), attempt.ended_s
            )
        return FailedCall(
            record=attempt.record,
            started_s=attempt.started_s,
            ended_s=attempt.ended_s,
            answered_at_start=attempt.answered_at_start,
            code=attempt.code,
            reached=retry.reached,
            message=f"{retry.message}: {retry.hint}" if retry.code else retry.message,
            no_record_s_fault=retry.no_record_s_fault,
            counts_for_outage=(
                failing <= FAILING_MIN or self.communities.fails_with_others(attempt.topic.group_id)
            ),
            failing_beside=self.communities.failing_beside(attempt.record),
        )

    def _halt_for_the_run(self, retry: verdict.Retry, attempt: Attempt) -> Halt | None:
        if retry.is_unknown and retry.code is not None:
            return self.unknown_codes.count(
                retry.code,
                retry.message,
                attempt.ended_s,
                anything_imported=self.anything_imported,
            )
        if halt := self.gateway.count(attempt.status, retry.message):
            return halt
        if self._is_service or attempt.code is not None:
            return None
        return self.first_contact.failed(retry.setup_fault, retry.message, attempt.ended_s)

    def _for_the_worker(self, decided: Throttled | verdict.Renew, attempt: Attempt) -> Reaction:
        """React to a reply that says nothing about the record."""
        if isinstance(decided, Throttled):
            return self._throttled(decided, attempt)
        return self._signature_refused(decided, attempt)

    def _throttled(self, throttled: Throttled, attempt: Attempt) -> Reaction:
        # What a probe meets, and what was under way before it, says nothing about the rate.
        slow_down = not self.breaker.is_open
        halt = self.pause(throttled, attempt.ended_s, started_s=attempt.started_s)
        if halt:
            return replace(_halted(halt, attempt), slow_down=slow_down)
        return _at_once(attempt, slow_down=slow_down)

    def pause(self, throttled: Throttled, now_s: float, *, started_s: float) -> Halt | None:
        """Stop all calls for the next of the throttle's pauses, or halt when none is left."""
        pauses_s = tuple(min(pause_s, self._patience_s) for pause_s in throttled.pauses_s)
        if not pauses_s:
            return None
        in_a_row = self.breaker.pause(now_s, throttled.code, pauses_s, started_s=started_s)
        if not throttled.halt_after_pauses or in_a_row <= len(pauses_s):
            return None
        return Halt(
            throttled.code or 0,
            f"{throttled.message}: pauses of {_duration(sum(pauses_s))} did not help; "
            f"{throttled.hint}",
        )

    # ---- signatures

    def _signature_refused(self, renew: verdict.Renew, attempt: Attempt) -> Reaction:
        """React to a refused signature, or to an account that gives the same code."""
        before = attempt.refused
        attempt = replace(attempt, refused=Refusal(attempt.generation, attempt.ended_s))
        may_be_account = renew.code in ACCOUNT_OR_SIGNATURE and attempt.topic.has_account
        if may_be_account and before and self._others_succeeded_after(before):
            # This says nothing for the signature, so it is no answer.
            hint = "others succeed with the same signature: check From_Account"
            return self._dead(Reject(Reason.REJECTED, renew.code, renew.message, hint), attempt)
        if len(self._refused) < REFUSED_IN_A_ROW:
            self._refused.add(attempt.record)
        if attempt.generation != attempt.current_generation:
            return _at_once(attempt)
        if may_be_account and not self._is_signature_in_doubt(before):
            # Perhaps only this account is bad: what others get meanwhile shows it.
            return Reaction(TryAgain(1), attempt.history, attempt.failures, attempt.refused)
        return self._renew_or_pause(renew, attempt)

    def _is_signature_in_doubt(self, before: Refusal | None) -> bool:
        """Return whether many records in a row, or one again, were refused and nobody answered."""
        is_refused_again = before is not None and before.at_s >= self.blame.answered_last_s
        return is_refused_again or len(self._refused) >= REFUSED_IN_A_ROW

    def _renew_or_pause(self, renew: verdict.Renew, attempt: Attempt) -> Reaction:
        halt = self.renewals.renew(renew.code, renew.message, attempt.ended_s, once=renew.once)
        if halt is None:
            return replace(_at_once(attempt), renew=renew)
        if not renew.pauses_s:
            return _halted(halt, attempt)
        pauses = Throttled(
            renew.code, renew.message, renew.hint, renew.pauses_s, halt_after_pauses=True
        )
        if halt := self.pause(pauses, attempt.ended_s, started_s=attempt.started_s):
            return _halted(halt, attempt)
        return _at_once(attempt)

    def _others_succeeded_after(self, refusal: Refusal) -> bool:
        """Return whether a call with the same signature, started after the refusal, succeeded."""
        return self._succeeded_at_s.get(refusal.generation, float("-inf")) > refusal.at_s


def _exhausted(retry: verdict.Retry) -> Reject:
    hint = f"{retry.hint}; try the dead letter again when the service is well"
    return Reject(Reason.EXHAUSTED, retry.code, retry.message, hint)


def _at_once(attempt: Attempt, *, slow_down: bool = False) -> Reaction:
    return Reaction(
        TryAgain(),
        attempt.history,
        attempt.failures,
        attempt.refused,
        slow_down=slow_down,
    )


def _halted(halt: Halt, attempt: Attempt) -> Reaction:
    return Reaction(GiveBack(), attempt.history, halt=halt)


def _duration(seconds: float) -> str:
    if seconds < SHOWN_IN_MINUTES_FROM_S:
        return f"{seconds:g} s"
    return f"{seconds / 60:.1f} minutes"
