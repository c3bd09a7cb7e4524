"""How many records are in which state, and how many calls a run made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from worker.rules.outcome import Already, Imported
from worker.rules.topic.identity import Origin
from worker.rules.topic.oddities import Oddity, time_oddity

PLACES = ("queued", "imported", "dead", "duplicate", "dismissed", "lost")
"""The counts that add up to `read`: each record that was read is counted in exactly one."""
RARE = ("lost", "already_before_derived", "may_exist_twice")
"""Counts that are 0 in nearly every job; reports leave them out while they are."""
SHOWN_IF_ANY = ("dismissed", "lost")
"""Places that sums leave out while nothing is there."""
ALREADY_COUNTS: dict[Already, tuple[str, ...]] = {
    Already.NO: (),
    Already.OWN: ("already_own",),
    Already.BEFORE: ("already_before",),
    Already.UNPROVEN: ("unproven",),
}
"""The counts of imported topics by how they came to exist."""
WARNINGS = (Oddity.TIME_ZERO, Oddity.TIME_EARLY, Oddity.TIME_FUTURE)
"""Kinds of warnings that are counted; each is the name of a count."""
FAMILIES = {"by_reason": "reason:", "by_code": "code:"}
"""Counts by a label, and the prefix under which a queue keeps each label."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many records are where; `read = queued + imported + dead + duplicate + dismissed + lost`.

    - `dismissed`: records that a person gave up.
    - `lost`: records that were taken and that Redis then no longer held.
    - `already_own`: imported by an earlier call of this job whose reply never arrived.
    - `already_before`: topics that existed before the first call of this job.
    - `already_before_derived`: those of them under an ID that only this program derives.
    - `unproven`: topics that seem to be made by an earlier call of this job, but could not be
      compared with the service.
    - `may_exist_twice`: calls without a TopicId, repeated after an ambiguous reply.
    - `cut`: imported topics of which a value was cut (`records.on_too_long`).
    - the names in WARNINGS: imported topics whose CreateTime is odd.
    - `by_reason`, `by_code`: dead letters.

    A new count is a new field here; the reports and the queues take its name from here.
    """

    read: int = 0
    queued: int = 0
    imported: int = 0
    already_own: int = 0
    already_before: int = 0
    already_before_derived: int = 0
    unproven: int = 0
    may_exist_twice: int = 0
    cut: int = 0
    create_time_zero: int = 0
    create_time_before_2000: int = 0
    create_time_in_future: int = 0
    dead: int = 0
    duplicate: int = 0
    dismissed: int = 0
    lost: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    by_code: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_kept(cls, kept: Mapping[str, int]) -> "Counts":
        """Return the counts of a queue that keeps them by name.

        `kept`: numbers under the names of the fields and, for dead letters, under `reason:<reason>`
        and `code:<code>`. Names that are missing count as 0, unknown names are ignored.
        """
        numbers: dict[str, Any] = {name: kept.get(name, 0) for name in _NUMBERS}
        families: dict[str, Any] = {
            name: _labelled(kept, prefix) for name, prefix in FAMILIES.items()
        }
        return cls(**numbers, **families)

    @property
    def is_balanced(self) -> bool:
        """Whether every record that was read is counted in exactly one place."""
        total: int = sum(getattr(self, name) for name in PLACES)
        return self.read == total

    def places(self) -> dict[str, int]:
        """Return the counts that add up to `read`, by name; those of SHOWN_IF_ANY only if not 0."""
        counts = {name: getattr(self, name) for name in PLACES}
        return {name: n for name, n in counts.items() if n or name not in SHOWN_IF_ANY}

    def warnings(self) -> dict[str, int]:
        """Return how many imported topics are odd, by the kind of warning; none where none is."""
        return {kind.value: n for kind in WARNINGS if (n := getattr(self, kind.value))}

    def numbers(self) -> dict[str, int]:
        """Return every plain count by name."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def as_dict(self) -> dict[str, Any]:
        """Return every count by name, those of the dead letters as mappings."""
        return self.numbers() | {name: getattr(self, name) for name in FAMILIES}


_NUMBERS = tuple(item.name for item in fields(Counts) if item.name not in FAMILIES)


def _labelled(kept: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): n
        for name, n in sorted(kept.items())
        if name.startswith(prefix) and n
    }


def balance(counts: Counts) -> str:
    """Return the sum of all records in one line, and whether it holds."""
    sign = "=" if counts.is_balanced else "IS NOT"
    parts = (
        f"{name.upper() if name == 'lost' else name} {n:,}" for name, n in counts.places().items()
    )
    return f"read {counts.read:,} {sign} {' + '.join(parts)}"


def imported_counts(
    outcome: Imported,
    origin: Origin,
    *,
    truncated: Sequence[str] = (),
    create_time: int | None = None,
) -> list[str]:
    """Return the names of the counts that an imported record adds one to.

    `truncated`: its fields that were cut. `create_time`: its CreateTime, in Unix seconds.
    """
    counts = ["imported", *ALREADY_COUNTS[outcome.already]]
    if outcome.already is Already.BEFORE and origin is Origin.DERIVED:
        counts.append("already_before_derived")
    if origin is Origin.NONE and outcome.history.may_exist:
        counts.append("may_exist_twice")
    if truncated:
        counts.append("cut")
    oddity = time_oddity(create_time, outcome.at)
    return counts if oddity is None else [*counts, oddity.value]


def dead_letter_counts(reason: str, code: int | None) -> list[str]:
    """Return the names of the counts that a dead letter adds one to."""
    return ["dead", f"reason:{reason}"] + ([] if code is None else [f"code:{code}"])


@dataclass(slots=True)
class Counters:
    """What this run did.

    `retries`: calls beyond the first one of a record. `throttled`: replies that asked to slow down.
    `renewals`: new signatures.
    """

    calls: int = 0
    retries: int = 0
    throttled: int = 0
    renewals: int = 0


@dataclass(frozen=True, slots=True)
class CommunityLetters:
    """How many dead letters of one reason and code a community has.

    `is_all`: these are all dead letters with that reason and code.
    """

    group_id: str
    reason: str
    code: int | None
    count: int
    is_all: bool = False
