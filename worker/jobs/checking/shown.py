"""What `check` prints of its findings, for people and for programs."""

from dataclasses import asdict
from typing import Any

from worker.jobs.checking.findings import Findings
from worker.outputs.report import crowded_dict, crowded_line

DUPLICATES_SHOWN = 5


def in_json(found: Findings) -> dict[str, Any]:
    """Return the findings for JSON."""
    content: dict[str, Any] = {
        "read": found.read,
        "valid": found.valid,
        "invalid": found.invalid,
        "duplicate": found.duplicate,
        "cut": found.cut,
        "problems": found.problems.in_json(),
        "warnings": found.warnings.in_json(),
    }
    if found.duplicates:
        content["duplicates"] = [
            {"place": place, "same_as": earlier} for place, earlier in found.duplicates
        ]
    if found.equal_names.names:
        content["equal_names"] = asdict(found.equal_names)
    if found.crowded:
        content["crowded_communities"] = crowded_dict(found.crowded)
    return content


def lines(found: Findings) -> list[str]:
    """Return the findings as lines for people."""
    shown = [*found.problems.lines(), *found.warnings.lines("warning: ")]
    if found.crowded:
        shown.append(crowded_line(found.crowded))
    if found.duplicate:
        shown += _duplicate_lines(found)
    if found.cut:
        shown.append(f"of the valid, {found.cut:,} have a value that is cut to fit")
    shown.append(
        f"read {found.read:,} = valid {found.valid:,} + invalid {found.invalid:,} "
        f"+ duplicate {found.duplicate:,}"
    )
    return shown


def _duplicate_lines(found: Findings) -> list[str]:
    pairs = [f"{place} (as {earlier})" for place, earlier in found.duplicates[:DUPLICATES_SHOWN]]
    more = found.duplicate - DUPLICATES_SHOWN
    rest = f" and {more:,} more" if more > 0 else ""
    return [
        f"{found.duplicate:,} x the same record as an earlier one, sent once",
        f"    {', '.join(pairs)}{rest}",
    ]
