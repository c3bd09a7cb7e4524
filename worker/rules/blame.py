"""Whose fault the failures of a record are: its own or the service's."""

from dataclasses import dataclass, replace

from worker.rules.breaker import Breaker
from worker.rules.halts import HaltCode
from worker.rules.retry import RetryPolicy
from worker.rules.verdict import Halt

NOT_ITS_FAULT_SHARE = 0.25
"""How far a failure that does not speak against the record lengthens its back-off."""


@dataclass(frozen=True, slots=True)
class Failures:
    """The failures of one record since the service last came back from an outage.

    `tries`: all failures, earlier outages included. `count`: those that speak against the record,
    each weighed by how few others failed at the same time.
    `confirmed`: those of `count` after which another record was answered before this one was tried
    again. `answered_before`, `answered_at_last`: proper answers of the whole run when this record
    failed first and last. `by_the_service`: at least one failure carried an error code, so that
    somebody was there to judge. `was_reached`: at least one call got as far as somebody who could
    judge it. `since_s`: when the first of them came, in seconds.
    """

    epoch: int
    tries: int
    count: float
    confirmed: int
    since_s: float
    answered_before: int
    answered_at_last: int
    by_the_service: bool
    was_reached: bool = False

    @property
    def backoff_tries(self) -> int:
        """For how many failures the record backs off: less where the others fail, too."""
        return max(1, round(self.count + NOT_ITS_FAULT_SHARE * (self.tries - self.count)))


@dataclass(frozen=True, slots=True)
class FailedCall:
    """One failed call, in seconds of a monotonic clock.

    `answered_at_start`: proper answers of the whole run when it began. `reached`: it got as far as
    somebody who could judge it. `no_record_s_fault`: it failed in a way in which the service may
    fail for all. `message`: what failed, in words. `counts_for_outage`: it says something about
    more than its own community.
    `failing_beside`: the share of the latest calls of other records that failed.
    """

    record: int
    started_s: float
    ended_s: float
    answered_at_start: int
    code: int | None
    reached: bool = True
    message: str = ""
    no_record_s_fault: bool = True
    counts_for_outage: bool = True
    failing_beside: float = 0.0


@dataclass(frozen=True, slots=True)
class GoOn:
    """The record is tried again."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The record has had its chances."""


Judgement = GoOn | Exhausted | Halt


ALONE_UNTIL = 0.1
ALL_FAIL_FROM = 0.4
"""Shares of others that fail: up to the first a failure counts in full, from the second on not."""


def weight(failing_beside: float) -> float:
    """Return what a failure says against its record, in [0, 1], when so many others fail."""
    return min(1.0, max(0.0, (ALL_FAIL_FROM - failing_beside) / (ALL_FAIL_FROM - ALONE_UNTIL)))


