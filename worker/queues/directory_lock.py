"""The lock on the directory of a job: one taker at a time, as long as its process lives."""

import errno
import fcntl
import os
import time
from pathlib import Path

from worker.queues.contract import QueueError, QueueLostError, QueueTakenError

LOCK_NAME = "queue.lock"
LOCK_ATTEMPTS = 5
LOCK_PAUSE_S = 0.05
HOLDER_BYTES_MAX = 100
HELD_BY_ANOTHER = {errno.EWOULDBLOCK, errno.EAGAIN}
"""What `flock` answers while another process holds the lock; every other error is the place's."""


class DirectoryLock:
    """A lock that is held from its construction to `release`, or to the end of the process.

    Raises QueueTakenError while another process holds it, QueueError if it cannot be made or the
    place knows no locks.
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


class WatchedFile:
    """A file that must stay the one that it was at the construction."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first = _stat(path)

    def check(self) -> None:
        """Raise QueueLostError if the file was removed, or replaced by another."""
        now = _stat(self._path)
        if self._first is None or now is None or not os.path.samestat(self._first, now):
            raise QueueLostError(
                f"{self._path} was removed or replaced while it was in use: bring it back, or "
                "import again with --adopt, which takes over what the result files know"
            )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def taker_of(directory: Path) -> str | None:
    """Return the process that takes from a job's queue now, as text; None if there is none.

    Raises QueueError if the place knows no locks.
    """
    try:
        lock_file = os.open(directory / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        is_free = _try_lock(lock_file, fcntl.LOCK_SH, directory)
        return None if is_free else _holder(lock_file)
    finally:
        os.close(lock_file)


def require_locks(directory: Path, *, read_only: bool) -> None:
    """Raise QueueError if the place refuses locks on ranges of a file, as SQLite takes them.

    SQLite takes that for another process that holds them, and waits for it. `read_only`: without
    a file to try it on, nothing is made.
    """
    mode = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
    try:
        # Not the queue's own file: closing it would drop all locks of this process on it.
        lock_file = os.open(directory / LOCK_NAME, mode | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # the queue's own file will be refused with the reason
    try:
        fcntl.lockf(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD_BY_ANOTHER | {errno.EACCES}:
            raise _refused(directory, error) from None
    finally:
        os.close(lock_file)


def _lock(path: Path) -> int:
    try:
        lock_file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise QueueError(f"{path}: {error.strerror}") from None
    try:
        if not _locked(lock_file, path.parent):
            raise QueueTakenError(
                f"another topic-import ({_holder(lock_file)}) takes from the queue in "
                f"{path.parent}: wait until it ends or stop it, or give another --out"
            )
    except QueueError:
        os.close(lock_file)
        raise
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


def _locked(lock_file: int, directory: Path) -> bool:
    """Lock the file, trying several times: `status` holds the lock for a moment."""
    for attempt in range(LOCK_ATTEMPTS):
        if _try_lock(lock_file, fcntl.LOCK_EX, directory):
            return True
        time.sleep(LOCK_PAUSE_S if attempt + 1 < LOCK_ATTEMPTS else 0)
    return False


def _try_lock(lock_file: int, kind: int, directory: Path) -> bool:
    """Return whether the file was locked now. Raises QueueError if the place knows no locks."""
    try:
        fcntl.flock(lock_file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD_BY_ANOTHER:
            return False
        raise _refused(directory, error) from None
    return True


def _refused(directory: Path, error: OSError) -> QueueError:
    return QueueError(
        f"{directory}: files cannot be locked there ({error.strerror}), as on some network "
        "shares: --out must lie on a disk of this machine"
    )
