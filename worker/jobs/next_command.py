"""The command that a person types next, for the same job."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from worker.job_directory import DEFAULT_OUT


def next_command(*words: str, out: Path) -> str:
    """Return a command line with the same `--out` and the same `--config` as this one."""
    place = [] if out == DEFAULT_OUT else ["--out", str(out)]
    return shlex.join(["topic-import", *words, *place, *_config(sys.argv[1:])])


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


def _config(arguments: Sequence[str]) -> list[str]:
    for at, word in enumerate(arguments):
        if word == "--config" and at + 1 < len(arguments):
            return ["--config", arguments[at + 1]]
        if word.startswith("--config="):
            return ["--config", word.removeprefix("--config=")]
    return []
