"""Trouble of one community: neither the record's own, nor everybody's.

A community is *open*, *held* or *given up*. The records of a held one wait, one of them probes.
The records of one that is given up are answered without a call.

"After" and "between" compare the start of a call with the arrival of an earlier answer: a call that
was open at that moment says nothing about what came later. Times are seconds of a monotonic clock.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import ceil, log

from worker.rules.codes import FULL, NO_GROUP, NO_PERMISSION, NO_TOPICS, WRONG_GROUP
from worker.rules.verdict import Halt, Reject

TRACKED_MAX = 10_000
"""Communities whose trouble is remembered; beyond it the oldest that is open is forgotten."""
IMPORTED_KEPT_MAX = 10_000
"""Communities remembered as imported into by this process, the latest; the queue knows the rest."""
FAILING_MIN = 2
FAILING_MAX = 16
"""Distinct records in a row: so few may hold a community, so many do, however the others fare."""
CHANCE_OF_BAD_LUCK = 1e-4
"""So unlikely must a row of failures be, at the rate at which the others fail, to hold."""
RATE_MIN = 0.01
RECENT_MAX = 64
"""Replies of which the rate of failures is worked out."""
PROBE_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""From one probe of a held community to the next: at most two calls a second meet it."""
REJECTED_IN_A_ROW = 3
GIVEN_UP_S = 60.0
"""A community that is given up is asked again after so long."""
ANSWERED_WITHOUT_CALL = (
    "answered without a call, for other records of this community were refused alike"
)
EXHAUSTED_TOGETHER = "its community failed for as long as retry.patience, while others did not"
WRONG_COMMUNITIES_HALT = 20
"""So many communities in a row that do not exist: the app or the region is wrong."""


NOT_THERE = frozenset({NO_GROUP, WRONG_GROUP, NO_TOPICS})
"""Codes that say that no topic can be made in a community, whatever the record."""


class Trouble(Enum):
    """Why a community is held."""

    FAILURES = "its calls fail"
    FULL = "it, or the app, holds as many topics as it may"
    NO_TOPICS = "it, or the app, has no topics"


TROUBLE_OF_CODE: Mapping[int | None, Trouble] = {FULL: Trouble.FULL, NO_TOPICS: Trouble.NO_TOPICS}
"""Why a community is held that was refused with a code."""


@dataclass(slots=True)
class _Community:
    """What is known of one community in trouble."""

    failing: set[int] = field(default_factory=set)
    trouble: Trouble | None = None
    held_at_s: float = 0.0
    patience_from_s: float = 0.0
    compared_from_s: float = 0.0
    letter: Reject | None = None
    next_probe_s: float = 0.0
    probes: int = 0
    is_probing: bool = False
    is_compared: bool = False
    rejected_code: int | None = None
    rejected_in_a_row: int = 0
    given_up: Reject | None = None
    given_up_until_s: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.trouble is None and self.given_up is None


@dataclass(slots=True)
class _Latest:
    """The latest call of anybody, and of anybody else, that came to something: by its start."""

    group_id: str | None = None
    started_s: float = float("-inf")
    elsewhere_s: float = float("-inf")

    def note(self, group_id: str, started_s: float) -> None:
        if started_s >= self.started_s:
            if group_id != self.group_id:
                self.group_id, self.elsewhere_s = group_id, self.started_s
            self.started_s = started_s
        elif group_id != self.group_id:
            self.elsewhere_s = max(self.elsewhere_s, started_s)

    def started_beside_s(self, group_id: str) -> float:
        """Return when the latest such call for another community started."""
        return self.elsewhere_s if group_id == self.group_id else self.started_s


