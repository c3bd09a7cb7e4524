"""The directory of the job: kind of disk, room, locks, and how soon it stores a write."""

import fcntl
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from worker.jobs import UsageError
from worker.jobs.running import require_regular_files
from worker.rules.diagnosis.finding import Finding, failed, passed
from worker.rules.diagnosis.place import LOCAL_DISK, judge_kind, judge_space, judge_sync
from worker.rules.mounts import kind_of

NAME = "--out"
MOUNTS = Path("/proc/self/mounts")
"""The file systems in use, where the system is Linux."""
WRITES = 10
PAGE = b"\0" * 4096


def place(out: Path) -> Iterator[Finding]:
    """Yield what is found of `--out`; nothing stays there that was not there before."""
    try:
        require_regular_files(out)
        directory = _existing(out)
    except UsageError as error:
        what, _, advice = str(error).partition(": move")
        yield failed(NAME, what, f"move{advice}" if advice else "give another --out")
        return
    where = f"{out} is there" if directory == out else f"{out} will be made in {directory}"
    yield passed(NAME, where)
    yield _kind(directory)
    try:
        room = os.statvfs(directory)
        free_files = room.f_favail if room.f_files else None
        yield judge_space(room.f_bavail * room.f_frsize, free_files)
        yield from _write(directory)
    except OSError as error:
        yield failed(
            "write", f"{directory}: {error.strerror}", "make room, or give an --out to write to"
        )


def _existing(out: Path) -> Path:
    """Return the directory, or the nearest one above it that exists. Raises UsageError."""
    for directory in (out, *out.absolute().parents):
        if directory.is_dir():
            return directory
        if os.path.lexists(directory):
            raise UsageError(f"{directory}: Not a directory")
    raise UsageError(f"{out}: no directory above it exists")


def _kind(directory: Path) -> Finding:
    try:
        mounts = MOUNTS.read_text(errors="replace")
    except OSError:
        mounts = ""
    kind = kind_of(str(directory.resolve()), mounts)
    return judge_kind(kind) or passed("disk", f"{kind or 'unknown kind'}, of this machine")


def _write(directory: Path) -> Iterator[Finding]:
    """Lock a file of our own, and write to it; raises OSError."""
    with tempfile.TemporaryFile(prefix=".topic-import-doctor-", dir=directory) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield failed("locks", f"files cannot be locked there ({error.strerror})", LOCAL_DISK)
        else:
            yield passed("locks", "files can be locked")
        yield judge_sync(statistics.median(_stored_s(file.fileno()) for _ in range(WRITES)))


def _stored_s(file: int) -> float:
    """Write a page for good; return the seconds that it took."""
    began_s = time.perf_counter()
    os.write(file, PAGE)
    os.fsync(file)
    return time.perf_counter() - began_s
