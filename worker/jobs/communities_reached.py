"""The communities whose queued records a choice reaches."""

from pathlib import Path

import orjson

from worker.job_directory import REPORT_NAME
from worker.jobs.engine import Choice
from worker.rules.communities import TROUBLE_OF_CODE


def communities_reached(choice: Choice, out: Path) -> list[str]:
    """Return the GroupIds of the communities whose queued records are chosen, sorted.

    A queued record has no reason and no code of its own. A code reaches the records of those
    communities that were held for it when the last run in `out` ended, as `report.json` says.
    """
    if choice.reaches_queued and choice.group is not None:
        return [choice.group]
    trouble = TROUBLE_OF_CODE.get(choice.code)
    if trouble is None or choice.reason is not None:
        return []
    held = _held_in_report(out / REPORT_NAME)
    groups = sorted(group for group, why in held.items() if why == trouble.value)
    return [group for group in groups if choice.group in {None, group}]


def _held_in_report(path: Path) -> dict[str, str]:
    """Return the held communities and why; none without a report that can be read."""
    try:
        report = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    held = report.get("held") if isinstance(report, dict) else None
    return held if isinstance(held, dict) else {}