class Blame:
    """Judges failed records by what happens to the others; opens the breaker in an outage.

    `has_patience`: a service waits for the end of an outage however long it lasts; a backfill
    halts when its patience ends. `answered_last_s`: when the latest proper answer came.
    """

    def __init__(self, retry: RetryPolicy, breaker: Breaker, *, has_patience: bool = False) -> None:
        self._retry = retry
        self._has_patience = has_patience
        self._breaker = breaker
        self._answered = 0
        self.answered_last_s = float("-inf")
        self._epoch = 0
        self._first_failed_at_s = float("inf")

    def __repr__(self) -> str:
        return f"<Blame answered={self._answered} outages={self._epoch}>"

    @property
    def answered(self) -> int:
        """Proper answers of the whole run so far."""
        return self._answered

    def answer(self, now_s: float, *, started_s: float, is_import: bool = True) -> None:
        """Count a proper answer: the service did its work for this call."""
        self._epoch += self._breaker.succeeded(now_s, started_s=started_s, is_import=is_import)
        self._answered += 1
        self.answered_last_s = now_s

    def failed(self, call: FailedCall, before: Failures | None) -> Failures:
        """Count a failed call; the failures of an outage that ended are forgiven.

        A code for a record that failed before, while others were answered, says more about the
        record than about the service, and so does not count towards an outage.
        """
        self._first_failed_at_s = min(self._first_failed_at_s, call.ended_s)
        self._breaker.last_failure = call.message
        if before is None or before.epoch != self._epoch:
            before = self._from_now_on(call.ended_s, tries=before.tries if before else 0)
        if call.started_s < self._breaker.closed_at_s:
            # It began in an outage that is over.
            return replace(before, tries=before.tries + 1)
        is_suspect = call.code is not None and call.answered_at_start > before.answered_before
        if call.no_record_s_fault and call.counts_for_outage and not is_suspect:
            self._breaker.failed(call.record, call.ended_s)
        return replace(
            before,
            tries=before.tries + 1,
            count=before.count + call.reached * weight(call.failing_beside),
            confirmed=before.confirmed + (call.answered_at_start > before.answered_at_last),
            answered_at_last=self._answered,
            by_the_service=before.by_the_service or call.code is not None,
            was_reached=before.was_reached or call.reached,
        )

    def _from_now_on(self, now_s: float, *, tries: int) -> Failures:
        return Failures(
            epoch=self._epoch,
            tries=tries,
            count=0.0,
            confirmed=0,
            since_s=now_s,
            answered_before=self._answered,
            answered_at_last=self._answered,
            by_the_service=False,
        )

    def judge(
        self,
        record: int,
        failures: Failures,
        now_s: float,
        *,
        is_coded: bool,
        has_untried: bool,
    ) -> Judgement:
        """Decide whether a record has had its chances, or whether nobody can tell any more.

        `is_coded`: its last failure carried an error code. `has_untried`: the queue may hold
        records that this run has not tried.

        A record is exhausted when its attempts ran out while others were answered: once is enough
        for a record that alone is refused with a code; where others fail beside it, or where no
        answer comes, others must have been answered after each attempt but the last.
        In an outage nobody is exhausted.
        Where no record is left to compare with, patience decides: a record that failed while others
        were answered, or that the service itself refuses, is exhausted; else the run halts. A
        service (serve) waits for others to compare with instead.
        A backfill in which nobody was ever answered halts after its patience, whatever waits.
        """
        if self._breaker.is_outage:
            return self._judge_in_outage(failures, now_s)
        compared = self._answered > failures.answered_before
        has_run_out = failures.count >= self._retry.max_attempts
        if has_run_out and compared and self._is_alone(record, failures, is_coded=is_coded):
            return Exhausted()
        if halt := self._nobody_was_ever_reached(failures, now_s):
            return halt
        if has_untried or now_s - failures.since_s < self._retry.patience_s:
            return GoOn()
        is_refused_alone = failures.by_the_service and not self._has_patience
        if failures.was_reached and (compared or is_refused_alone):
            return Exhausted()
        return self._nobody_is_left_to_ask_with(failures, now_s)

    def _nobody_is_left_to_ask_with(self, failures: Failures, now_s: float) -> Judgement:
        """Halt a backfill; only an answer of late shows that the line of a record is not dead."""
        unanswered_s = now_s - max(failures.since_s, self.answered_last_s)
        if self._has_patience or unanswered_s < self._retry.patience_s:
            return GoOn()
        return self._outage(
            unanswered_s,
            "and no other record is left to ask with: see what the log "
            "says of the attempts, and continue when the service is well",
        )

    def _judge_in_outage(self, failures: Failures, now_s: float) -> Judgement:
        """Exhaust nobody; a backfill halts once the outage has used up its patience."""
        if halt := self._nobody_was_ever_reached(failures, now_s):
            return halt
        lasts_s = self._breaker.open_for_s(now_s)
        if self._has_patience or lasts_s < self._retry.patience_s:
            return GoOn()
        return self._outage(
            lasts_s,
            "by any record: see what the log says of the attempts, and continue when the service "
            "is well",
        )

    def _is_alone(self, record: int, failures: Failures, *, is_coded: bool) -> bool:
        """Return whether only this record fails, as far as the others show."""
        if is_coded and not self._breaker.fails_beside(record):
            return True
        return failures.confirmed >= self._retry.max_attempts - 1

    def _nobody_was_ever_reached(self, failures: Failures, now_s: float) -> Halt | None:
        if self._answered or failures.by_the_service or self._has_patience:
            return None
        unanswered_s = now_s - self._first_failed_at_s
        if unanswered_s < self._retry.patience_s:
            return None
        # With thousands of records to ask with, this would go on for hours.
        return self._outage(
            unanswered_s,
            "since the start: see what the log says of the attempts, and "
            "check app.base_url, app.region and the network",
        )

    def _outage(self, seconds: float, advice: str) -> Halt:
        failure = self._breaker.last_failure
        last = f". The last failure: {failure}" if failure else ""
        return Halt(
            HaltCode.OUTAGE,
            f"for {seconds:.0f} s no call has succeeded (retry.patience), {advice}{last}",
        )
