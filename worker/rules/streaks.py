"""Refusals in a row that show that the run, and not its records, is at fault."""

from worker.rules.codes import AT_THE_DOOR
from worker.rules.halts import HaltCode
from worker.rules.verdict import Halt

GATEWAY_REFUSALS_MAX = 10
GATEWAY_REFUSALS = frozenset({301, 302, 303, 307, 308, 401, 403, 404})
"""HTTP statuses by which a gateway says that the address or the way in is wrong."""
COMMUNITIES_MIN = 2
STREAK_COMMUNITIES_MAX = 1000
"""Communities of a streak that are remembered, so that others are asked first."""
UNKNOWN_MAX = 10
UNKNOWN_WITHIN_S = 20.0
"""A run of unknown refusals at the door halts within this time, also where few records are left."""


class RejectionStreak:
    """Counts rejections in a row with one code; so many over two communities halt the run.

    `halt_at` 0: never. A mapping of the fields that is wrong would dead-letter every record.
    """

    def __init__(self, halt_at: int) -> None:
        self._halt_at = halt_at
        self._code: int | str | None = None
        self._length = 0
        self._groups: set[str] = set()

    @property
    def groups(self) -> frozenset[str]:
        """The communities in the streak."""
        return frozenset(self._groups)

    def has(self, group_id: str) -> bool:
        """Return whether a community is in the streak."""
        return group_id in self._groups

    def __repr__(self) -> str:
        return f"<RejectionStreak {self._length} x {self._code}>"

    def end(self) -> None:
        """Begin to count anew: a record was imported."""
        self._length = 0

    def count(self, code: int | str | None, group_id: str) -> Halt | None:
        """Count a record that was rejected or exhausted with a code."""
        if code != self._code or not self._length:
            self._code, self._length, self._groups = code, 0, set()
        self._length += 1
        if len(self._groups) < STREAK_COMMUNITIES_MAX:
            self._groups.add(group_id)
        is_long = self._halt_at and self._length >= self._halt_at
        if not is_long or len(self._groups) < COMMUNITIES_MIN:
            return None
        return Halt(
            code or HaltCode.REJECTED,
            f"{self._length} records in a row were refused with {code} and none imported: "
            "the mapping of the fields looks wrong (halt.same_rejection)",
        )


class GatewayRefusals:
    """Counts answers in a row that a gateway gave in place of the service."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def end(self) -> None:
        """Begin to count anew: the service itself answered."""
        self._in_a_row = 0

    def count(self, status: int | None, failure: str) -> Halt | None:
        """Count a failed call by its HTTP status, None without one; `failure` names it."""
        self._in_a_row = self._in_a_row + 1 if status in GATEWAY_REFUSALS else 0
        if self._in_a_row < GATEWAY_REFUSALS_MAX:
            return None
        return Halt(
            failure,
            f"the last {self._in_a_row} answers were {failure}: check app.base_url, "
            "app.path and the proxy",
        )


class UnknownCodes:
    """Counts calls in a row that were refused with codes in no table.

    Codes of the access layer halt the run after ten, whichever they are: they speak about the run.
    Any other halts it after ten times the same while nothing was ever imported. Times are seconds
    of a monotonic clock.
    """

    def __init__(self) -> None:
        self._at_the_door = 0
        self._first_at_the_door_s = 0.0
        self._code: int | None = None
        self._same = 0

    def end(self) -> None:
        """Begin to count anew: a call was answered properly."""
        self._at_the_door = self._same = 0

    def count(
        self, code: int, message: str, now_s: float, *, anything_imported: bool
    ) -> Halt | None:
        """Count one unknown code."""
        if code in AT_THE_DOOR:
            return self._count_at_the_door(code, message, now_s)
        self._same = self._same + 1 if code == self._code else 1
        self._code = code
        if anything_imported or self._same < UNKNOWN_MAX:
            return None
        return Halt(
            code,
            f"{message}: {self._same} calls in a row were answered with this unknown code, and "
            "nothing was imported; ask Tencent Cloud what it means",
        )

    def _count_at_the_door(self, code: int, message: str, now_s: float) -> Halt | None:
        if not self._at_the_door:
            self._first_at_the_door_s = now_s
        self._at_the_door += 1
        is_long = now_s - self._first_at_the_door_s >= UNKNOWN_WITHIN_S
        if self._at_the_door < UNKNOWN_MAX and not is_long:
            return None
        return Halt(
            code,
            f"{message}: {self._at_the_door} calls in a row were refused by the access layer with "
            "a code in no table; ask Tencent Cloud what it means",
        )
