"""The sums of a job: `report.json` (a contract) and the summary that people read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from worker.redaction import redact
from worker.rules.counts import (
    RARE,
    WARNINGS,
    CommunityLetters,
    Counters,
    Counts,
    balance,
)
from worker.rules.result_lines import rfc3339
from worker.rules.topic.oddities import NO_EQUAL_NAMES, SENTENCES, EqualNames, Oddity
from worker.rules.verdict import Halt

COMMUNITY_TOPICS_MAX = 200
"""The most topics that a community holds (usage limits page of the service)."""
CROWDED_SHOWN = 5
CROWDED_LISTED = 1000
WORST_LISTED = 20
WORST_SHOWN = 5
HELD_SHOWN = 5
EQUAL_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Report:
    """Where a job stands and what this run did; `started`, `ended` in Unix seconds.

    The counts of records belong to the job, over all its runs; calls, seconds and rates belong to
    this run. `worst`: the communities with the most dead letters. `held`: the communities whose
    records wait at the end, and why. `skipped`: records of this run's inputs that `records.where`
    does not choose; they do not count as read. `job_id`: what the queue and its files have in
    common.
    """

    counts: Counts
    counters: Counters
    quota_per_s: float
    seconds: float
    started: float
    ended: float
    halted: Halt | None = None
    crowded: Sequence[tuple[str, int]] = ()
    worst: Sequence[CommunityLetters] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    equal_names: EqualNames = NO_EQUAL_NAMES
    skipped: int = 0
    job_id: str | None = None

    @property
    def rate_per_s(self) -> float:
        return self.counters.calls / self.seconds if self.seconds > 0 else 0.0

    def as_json(self) -> bytes:
        """Return the content of `report.json`."""
        quota_used = self.rate_per_s / self.quota_per_s if self.quota_per_s else None
        numbers = self.counts.numbers()
        unproven = numbers.pop("unproven")
        rare = {name: numbers.pop(name) for name in RARE}
        for kind in WARNINGS:
            del numbers[kind]
        content: dict[str, Any] = {
            **numbers,
            **asdict(self.counters),
            "seconds": round(self.seconds, 3),
            "rate_per_s": round(self.rate_per_s, 3),
            "quota_per_s": self.quota_per_s,
            "quota_used": None if quota_used is None else round(quota_used, 4),
            "halted": self._halted(),
            "by_reason": self.counts.by_reason,
            "by_code": self.counts.by_code,
            "by_community": [letters_dict(letters) for letters in self.worst],
            "held": dict(self.held),
            "unproven": unproven,
            "skipped": self.skipped,
            "warnings": self.counts.warnings() | equal_names_warning(self.equal_names),
            "started": rfc3339(self.started),
            "ended": rfc3339(self.ended),
            **{name: n for name, n in rare.items() if n},
        }
        if self.job_id:
            content["job"] = self.job_id
        if self.crowded:
            content["crowded_communities"] = crowded_dict(self.crowded)
        if self.equal_names.names:
            content["equal_names"] = asdict(self.equal_names)
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def _halted(self) -> dict[str, Any] | None:
        if self.halted is None:
            return None
        return {"code": self.halted.code, "sentence": redact(self.halted.message)}


def sums(counts: Counts) -> list[str]:
    """Return lines for people: where all records are, and what is remarkable about them."""
    c = counts
    lines = [balance(c)]
    if c.already_own or c.already_before:
        lines.append(
            f"of the imported, {c.already_own:,} were made by a call whose reply never arrived, "
            f"{c.already_before:,} existed before"
        )
    if c.unproven:
        lines.append(
            f"of the imported, {c.unproven:,} seem to be our own, but could not be compared with "
            "the service (get_topic)"
        )
    if c.already_before_derived:
        lines.append(
            f"warning: {c.already_before_derived:,} topics existed before under an ID that only "
            "this program makes: another job used the same keys, or this queue was deleted"
        )
    if c.may_exist_twice:
        lines.append(
            f'warning: {c.may_exist_twice:,} topics may exist twice (records.topic_ids "as-given")'
        )
    if c.cut:
        lines.append(
            f"of the imported, {c.cut:,} have a value that was cut to fit (`truncated` in "
            "imported.jsonl)"
        )
    lines += [f"warning: {n:,} x {SENTENCES[Oddity(kind)]}" for kind, n in c.warnings().items()]
    if c.dead:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in c.by_reason.items())
        codes = ", ".join(f"{code} {n:,}" for code, n in c.by_code.items())
        lines.append(
            f"dead letters by reason: {reasons}" + (f"; by code: {codes}" if codes else "")
        )
    return lines


def letters_dict(letters: CommunityLetters) -> dict[str, Any]:
    """Return the dead letters of a community for JSON."""
    return {
        "group_id": letters.group_id,
        "reason": letters.reason,
        "code": letters.code,
        "dead": letters.count,
    }


def community_lines(worst: Sequence[CommunityLetters], held: Mapping[str, str]) -> list[str]:
    """Return lines for people: which communities have the most dead letters, which are held."""
    lines = [
        f"{letters.reason if letters.code is None else letters.code}: {letters.count:,} records"
        f"{', all' if letters.is_all else ''} of community {letters.group_id}"
        for letters in worst[:WORST_SHOWN]
    ]
    lines += [f"held: community {group}: {why}" for group, why in list(held.items())[:HELD_SHOWN]]
    if len(held) > HELD_SHOWN:
        lines.append(f"held: {len(held) - HELD_SHOWN:,} more communities")
    return lines


def crowded_line(crowded: Sequence[tuple[str, int]]) -> str:
    """Return a warning that names communities with more topics than the service allows."""
    shown = ", ".join(f"{community} {n:,}" for community, n in crowded[:CROWDED_SHOWN])
    more = f" and {len(crowded) - CROWDED_SHOWN:,} more" if len(crowded) > CROWDED_SHOWN else ""
    return (
        f"warning: more than {COMMUNITY_TOPICS_MAX} topics are meant for one community, which "
        f"holds no more by the service's documentation: {shown}{more}"
    )


def crowded_dict(crowded: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Return the crowded communities for JSON: how many, and the largest `CROWDED_LISTED`."""
    return {
        "limit": COMMUNITY_TOPICS_MAX,
        "communities": len(crowded),
        "topics": dict(crowded[:CROWDED_LISTED]),
    }


