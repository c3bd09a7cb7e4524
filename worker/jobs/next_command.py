"""The command that a person types next, for the same job."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from worker.job_directory import DEFAULT_OUT

WITH_VALUE = frozenset(("--config", "--recipe", "--field", "--set", "--key-field"))
ALONE = frozenset(("--ignore-unknown",))
"""Options that decide how a job's records are read; every command on the job needs them."""


def next_command(*words: str, out: Path) -> str:
    """Return a command line for the same job: with this one's `--out`, `--config` and mapping."""
    place = [] if out == DEFAULT_OUT else ["--out", str(out)]
    return shlex.join(["topic-import", *words, *place, *_of_the_job(sys.argv[1:])])


def backfill_command() -> str:
    """Return the command that imports what this one checked, with the same options."""
    kept = []
    words = iter(sys.argv[2:])  # options stand after the command
    for word in words:
        if word == "--places":
            next(words, None)
        elif word not in {"--json", "--dry-run"} and not word.startswith("--places="):
            kept.append(word)
    return shlex.join(["topic-import", "backfill", *kept])


def _of_the_job(arguments: Sequence[str]) -> list[str]:
    kept: list[str] = []
    for at, word in enumerate(arguments):
        name, is_joined, _ = word.partition("=")
        if word in ALONE or (is_joined and name in WITH_VALUE):
            kept.append(word)
        elif word in WITH_VALUE:
            kept += arguments[at : at + 2]
    return kept