class Communities:
    """What the replies so far say about single communities.

    `patience_s`: how long a community may fail before the records queued for it are exhausted.
    `anything_imported`: whether this job ever imported a record. `is_outage`: communities failed
    in an outage of all that is not known to be over.
    """

    def __init__(self, *, patience_s: float, anything_imported: bool = False) -> None:
        self._patience_s = patience_s
        self.anything_imported = anything_imported
        self._known: OrderedDict[str, _Community] = OrderedDict()
        self._held: frozenset[str] = frozenset()
        self._held_in_order: list[str] = []
        self._imported_into: OrderedDict[str, None] = OrderedDict()
        self._recent: deque[tuple[str, int, bool]] = deque(maxlen=RECENT_MAX)
        self._answered = _Latest()
        self._imported = _Latest()
        self._failing_since_answer: set[str] = set()
        self._not_there: set[str] = set()
        self._not_permitted: set[str] = set()
        self.is_outage = False

    def __repr__(self) -> str:
        given_up = sum(known.given_up is not None for known in self._known.values())
        return f"<Communities {len(self._held)} held, {given_up} given up>"

    # ---- what others ask

    @property
    def held(self) -> frozenset[str]:
        """The communities whose records wait."""
        return self._held

    def is_well(self, group_id: str) -> bool:
        """Return whether nothing is known of a community but good."""
        return group_id not in self._known

    def is_held(self, group_id: str) -> bool:
        """Return whether the records of a community wait."""
        return group_id in self._held

    def troubles(self) -> dict[str, Trouble]:
        """Return the held communities and why each is held."""
        return {group: known.trouble for group, known in self._known.items() if known.trouble}

    def failing_beside(self, record: int) -> float:
        """Return the share of the latest replies to other records that were failures."""
        beside = [failed for _, of, failed in self._recent if of != record]
        return sum(beside) / len(beside) if beside else 0.0

    def fails_with_others(self, group_id: str) -> bool:
        """Return whether several communities failed since anybody was answered.

        Not one that is known to fail alone: others were answered while it was held.
        """
        known = self._known.get(group_id)
        if known and known.trouble and not self._is_unconfirmed(group_id, known):
            return False
        return len(self._failing_since_answer) >= FAILING_MIN

    def is_given_up(self, group_id: str, now_s: float) -> bool:
        """Return whether the records of a community are answered without a call."""
        known = self._known.get(group_id)
        return bool(known and known.given_up and now_s < known.given_up_until_s)

    def answer_without_call(self, group_id: str, now_s: float) -> Reject | None:
        """Return the answer for a record of a community that is given up.

        None where a call is to be made: once a minute one record asks again.
        """
        known = self._known.get(group_id)
        if known is None or known.given_up is None:
            return None
        if now_s < known.given_up_until_s:
            return known.given_up
        known.given_up_until_s = now_s + GIVEN_UP_S
        return None

    # ---- what replies say

    def answered(self, group_id: str, record: int, *, started_s: float) -> None:
        """Learn from a proper answer, whatever it said."""
        self._recent.append((group_id, record, False))
        self._failing_since_answer.clear()
        self._answered.note(group_id, started_s)
        known = self._known.get(group_id)
        if known is None:
            return
        if known.trouble is None:
            known.failing.clear()
        elif known.trouble is Trouble.FAILURES and started_s >= known.held_at_s:
            self.open(group_id)

    def imported(self, group_id: str, record: int, *, started_s: float) -> None:
        """Learn from an import: the community, and the app, are well."""
        self.answered(group_id, record, started_s=started_s)
        self._imported.note(group_id, started_s)
        self._not_there.clear()
        self._imported_into[group_id] = None
        self._imported_into.move_to_end(group_id)
        if len(self._imported_into) > IMPORTED_KEPT_MAX:
            self._imported_into.popitem(last=False)
        if not self.anything_imported:
            self.anything_imported = True
            self._not_permitted.clear()
            for group, trouble in self.troubles().items():
                if trouble is Trouble.NO_TOPICS:
                    self.open(group)
        known = self._known.get(group_id)
        if known and started_s >= known.held_at_s:
            self.open(group_id)

    def failed(self, group_id: str, record: int, letter: Reject, now_s: float) -> int:
        """Learn from a failure that is no record's fault; hold the community if it is in trouble.

        `letter`: the dead letter, should patience end. Returns how many distinct records of it
        failed in a row.
        """
        self._recent.append((group_id, record, True))
        if len(self._failing_since_answer) < FAILING_MIN:
            self._failing_since_answer.add(group_id)
        known = self._community(group_id)
        if len(known.failing) < FAILING_MAX:
            known.failing.add(record)
        known.letter = letter
        if known.compared_from_s == float("inf"):
            known.compared_from_s = now_s
        if known.trouble is None and self._is_in_trouble(group_id, known):
            self._hold(group_id, Trouble.FAILURES, now_s)
        return len(known.failing)

    def failed_in_outage(self, group_id: str, now_s: float) -> None:
        """Let others probe first: this community was asked in the outage of all."""
        self.is_outage = True
        known = self._community(group_id)
        if known.trouble is None:
            self._hold(group_id, Trouble.FAILURES, now_s)

    def outage_ended(self, now_s: float) -> None:
        """Probe every community that failed in the outage at once; patience begins anew."""
        self.is_outage = False
        for known in self._known.values():
            if known.trouble is Trouble.FAILURES:
                # What failed in the outage says nothing of what comes after it.
                known.compared_from_s = float("inf")
                known.patience_from_s = known.next_probe_s = now_s
                known.probes = 0

    def exceeded(
        self, trouble: Trouble, group_id: str, letter: Reject, now_s: float, *, started_s: float
    ) -> Halt | Reject | None:
        """Learn that a community, or the whole app, is full or has no topics.

        Returns a Reject where it is the community's own trouble, a Halt where it is the app's, None
        where only others can tell: the community is held, and they go first.
        """
        known = self._community(group_id)
        if self._is_everybodys(trouble, group_id, started_s):
            return _halt(letter)
        if known.trouble is None:
            known.letter = letter
            self._hold(group_id, trouble, now_s)
            return None
        if known.is_probing and known.is_compared and started_s > known.held_at_s:
            self._give_up(group_id, letter, now_s)
            return letter
        return None

    def _is_everybodys(self, trouble: Trouble, group_id: str, started_s: float) -> bool:
        """Return whether another community was in the same trouble, with no success between."""
        if trouble is Trouble.NO_TOPICS and self.anything_imported:
            return False
        return any(
            known.trouble is trouble
            and known.held_at_s < started_s
            and self._imported.started_s <= known.held_at_s
            for group, known in self._known.items()
            if group != group_id
        )

    def rejected(
        self, reject: Reject, group_id: str, now_s: float, *, was_imported_into: bool
    ) -> Halt | None:
        """Learn from a rejection; give a community up that is not there.

        `was_imported_into`: the queue knows of a topic that this job made in it.
        """
        if reject.code == NO_PERMISSION and not self.anything_imported:
            self._not_permitted.add(group_id)
            if len(self._not_permitted) >= FAILING_MIN:
                return Halt(
                    NO_PERMISSION,
                    f"{reject.message}: refused for {len(self._not_permitted)} communities and "
                    "nothing was imported: make app.admin an administrator of the app",
                )
        if reject.code not in NOT_THERE:
            self._not_there.clear()
            self._forget_rejections(group_id)
            return None
        if was_imported_into or group_id in self._imported_into:
            return None
        return self._not_there_again(reject, group_id, now_s)

    def _not_there_again(self, reject: Reject, group_id: str, now_s: float) -> Halt | None:
        known = self._community(group_id)
        is_same = known.rejected_code == reject.code
        known.rejected_in_a_row = known.rejected_in_a_row + 1 if is_same else 1
        known.rejected_code = reject.code
        if known.rejected_in_a_row >= REJECTED_IN_A_ROW:
            self._give_up(group_id, reject, now_s)
        self._not_there.add(group_id)
        if self.anything_imported or len(self._not_there) < WRONG_COMMUNITIES_HALT:
            return None
        return Halt(
            reject.code or 0,
            f"{reject.message}: {len(self._not_there)} communities in a row, and nothing was "
            "imported: check app.sdk_app_id and app.region, and that the communities were made",
        )

    # ---- probes and patience

    def due(self, now_s: float) -> list[str]:
        """Return the held communities that one record is to ask now."""
        return [group for group in self._held_in_order if self._due_s(group) <= now_s]

    def next_due_s(self, now_s: float) -> float | None:
        """Return in how many seconds a community is to be probed or given up; None: never."""
        times = [self._due_s(group) for group in self._held]
        times += [self._expires_at_s(group) for group in self._held]
        soonest_s = min(times, default=float("inf"))
        return None if soonest_s == float("inf") else max(0.0, soonest_s - now_s)

    def _due_s(self, group_id: str) -> float:
        known = self._known[group_id]
        if known.is_probing or not (
            known.trouble is Trouble.FAILURES or self._is_comparable(group_id, known)
        ):
            return float("inf")
        return known.next_probe_s

    def _is_comparable(self, group_id: str, known: _Community) -> bool:
        """Return whether another community was imported into after this one was refused."""
        return self._imported.started_beside_s(group_id) > known.held_at_s

    def _expires_at_s(self, group_id: str) -> float:
        """Return when patience with a community ends; never while nobody else is answered."""
        known = self._known[group_id]
        is_unconfirmed = self._is_unconfirmed(group_id, known)
        if self.is_outage or known.trouble is not Trouble.FAILURES or is_unconfirmed:
            return float("inf")
        return known.patience_from_s + self._patience_s

    def probe_started(self, group_id: str, now_s: float) -> None:
        """Remember that a record of a held community asks."""
        known = self._community(group_id)
        known.is_probing = True
        known.is_compared = self._is_comparable(group_id, known)
        pause_s = PROBE_PAUSES_S[min(known.probes, len(PROBE_PAUSES_S) - 1)]
        known.next_probe_s = now_s + pause_s
        known.probes += 1

    def asked_longest_ago(self) -> str | None:
        """Return the failing community that is to probe next in an outage of all."""
        failing = [
            (known.next_probe_s, group)
            for group, known in self._known.items()
            if known.trouble is Trouble.FAILURES and not known.is_probing
        ]
        return min(failing)[1] if failing else None

    def probe_ended(self, group_id: str) -> None:
        """Remember that the probe of a community has its answer, or was never made."""
        if group_id in self._known:
            self._known[group_id].is_probing = False

    def expired(self, now_s: float) -> list[str]:
        """Give up the communities whose patience ended while others were answered; return them."""
        over = [group for group in self._held_in_order if self._expires_at_s(group) <= now_s]
        for group in over:
            known = self._known[group]
            known.given_up_until_s = float("inf")
            known.given_up = known.letter and _for_all(known.letter, EXHAUSTED_TOGETHER)
            self._release(known)
        if over:
            self._list_held()
        return over

    def nothing_left_to_compare(self) -> Halt | None:
        """Halt for a community that only others can judge, where no others are left."""
        for group, known in self._known.items():
            is_undecided = known.trouble in {Trouble.FULL, Trouble.NO_TOPICS}
            if is_undecided and known.letter and not self._is_comparable(group, known):
                return _halt(known.letter)
        return None

    @property
    def has_unconfirmed(self) -> bool:
        """Whether a community fails of which nobody knows whether others would be answered."""
        return any(
            known.trouble is Trouble.FAILURES and self._is_unconfirmed(group, known)
            for group, known in self._known.items()
        )

    def _is_unconfirmed(self, group_id: str, known: _Community) -> bool:
        """Return whether nobody else was answered in a call that began after it failed."""
        return self._answered.started_beside_s(group_id) <= known.compared_from_s

    def open(self, group_id: str) -> None:
        """Forget the trouble of a community."""
        known = self._known.pop(group_id, None)
        if known and known.trouble:
            self._list_held()

    # ---- plumbing

    def _is_in_trouble(self, group_id: str, known: _Community) -> bool:
        """Return whether so many failures in a row are no bad luck, as the others fare."""
        count = len(known.failing)
        if count < FAILING_MIN:
            return False
        others = [
            failed
            for group, record, failed in self._recent
            if group != group_id or record not in known.failing
        ]
        rate = sum(others) / len(others) if others else 0.0
        if count == FAILING_MAX or rate >= 1.0:
            return count == FAILING_MAX
        return count >= ceil(log(CHANCE_OF_BAD_LUCK) / log(max(rate, RATE_MIN)) - 1e-9)

    def _community(self, group_id: str) -> _Community:
        known = self._known.get(group_id)
        if known is None:
            known = self._known[group_id] = _Community()
            if len(self._known) > TRACKED_MAX:
                self._forget_oldest()
        return known

    def _forget_oldest(self) -> None:
        oldest = next((g for g, k in self._known.items() if k.is_open), next(iter(self._known)))
        self.open(oldest)

    def _hold(self, group_id: str, trouble: Trouble, now_s: float) -> None:
        known = self._community(group_id)
        known.trouble = trouble
        known.held_at_s = known.patience_from_s = known.compared_from_s = now_s
        known.next_probe_s, known.probes = now_s + PROBE_PAUSES_S[0], 0
        self._list_held()

    def _give_up(self, group_id: str, letter: Reject, now_s: float) -> None:
        known = self._community(group_id)
        known.given_up_until_s = now_s + GIVEN_UP_S
        known.given_up = _for_all(letter, ANSWERED_WITHOUT_CALL)
        self._release(known)
        self._list_held()

    def _release(self, known: _Community) -> None:
        known.trouble, known.is_probing = None, False
        known.failing.clear()

    def _forget_rejections(self, group_id: str) -> None:
        known = self._known.get(group_id)
        if known:
            known.rejected_in_a_row = 0
            if known.given_up and known.given_up.code in NOT_THERE:
                self.open(group_id)

    def _list_held(self) -> None:
        self._held_in_order = [g for g, known in self._known.items() if known.trouble]
        self._held = frozenset(self._held_in_order)


def _for_all(letter: Reject, why: str) -> Reject:
    """Return the dead letter for the other records of the community of one."""
    return replace(letter, message=f"{letter.message}; {why}")


def _halt(letter: Reject) -> Halt:
    return Halt(letter.code or 0, f"{letter.message}: {letter.hint}")
