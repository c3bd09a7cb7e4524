"""Validate all records and send nothing: find what a backfill would dead-letter unsent."""

from worker.jobs import Exit, print_json, print_result
from worker.jobs.checking.findings import find_all
from worker.jobs.checking.shown import in_json, lines
from worker.jobs.feeding import resolve_inputs
from worker.jobs.from_settings import record_rules
from worker.settings.model import Settings


def check(settings: Settings, inputs: list[str], *, as_json: bool) -> Exit:
    """Read the records as a backfill would, and print what a queue would refuse.

    Returns PROBLEMS if there is one. Raises UsageError for an input that cannot be opened, OSError
    if there is no room for temporary files.
    """
    sources = resolve_inputs(inputs)
    found = find_all(sources, record_rules(settings), settings.records.max_line_bytes)
    if as_json:
        print_json(in_json(found))
    else:
        print_result(*lines(found))
    return Exit.PROBLEMS if found.problems.by_kind else Exit.DONE
