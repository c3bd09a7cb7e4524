"""A job on a disk that is full for one of its files, as long as a file `full` stands beside it."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import Job

PROGRAM = """
import errno, os, sys
from pathlib import Path
from worker.outputs import files
name, real = sys.argv.pop(1), files.write_all
def write_all(file, content):
    path = os.readlink(f"/proc/self/fd/{file.fileno()}")
    if content and name in path and Path("full").exists():
        real(file, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real(file, content)
files.write_all = write_all
from worker.cli import main
main()
"""


@dataclass
class FullDiskJob(Job):
    """A job whose file `name` cannot grow until `make_room`."""

    name: str = ""

    def __post_init__(self) -> None:
        self._mark.touch()

    @property
    def _mark(self) -> Path:
        return self.directory / "full"

    def make_room(self) -> None:
        self._mark.unlink()

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-c", PROGRAM, self.name, *map(str, words)]
