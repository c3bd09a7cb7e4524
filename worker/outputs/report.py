"""The sums of a job: `report.json` (a contract) and the summary that people read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from worker.redaction import redact
from worker.rules.counts import Counters, Counts
from worker.rules.result_lines import rfc3339
from worker.rules.verdict import Halt

COMMUNITY_TOPICS_MAX = 200
"""What a community holds at most (page of usage limits)."""
CROWDED_SHOWN = 5
CROWDED_LISTED = 1000


@dataclass(frozen=True, slots=True)
class Report:
    """Where a job stands and what this run did; `started`, `ended` in Unix seconds.

    The records' counts are the job's, over all its runs; calls, seconds and rates are this run's.
    """

    counts: Counts
    counters: Counters
    quota_per_s: float
    seconds: float
    started: float
    ended: float
    halted: Halt | None = None
    crowded: Sequence[tuple[str, int]] = ()

    @property
    def rate_per_s(self) -> float:
        return self.counters.calls / self.seconds if self.seconds > 0 else 0.0

    def as_json(self) -> bytes:
        """Write `report.json`."""
        counts, counters = self.counts, self.counters
        quota_used = self.rate_per_s / self.quota_per_s if self.quota_per_s else None
        content: dict[str, Any] = {
            "read": counts.read,
            "queued": counts.queued,
            "imported": counts.imported,
            "already_own": counts.already_own,
            "already_before": counts.already_before,
            "dead": counts.dead,
            "duplicate": counts.duplicate,
            "calls": counters.calls,
            "retries": counters.retries,
            "throttled": counters.throttled,
            "renewals": counters.renewals,
            "seconds": round(self.seconds, 3),
            "rate_per_s": round(self.rate_per_s, 3),
            "quota_per_s": self.quota_per_s,
            "quota_used": None if quota_used is None else round(quota_used, 4),
            "halted": self._halted(),
            "by_reason": counts.by_reason,
            "by_code": counts.by_code,
            "started": rfc3339(self.started),
            "ended": rfc3339(self.ended),
        }
        # What most jobs never have.
        for name in ("lost", "already_before_derived", "may_exist_twice"):
            if value := getattr(counts, name):
                content[name] = value
        if self.crowded:
            content["crowded_communities"] = crowded_dict(self.crowded)
        return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    def _halted(self) -> dict[str, Any] | None:
        if self.halted is None:
            return None
        return {"code": self.halted.code, "sentence": redact(self.halted.message)}


def sums(counts: Counts) -> list[str]:
    """Say in lines where all records are, and that the sum holds."""
    c = counts
    verb = "=" if c.add_up else "IS NOT"
    lines = [
        f"read {c.read:,} {verb} queued {c.queued:,} + imported {c.imported:,} "
        f"+ dead {c.dead:,} + duplicate {c.duplicate:,}" + (f" + LOST {c.lost:,}" if c.lost else "")
    ]
    if c.already_own or c.already_before:
        lines.append(
            f"of the imported, {c.already_own:,} were made by an attempt whose answer was lost, "
            f"{c.already_before:,} existed before"
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
    if c.dead:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in c.by_reason.items())
        codes = ", ".join(f"{code} {n:,}" for code, n in c.by_code.items())
        lines.append(
            f"dead letters by reason: {reasons}" + (f"; by code: {codes}" if codes else "")
        )
    return lines


def crowded_line(crowded: Sequence[tuple[str, int]]) -> str:
    """Warn of communities with more topics than the service's documented limit."""
    shown = ", ".join(f"{community} {n:,}" for community, n in crowded[:CROWDED_SHOWN])
    more = f" and {len(crowded) - CROWDED_SHOWN:,} more" if len(crowded) > CROWDED_SHOWN else ""
    return (
        f"warning: more than {COMMUNITY_TOPICS_MAX} topics are meant for one community, which "
        f"holds no more by the service's documentation: {shown}{more}"
    )


def crowded_dict(crowded: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Say the same for programs; the largest of them only, where they are very many."""
    return {
        "limit": COMMUNITY_TOPICS_MAX,
        "communities": len(crowded),
        "topics": dict(crowded[:CROWDED_LISTED]),
    }


def summary(report: Report) -> list[str]:
    """Say in lines what came of a run."""
    counters = report.counters
    quota = f" of {report.quota_per_s:g} allowed" if report.quota_per_s else ""
    lines = [
        *sums(report.counts),
        f"{counters.calls:,} calls in {report.seconds:.1f} s: {report.rate_per_s:.1f}/s{quota}; "
        f"{counters.retries:,} repeated, {counters.throttled:,} throttled, "
        f"{counters.renewals:,} signatures renewed",
    ]
    if report.crowded:
        lines.append(crowded_line(report.crowded))
    if report.halted:
        lines.append(f"HALTED ({report.halted.code}): {redact(report.halted.message)}")
    return lines
