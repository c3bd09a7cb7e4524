"""Validate all records and send nothing: what a backfill would do, and what it would refuse."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from worker.intake.sources import Source, UnsupportedInputError
from worker.jobs import Exit, UsageError, print_json, print_result
from worker.jobs.checking.findings import find_all
from worker.jobs.checking.shown import PLACES_LISTED, Plan, in_json, lines
from worker.jobs.feeding import resolve_inputs
from worker.jobs.from_settings import record_rules
from worker.jobs.next_command import backfill_command
from worker.logs import logger
from worker.settings.model import Settings

BYTES_TOLD_FROM = 100 << 20
"""From so many bytes of inputs on, the space that fingerprints may take is told first."""
RECORD_BYTES_MIN = 64
FINGERPRINT_BYTES = 32

log = logger()


def check(
    settings: Settings, inputs: list[str], *, as_json: bool, places: int = PLACES_LISTED
) -> Exit:
    """Read the records as a backfill would, and print what would become of them.

    `places`: how many places of each problem JSON lists. Returns PROBLEMS if there is one. Raises
    UsageError for an input that cannot be opened, OSError if there is no room for temporary files.
    """
    sources = resolve_inputs(inputs, settings.records)
    if not sources:
        raise UsageError("nothing to check: name an input file")
    _tell_space(sources)
    try:
        found = find_all(sources, record_rules(settings), settings.records.max_line_bytes)
    except UnsupportedInputError as error:
        raise UsageError(str(error)) from None
    if as_json:
        print_json(in_json(found, places, settings.rate.calls_per_second))
    else:
        plan = Plan(settings.rate.calls_per_second, backfill_command())
        print_result(*lines(found, plan))
    return Exit.PROBLEMS if found.problems.by_kind else Exit.DONE


def _tell_space(sources: Sequence[Source]) -> None:
    size_bytes = sum(Path(source.path).stat().st_size for source in sources if source.size_bytes)
    if size_bytes >= BYTES_TOLD_FROM:
        log.info(
            "fingerprints of all records may need room for temporary files",
            directory=tempfile.gettempdir(),
            mb_at_most=size_bytes // RECORD_BYTES_MIN * FINGERPRINT_BYTES >> 20,
        )
