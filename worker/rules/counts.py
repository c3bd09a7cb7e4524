"""How many records are in which state."""

from dataclasses import dataclass, field

from worker.rules.outcome import Already, Imported
from worker.rules.topic.identity import Origin


@dataclass(frozen=True, slots=True)
class Counts:
    """Where all records are; `read = queued + imported + dead + duplicate + lost`.

    `lost`: taken, then thrown away by a Redis; on any other day 0. `by_reason`, `by_code`: dead
    letters. `already_before_derived`: topics that existed before our first call under an ID that
    only we should make. `may_exist_twice`: calls without a TopicId that were repeated after an
    ambiguous answer.
    """

    read: int = 0
    queued: int = 0
    imported: int = 0
    dead: int = 0
    duplicate: int = 0
    lost: int = 0
    already_own: int = 0
    already_before: int = 0
    already_before_derived: int = 0
    may_exist_twice: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)
    by_code: dict[str, int] = field(default_factory=dict)

    @property
    def add_up(self) -> bool:
        found = self.queued + self.imported + self.dead + self.duplicate
        return self.read == found + self.lost


def imported_counts(outcome: Imported, origin: Origin) -> list[str]:
    """Name the counts that an imported record adds one to."""
    counts = ["imported"]
    if outcome.already is not Already.NO:
        counts.append(f"already_{outcome.already.value}")
    if outcome.already is Already.BEFORE and origin is Origin.DERIVED:
        counts.append("already_before_derived")
    if origin is Origin.NONE and outcome.history.may_exist:
        counts.append("may_exist_twice")
    return counts


def dead_letter_counts(reason: str, code: int | None) -> list[str]:
    """Name the counts that a dead letter adds one to."""
    return ["dead", f"reason:{reason}"] + ([] if code is None else [f"code:{code}"])


@dataclass(slots=True)
class Counters:
    """What this run did. `retries`: calls beyond a record's first; `throttled`: replies."""

    calls: int = 0
    retries: int = 0
    throttled: int = 0
    renewals: int = 0
