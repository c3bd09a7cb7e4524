"""What `check` prints of its findings, for people and for programs."""

from dataclasses import asdict, dataclass
from typing import Any

from worker.jobs.checking.findings import Findings
from worker.jobs.checking.groups import on_paths
from worker.outputs.report import crowded_dict, crowded_line, skipped_line

DUPLICATES_SHOWN = 5
PLACES_LISTED = 100
"""How many places of each problem JSON lists by default."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the import would run: calls a second, 0 for no limit, and the command that starts it."""

    calls_per_s: float
    command: str


def in_json(found: Findings, places: int, calls_per_s: float) -> dict[str, Any]:
    """Return the findings for JSON, with at most so many places of each problem."""
    content: dict[str, Any] = {
        "read": found.read,
        "valid": found.valid,
        "invalid": found.invalid,
        "duplicate": found.duplicate,
        "skipped": found.skipped,
        "cut": found.cut,
        "communities": found.communities,
        "seconds_at_quota": round(found.valid / calls_per_s, 1) if calls_per_s else None,
        "problems": found.problems.in_json(places),
        "warnings": found.warnings.in_json(places),
    }
    if found.duplicates:
        content["duplicates"] = [
            {"place": place, "same_as": earlier} for place, earlier in found.duplicates[:places]
        ]
    if found.equal_names.names:
        equal = asdict(found.equal_names)
        content["equal_names"] = equal | {"examples": equal["examples"][:places]}
    if found.crowded:
        content["crowded_communities"] = crowded_dict(found.crowded)
    if found.empty:
        content["empty"] = found.empty
    return content


def lines(found: Findings, plan: Plan) -> list[str]:
    """Return the findings as lines for people."""
    shown = [*found.problems.lines(), *found.warnings.lines("warning: ")]
    shown += [f"warning: {name} is empty: it holds no record" for name in found.empty]
    if found.crowded:
        shown.append(crowded_line(found.crowded))
    if found.duplicate:
        shown += _duplicate_lines(found)
    if found.cut:
        shown.append(f"of the valid, {found.cut:,} have a value that is cut to fit")
    if found.skipped:
        shown.append(skipped_line(found.skipped))
    shown.append(
        f"read {found.read:,} = valid {found.valid:,} + invalid {found.invalid:,} "
        f"+ duplicate {found.duplicate:,}"
    )
    if found.valid:
        shown += _plan_lines(found, plan)
    return shown


def _plan_lines(found: Findings, plan: Plan) -> list[str]:
    per_community = found.valid / max(1, found.communities)
    time = ""
    if plan.calls_per_s:
        seconds = found.valid / plan.calls_per_s
        time = f"; {_duration(seconds)} at {plan.calls_per_s:g} calls a second"
    return [
        f"{found.valid:,} topics in {found.communities:,} communities, {per_community:,.1f} each"
        f"{time}",
        f"next: {plan.command}",
    ]


def _duration(seconds: float) -> str:
    """Return a duration for people, in the unit that fits."""
    if seconds < 120:  # noqa: PLR2004 - two minutes are told in seconds
        return f"{max(1, round(seconds))} s"
    if seconds < 7200:  # noqa: PLR2004 - two hours in minutes
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h"


def _duplicate_lines(found: Findings) -> list[str]:
    pairs = [f"{place} (as {earlier})" for place, earlier in found.duplicates[:DUPLICATES_SHOWN]]
    more = found.duplicate - DUPLICATES_SHOWN
    rest = f" and {more:,} more" if more > 0 else ""
    return [
        f"{found.duplicate:,} x the same record as an earlier one, sent once",
        f"    {on_paths(pairs)}{rest}",
    ]
