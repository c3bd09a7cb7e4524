"""Whether the run goes on, and whose fault a failure is: the record's or the service's.

A state machine of values: what happened and when goes in, what follows comes out.
"""

from dataclasses import dataclass, replace

from worker.retry import RetryPolicy
from worker.verdict import Halt

OUTAGE_RECORDS = 10
"""So many records failing with nobody answered between look like an outage, not like bad luck."""
RENEWALS_MAX = 3
RENEWALS_WINDOW_S = 60.0
GATEWAY_REFUSALS_MAX = 20
GATEWAY_REFUSALS = frozenset({301, 302, 303, 307, 308, 401, 403, 404})
"""Statuses by which a gateway says that the address or the way in is wrong."""
COMMUNITIES_MIN = 2


@dataclass(frozen=True, slots=True)
class Failures:
    """One record's failures since the service last came back from an outage.

    `tries`: all of them; `count`: those that speak against the record.
    `answered_before`: proper answers of the whole run when this record first failed.
    `by_the_service`: one of them carried an error code, so the service itself was there.
    """

    epoch: int
    tries: int
    count: int
    since_s: float
    answered_before: int
    by_the_service: bool


class Health:
    """What the replies so far say about the service; times in seconds of a monotonic clock."""

    def __init__(self, retry: RetryPolicy, *, same_rejection: int = 0) -> None:
        self._retry = retry
        self._same_rejection = same_rejection
        self._answered = 0
        self._failing: set[int] = set()
        self._epoch = 0
        self._rejections = 0
        self._rejection_code: int | str | None = None
        self._rejection_groups: set[str] = set()
        self._renewed_at_s: list[float] = []
        self._gateway_refusals = 0
        self._halting_throttles = 0

    def __repr__(self) -> str:
        return (
            f"<Health answered={self._answered} failing={len(self._failing)} "
            f"outages={self._epoch} rejections={self._rejections}>"
        )

    @property
    def looks_like_an_outage(self) -> bool:
        return len(self._failing) >= OUTAGE_RECORDS

    def imported(self) -> None:
        self._answer()
        self._rejections = 0

    def rejected(self, code: int | str | None, group_id: str) -> Halt | None:
        """Count a rejection; so many alike in a row mean that the mapping is wrong."""
        self._answer()
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
        code: int | None,
        status: int | None = None,
        reached: bool = True,
    ) -> Failures:
        """Note a failed attempt; failures of an outage that ended are forgiven."""
        if len(self._failing) < OUTAGE_RECORDS:
            self._failing.add(record)
        self._gateway_refusals = self._gateway_refusals + 1 if status in GATEWAY_REFUSALS else 0
        if before is None or before.epoch != self._epoch:
            before = Failures(self._epoch, 0, 0, now_s, self._answered, by_the_service=False)
        return replace(
            before,
            tries=before.tries + 1,
            count=before.count + reached,
            by_the_service=before.by_the_service or code is not None,
        )

    def is_exhausted(self, failures: Failures, now_s: float, *, fresh_waiting: bool) -> bool:
        """Decide whether a record has had its chances.

        Its attempts must have run out, and the service must have answered another record since
        the first failure. While many fail and nobody is answered it looks like an outage: then
        untried records are asked with first, and only the service's own codes count. A few that are
        left undecided end after `patience_s`; many wait for the end of the outage, however long.
        """
        if failures.count < self._retry.max_attempts:
            return False
        answered_others = self._answered > failures.answered_before
        outage = self.looks_like_an_outage and (fresh_waiting or not failures.by_the_service)
        if answered_others and not outage:
            return True
        if self.looks_like_an_outage:
            return False
        is_somebody_there = failures.by_the_service or self._answered > 0
        return is_somebody_there and now_s - failures.since_s >= self._retry.patience_s

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

    def throttle_halt(self, code: int | None, message: str) -> Halt | None:
        """Halt at the second throttle of a kind that waiting should have ended."""
        self._halting_throttles += 1
        if self._halting_throttles <= 1:
            return None
        return Halt(code or 0, f"{message}: a pause did not help")

    def _answer(self) -> None:
        if self.looks_like_an_outage:
            self._epoch += 1
        self._failing.clear()
        self._answered += 1
        self._renewed_at_s.clear()
        self._gateway_refusals = 0
        self._halting_throttles = 0

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
