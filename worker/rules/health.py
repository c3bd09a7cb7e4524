"""Whether the run goes on, and whose fault a failure is: the record's or the service's.

A state machine of values: what happened and when goes in, what follows comes out.
"""

from dataclasses import dataclass, replace

from worker.rules.breaker import Breaker
from worker.rules.retry import RetryPolicy
from worker.rules.verdict import Halt, Throttled

RENEWALS_MAX = 3
RENEWALS_WINDOW_S = 60.0
GATEWAY_REFUSALS_MAX = 10
GATEWAY_REFUSALS = frozenset({301, 302, 303, 307, 308, 401, 403, 404})
"""Statuses by which a gateway says that the address or the way in is wrong."""
COMMUNITIES_MIN = 2


@dataclass(frozen=True, slots=True)
class Failures:
    """One record's failures since the service last came back from an outage.

    `tries`: all of them, and those before too; `count`: those that speak against the record;
    `confirmed`: those of them after which another record was answered before this one was tried
    again.
    `answered_before`, `answered_at_last`: proper answers of the whole run when this record failed
    first and last. `by_the_service`: one failure carried an error code, so somebody was there.
    """

    epoch: int
    tries: int
    count: int
    confirmed: int
    since_s: float
    answered_before: int
    answered_at_last: int
    by_the_service: bool


