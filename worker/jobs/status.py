"""Show what a job or queue holds, and whether its parts agree."""

from pathlib import Path

from worker.jobs import Exit, print_json, print_result
from worker.jobs.opening import choose_engine
from worker.settings.model import Settings


async def status(settings: Settings, out: Path, *, as_json: bool) -> Exit:
    """Print what the queue that the settings name holds; it may be in use.

    Returns PROBLEMS if counts, rows and files disagree. Raises UsageError if there is no job,
    QueueError if the queue cannot be read.
    """
    standing = await choose_engine(settings, out).standing()
    if as_json:
        print_json(standing.facts)
    else:
        print_result(*standing.lines)
    return Exit.DONE if standing.agrees else Exit.PROBLEMS
