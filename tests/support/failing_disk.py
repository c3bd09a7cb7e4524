"""Runs a command in which one chosen I/O step fails, as on a disk that breaks or fills up."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE_S, Job, environment

SOURCE = Path(__file__).with_name("failing_disk.c")
MARK = "out/"


@dataclass(frozen=True, slots=True)
class Failed:
    """What became of a run: `steps` on the files of the job, and the one that failed."""

    returncode: int
    stdout: str
    stderr: str
    steps: int
    step: str


class FailingDisk:
    """A library that fails the n-th step on the files in `out`; skips the test without `cc`."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("a C compiler is needed to let single I/O steps fail")
        self._library = directory / "failing_disk.so"
        self._log = directory / "steps"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True)

    def run(self, job: Job, *words: str | Path, fail_at: int = 0, error: int = 0) -> Failed:
        """Run a command; 0: no step fails."""
        given = {
            "LD_PRELOAD": str(self._library),
            "FAIL_MARK": MARK,
            "FAIL_AT": str(fail_at),
            "FAIL_ERRNO": str(error),
            "FAIL_LOG": str(self._log),
        }
        self._log.unlink(missing_ok=True)
        done = subprocess.run(
            job.command(*words),
            env=environment() | given,
            cwd=job.directory,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        steps, _, step = self._log.read_text().strip().partition(" ")
        out, err = done.stdout.decode(), done.stderr.decode()
        return Failed(done.returncode, out, err, int(steps), step)
