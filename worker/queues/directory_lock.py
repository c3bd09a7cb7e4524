"""The lock on the directory of a job: one taker at a time, as long as its process lives."""

import fcntl
import os
import time
from pathlib import Path

from worker.queues.contract import QueueError, QueueTakenError

LOCK_NAME = "queue.lock"


LOCK_ATTEMPTS = 5


LOCK_PAUSE_S = 0.05


class DirectoryLock:
    """Held from its making to `release`, or to the end of the process.

    Raises QueueTakenError while another process holds it, QueueError where it cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_NAME
        self._file = _lock(self._path)

    def check(self) -> None:
        """See that the directory is still there. Raises QueueError where it is not, or another."""
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
        os.close(self._file)


def taker_of(directory: Path) -> str | None:
    """Tell who takes from a job's queue now; None where nobody does."""
    try:
        lock_file = os.open(directory / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.read(lock_file, 100).decode(errors="replace").strip() or "unknown process"
    finally:
        os.close(lock_file)
    return None


def _lock(path: Path) -> int:
    try:
        lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise QueueError(f"{path}: {error.strerror}") from None
    if not _locked(lock_file):
        holder = os.read(lock_file, 100).decode(errors="replace").strip()
        os.close(lock_file)
        raise QueueTakenError(
            f"another topic-import ({holder or 'unknown process'}) takes from the queue in "
            f"{path.parent}: wait until it ends or stop it, or give another --out"
        )
    try:
        os.ftruncate(lock_file, 0)
        os.write(lock_file, f"process {os.getpid()}\n".encode())
    except OSError:
        # A full disk: the name in the message is all that is lost.
        pass
    return lock_file


def _locked(lock_file: int) -> bool:
    """Try for a moment: `status` holds the lock for the time of a look."""
    for attempt in range(LOCK_ATTEMPTS):
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(LOCK_PAUSE_S if attempt + 1 < LOCK_ATTEMPTS else 0)
        else:
            return True
    return False