class Health:
    """What the replies so far say about the service; times in seconds of a monotonic clock."""

    def __init__(self, retry: RetryPolicy, *, same_rejection: int = 0) -> None:
        self._retry = retry
        self.breaker = Breaker()
        self._same_rejection = same_rejection
        self._answered = 0
        self._first_failed_at_s = float("inf")
        self._epoch = 0
        self._rejections = 0
        self._rejection_code: int | str | None = None
        self._rejection_groups: set[str] = set()
        self._renewed_at_s: list[float] = []
        self._gateway_refusals = 0

    def __repr__(self) -> str:
        return (
            f"<Health answered={self._answered} outages={self._epoch} "
            f"rejections={self._rejections} {self.breaker!r}>"
        )

    @property
    def answered(self) -> int:
        """Proper answers of the whole run so far."""
        return self._answered

    def imported(self, now_s: float, *, started_s: float) -> None:
        self._answer(now_s, started_s)
        self._rejections = 0

    def rejected(
        self, code: int | str | None, group_id: str, now_s: float, *, started_s: float
    ) -> Halt | None:
        """Count a rejection; so many alike in a row mean that the mapping is wrong."""
        self._answer(now_s, started_s)
        return self._count_rejection(code, group_id)

    def exhausted(self, code: int | str | None, group_id: str) -> Halt | None:
        """Count a record that ran out of attempts like a rejection; it is no answer."""
        return self._count_rejection(code, group_id)

    def failed(
        self,
        record: int,
        before: Failures | None,
        now_s: float,
        *,
        started_s: float,
        answered_at_start: int,
        code: int | None,
        status: int | None = None,
        reached: bool = True,
        no_record_s_fault: bool = True,
    ) -> Failures:
        """Note a failed attempt; failures of an outage that ended are forgiven.

        A code for a record that failed before, while others were answered, says more about the
        record than about the service.
        """
        self._first_failed_at_s = min(self._first_failed_at_s, now_s)
        self._gateway_refusals = self._gateway_refusals + 1 if status in GATEWAY_REFUSALS else 0
        if before is None or before.epoch != self._epoch:
            tries = before.tries if before else 0
            before = Failures(
                self._epoch,
                tries,
                0,
                0,
                now_s,
                self._answered,
                self._answered,
                by_the_service=False,
            )
        if started_s < self.breaker.closed_at_s:
            return replace(before, tries=before.tries + 1)  # a late echo of what is over
        is_suspect = code is not None and answered_at_start > before.answered_before
        if no_record_s_fault and not is_suspect:
            self.breaker.failed(record, now_s)
        return replace(
            before,
            tries=before.tries + 1,
            count=before.count + reached,
            confirmed=before.confirmed + (answered_at_start > before.answered_at_last),
            answered_at_last=self._answered,
            by_the_service=before.by_the_service or code is not None,
        )

    def is_exhausted(
        self,
        record: int,
        failures: Failures,
        now_s: float,
        *,
        is_coded: bool,
        fresh_waiting: bool,
    ) -> bool | Halt:
        """Decide whether a record has had its chances; Halt where nobody can tell any more.

        Its attempts must have run out, and others must have been answered meanwhile: once is enough
        for a record that alone is refused with a code (`is_coded`); where others fail beside it or
        no answer comes, after each attempt but the last. Where that cannot be told, because no
        record is left to compare with, patience ends: for a record that failed while others were
        answered or that the service itself refuses; for what fails with nobody answered at all the
        run halts. A run in which nobody was answered since its start halts after its patience,
        whatever waits.
        """
        outage = self.breaker.is_outage
        compared = self._answered > failures.answered_before
        has_run_out = failures.count >= self._retry.max_attempts
        if not has_run_out and (compared or failures.by_the_service):
            return False
        if has_run_out and compared and not outage:
            is_alone = is_coded and not self.breaker.fails_beside(record)
            if is_alone or failures.confirmed >= self._retry.max_attempts - 1:
                return True
        if not self._answered and not failures.by_the_service:
            unanswered_s = now_s - self._first_failed_at_s
            # With thousands of records to ask with, this would go on for hours.
            if unanswered_s >= self._retry.patience_s:
                return _nobody_is_reached(
                    unanswered_s,
                    "since the start: see what the log says of the attempts, and "
                    "check app.base_url, app.region and the network",
                )
        if fresh_waiting or now_s - failures.since_s < self._retry.patience_s:
            return False
        if compared or (failures.by_the_service and not outage):
            return True
        return _nobody_is_reached(
            now_s - failures.since_s,
            "and no other record is left to ask with: see what the log "
            "says of the attempts, and continue when the service is well",
        )

    def gateway_halt(self, failure: str) -> Halt | None:
        if self._gateway_refusals < GATEWAY_REFUSALS_MAX:
            return None
        return Halt(
            failure,
            f"the last {self._gateway_refusals} answers were {failure}: check app.base_url, "
            "app.path and the proxy",
        )

    def renewal(self, code: int, message: str, now_s: float, *, once: bool) -> Halt | None:
        """Allow one more new signature, or halt: renewing does not help."""
        self._renewed_at_s = [t for t in self._renewed_at_s if now_s - t < RENEWALS_WINDOW_S]
        allowed = 1 if once else RENEWALS_MAX
        if len(self._renewed_at_s) >= allowed:
            return Halt(
                code,
                f"{message}: a new signature does not help; check app.secret_key, app.sdk_app_id, "
                "app.admin and this machine's clock",
            )
        self._renewed_at_s.append(now_s)
        return None

    def throttled(self, throttled: Throttled, now_s: float, *, started_s: float) -> Halt | None:
        """Stop all calls for the next of the throttle's pauses, or halt when none is left."""
        pauses_s = throttled.pauses_s
        in_a_row = self.breaker.hold(now_s, throttled.code, pauses_s, started_s=started_s)
        if not throttled.halt_after_pauses or in_a_row <= len(pauses_s):
            return None
        waited_s = sum(pauses_s)
        waited = f"{waited_s:g} s" if waited_s < 120 else f"{waited_s / 60:.1f} minutes"  # noqa: PLR2004
        return Halt(
            throttled.code or 0,
            f"{throttled.message}: pauses of {waited} did not help; {throttled.hint}",
        )

    def _answer(self, now_s: float, started_s: float) -> None:
        self._epoch += self.breaker.succeeded(now_s, started_s=started_s)
        self._answered += 1
        self._renewed_at_s.clear()
        self._gateway_refusals = 0

    def _count_rejection(self, code: int | str | None, group_id: str) -> Halt | None:
        if code != self._rejection_code or not self._rejections:
            self._rejection_code, self._rejections = code, 0
            self._rejection_groups = set()
        self._rejections += 1
        if len(self._rejection_groups) < COMMUNITIES_MIN:
            self._rejection_groups.add(group_id)
        limit = self._same_rejection
        if not limit or self._rejections < limit or len(self._rejection_groups) < COMMUNITIES_MIN:
            return None
        return Halt(
            code or "rejected",
            f"{self._rejections} records in a row were refused with {code} and none imported: "
            "the mapping of the fields looks wrong (halt.same_rejection)",
        )


def _nobody_is_reached(seconds: float, advice: str) -> Halt:
    return Halt("outage", f"for {seconds:.0f} s no call has succeeded (retry.patience), {advice}")