def equal_names_warning(equal: EqualNames) -> dict[str, int]:
    """Return the count of topics whose names became equal by cutting, by its kind of warning."""
    return {Oddity.NAMES_EQUAL.value: equal.topics} if equal.topics else {}


def equal_names_message(equal: EqualNames) -> str:
    """Return a sentence that names TopicNames which became equal by cutting."""
    shown = ", ".join(
        f'"{name.topic_name}" {name.topics:,} in {name.group_id}'
        for name in equal.examples[:EQUAL_NAMES_SHOWN]
    )
    more = equal.names - EQUAL_NAMES_SHOWN
    return f"{SENTENCES[Oddity.NAMES_EQUAL]}: {shown}" + (f" and {more:,} more" if more > 0 else "")


def skipped_line(skipped: int) -> str:
    """Return a line for people: how many records were not chosen."""
    return f"skipped {skipped:,} records that are not as records.where wants them"


def summary(report: Report) -> list[str]:
    """Return the summary of a run as lines for people."""
    counters = report.counters
    quota = f" of {report.quota_per_s:g} allowed" if report.quota_per_s else ""
    lines = [
        *sums(report.counts),
        f"{counters.calls:,} calls in {report.seconds:.1f} s: {report.rate_per_s:.1f}/s{quota}; "
        f"{counters.retries:,} repeated, {counters.throttled:,} throttled, "
        f"{counters.renewals:,} signatures renewed",
    ]
    lines += community_lines(report.worst, report.held)
    if report.crowded:
        lines.append(crowded_line(report.crowded))
    if report.equal_names.names:
        count, message = report.equal_names.topics, equal_names_message(report.equal_names)
        lines.append(f"warning: {count:,} x {message}")
    if report.skipped:
        lines.append(skipped_line(report.skipped))
    if report.halted:
        lines.append(f"HALTED ({report.halted.code}): {redact(report.halted.message)}")
    return lines
