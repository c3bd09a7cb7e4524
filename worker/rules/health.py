"""The one decision on every reply: what becomes of its record, and what the run learns."""

from dataclasses import replace
from typing import assert_never

from worker.rules import verdict
from worker.rules.blame import Blame, Exhausted, FailedCall, GoOn
from worker.rules.breaker import Breaker
from worker.rules.outcome import Reason
from worker.rules.reaction import Attempt, Dead, GiveBack, Reaction, TryAgain
from worker.rules.renewals import Renewals
from worker.rules.retry import RetryPolicy
from worker.rules.streaks import GatewayRefusals, RejectionStreak
from worker.rules.verdict import Halt, Verdict

ACCOUNT_OR_SIGNATURE = frozenset({60004, 60005})
"""Codes that both a bad signature and a bad account in the body give (error code pages)."""
SHOWN_IN_MINUTES_FROM_S = 120


class Health:
    """The machines that a run learns with, and the reaction that they come to together.

    `same_rejection`: rejections in a row with one code that halt the run, 0 for never.
    `anything_imported`: whether this job ever imported a record.
    """

    def __init__(
        self, retry: RetryPolicy, *, same_rejection: int = 0, anything_imported: bool = False
    ) -> None:
        self.breaker = Breaker()
        self.blame = Blame(retry, self.breaker)
        self.rejections = RejectionStreak(same_rejection)
        self.gateway = GatewayRefusals()
        self.renewals = Renewals()
        self.anything_imported = anything_imported
        self._proven_generation = -1

    def __repr__(self) -> str:
        return f"<Health {self.blame!r} {self.rejections!r} {self.breaker!r}>"

    def react(self, decided: Verdict, attempt: Attempt) -> Reaction:
        """Settle the state of all machines for a verdict; what is left to do is returned."""
        match decided:
            case verdict.Imported():
                return self._imported(decided, attempt)
            case verdict.Reject():
                self._prove_signature(attempt)
                return self._rejected(decided, attempt)
            case verdict.Retry():
                return self._failed(decided, attempt)
            case verdict.Throttled():
                return self._throttled(decided, attempt)
            case verdict.Renew():
                return self._refused(decided, attempt)
            case Halt():
                return _halted(decided, attempt)
            case _:
                assert_never(decided)

    def _imported(self, decided: verdict.Imported, attempt: Attempt) -> Reaction:
        self._answer(attempt)
        self._prove_signature(attempt)
        self.rejections.end()
        self.anything_imported = True
        return Reaction(decided, attempt.history)

    def _rejected(self, reject: verdict.Reject, attempt: Attempt) -> Reaction:
        self._answer(attempt)
        letter = Dead(reject.reason, reject.code, reject.message, reject.hint)
        return self._dead(letter, attempt)

    def _answer(self, attempt: Attempt) -> None:
        """Learn from a call for which the service did its work."""
        self.blame.answer(attempt.ended_s, started_s=attempt.started_s)
        self.renewals.end()
        self.gateway.end()

    def _prove_signature(self, attempt: Attempt) -> None:
        """Remember that the service accepted the signature of a call."""
        self._proven_generation = max(self._proven_generation, attempt.generation)

    def _dead(self, letter: Dead, attempt: Attempt) -> Reaction:
        halt = self.rejections.count(letter.code or letter.message, attempt.topic.group_id)
        return Reaction(letter, attempt.history, halt=halt)

    def _failed(self, retry: verdict.Retry, attempt: Attempt) -> Reaction:
        attempt = replace(attempt, history=attempt.history.failed(ambiguous=retry.ambiguous))
        call = FailedCall(
            record=attempt.record,
            started_s=attempt.started_s,
            ended_s=attempt.ended_s,
            answered_at_start=attempt.answered_at_start,
            code=attempt.code,
            reached=retry.reached,
            no_record_s_fault=retry.no_record_s_fault,
        )
        failures = self.blame.failed(call, attempt.failures)
        if halt := self.gateway.count(attempt.status, retry.message):
            return _halted(halt, attempt)
        if retry.tries is not None and failures.count >= retry.tries:
            reject = verdict.Reject(Reason.REJECTED, retry.code, retry.message, retry.hint)
            return self._rejected(reject, attempt)
        judgement = self.blame.judge(
            attempt.record,
            failures,
            attempt.ended_s,
            is_coded=attempt.code is not None,
            has_untried=attempt.has_untried,
        )
        match judgement:
            case GoOn():
                again = TryAgain(failures.tries)
                return Reaction(again, attempt.history, failures, attempt.refused_generation)
            case Exhausted():
                hint = f"{retry.hint}; try the dead letter again when the service is well"
                letter = Dead(Reason.EXHAUSTED, retry.code, retry.message, hint)
                return self._dead(letter, attempt)
            case Halt():
                return _halted(judgement, attempt)
            case _:
                assert_never(judgement)

    def _throttled(self, throttled: verdict.Throttled, attempt: Attempt) -> Reaction:
        # What a probe meets, and what was under way before it, says nothing about the rate.
        slow_down = not self.breaker.is_open
        halt = self.pause(throttled, attempt.ended_s, started_s=attempt.started_s)
        if halt:
            return replace(_halted(halt, attempt), slow_down=slow_down)
        return _at_once(attempt, slow_down=slow_down)

    def pause(self, throttled: verdict.Throttled, now_s: float, *, started_s: float) -> Halt | None:
        """Stop all calls for the next of the throttle's pauses, or halt when none is left."""
        pauses_s = throttled.pauses_s
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

    def _refused(self, renew: verdict.Renew, attempt: Attempt) -> Reaction:
        """React to a refused signature, or to an account that gives the same code."""
        if attempt.refused_generation is None:
            attempt = replace(attempt, refused_generation=attempt.generation)
        if self._account_is_at_fault(renew, attempt):
            hint = "others succeed with the same signature: check From_Account"
            reject = verdict.Reject(Reason.REJECTED, renew.code, renew.message, hint)
            return self._rejected(reject, attempt)
        if attempt.generation != attempt.current_generation:
            return _at_once(attempt)
        halt = self.renewals.renew(renew.code, renew.message, attempt.ended_s, once=renew.once)
        if halt:
            return _halted(halt, attempt)
        return replace(_at_once(attempt), renew=renew)

    def _account_is_at_fault(self, renew: verdict.Renew, attempt: Attempt) -> bool:
        return (
            renew.code in ACCOUNT_OR_SIGNATURE
            and attempt.topic.has_account
            and attempt.refused_generation is not None
            and attempt.refused_generation <= self._proven_generation
        )


def _at_once(attempt: Attempt, *, slow_down: bool = False) -> Reaction:
    return Reaction(
        TryAgain(),
        attempt.history,
        attempt.failures,
        attempt.refused_generation,
        slow_down=slow_down,
    )


def _halted(halt: Halt, attempt: Attempt) -> Reaction:
    return Reaction(GiveBack(), attempt.history, halt=halt)


def _duration(seconds: float) -> str:
    if seconds < SHOWN_IN_MINUTES_FROM_S:
        return f"{seconds:g} s"
    return f"{seconds / 60:.1f} minutes"
