"""The lock on the directory of a job: one taker at a time, as long as its process lives."""

import fcntl
import os
import time
from pathlib import Path

from worker.queues.contract import QueueError, QueueTakenError

LOCK_NAME = "queue.lock"
LOCK_ATTEMPTS = 5
LOCK_PAUSE_S = 0.05
HOLDER_BYTES_MAX = 100


class DirectoryLock:
    """A lock that is held from its construction to `release`, or to the end of the process.

    Raises QueueTakenError while another process holds it, QueueError if it cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_NAME
        self._file = _lock(self._path)

    def check(self) -> None:
        """Raise QueueError if the directory was removed, or replaced by another."""
        try:
            is_ours = os.path.samestat(self._path.stat(), os.fstat(self._file))
        except OSError:
            is_ours = False
        if not is_ours:
            raise QueueError(
                f"{self._path.parent} was removed or replaced while it was in use, and its queue "
                "with it: bring it back, or give the inputs again"
            )

    def release(self) -> None:
        """Let another process take the lock."""
        os.close(self._file)


def taker_of(directory: Path) -> str | None:
    """Return the process that takes from a job's queue now, as text; None if there is none."""
    try:
        lock_file = os.open(directory / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _holder(lock_file)
    finally:
        os.close(lock_file)
    return None


def _lock(path: Path) -> int:
    try:
        lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise QueueError(f"{path}: {error.strerror}") from None
    if not _locked(lock_file):
        holder = _holder(lock_file)
        os.close(lock_file)
        raise QueueTakenError(
            f"another topic-import ({holder}) takes from the queue in "
            f"{path.parent}: wait until it ends or stop it, or give another --out"
        )
    try:
        os.ftruncate(lock_file, 0)
        os.write(lock_file, f"process {os.getpid()}\n".encode())
    except OSError:
        # The disk is full. Only the holder's name in the message above is missing then.
        pass
    return lock_file


def _holder(lock_file: int) -> str:
    written = os.read(lock_file, HOLDER_BYTES_MAX).decode(errors="replace").strip()
    return written or "unknown process"


def _locked(lock_file: int) -> bool:
    """Lock the file, trying several times: `status` holds the lock for a moment."""
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(LOCK_PAUSE_S if attempt + 1 < LOCK_ATTEMPTS else 0)
        else:
            return True
    return False
