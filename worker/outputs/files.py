"""Regular files only: opening, writing whole or not at all, and the names of rotated files."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO

PAGE_BYTES = 65_536
OUT_OF_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of a disk that may be over once somebody made room."""


def rotated_path(path: Path, seq: int) -> Path:
    """Return the path of a rotated file, whose last line has the number `seq`."""
    return path.with_name(f"{path.stem}.{seq:012}{path.suffix}")


def rotated_seqs(path: Path) -> list[int]:
    """Return the numbers in the names of all files that were rotated away from `path`."""
    names = (found.name for found in path.parent.glob(f"{path.stem}.*{path.suffix}"))
    middles = (name.removeprefix(f"{path.stem}.").removesuffix(path.suffix) for name in names)
    return [int(middle) for middle in middles if middle.isdecimal()]


def write_whole(path: Path, content: bytes) -> None:
    """Replace a small file. Readers see the old or the new one, never a part. Raises OSError."""
    fresh = path.with_name(f"{path.name}.new")
    with open_private(fresh, os.O_TRUNC) as file, naming(path):
        write_all(file, content)
    fresh.replace(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an OSError that does not: a write by a file descriptor knows no path."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def open_private(path: Path, flags: int = 0) -> BinaryIO:
    """Open for reading and writing; a file that is created can be read by its owner only.

    Raises OSError, also for everything that is no regular file: a link is not followed.
    """
    opened = _open_regular(path, os.O_RDWR | os.O_CREAT | flags)
    return os.fdopen(opened, "r+b", buffering=0)


def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file to read it. Raises OSError as `open_private`."""
    return os.fdopen(_open_regular(path, os.O_RDONLY), "rb")


def irregular(path: Path) -> str | None:
    """Return what stands in the place of a regular file, None for a file or for nothing."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def set_aside(path: Path, why: str) -> Path:
    """Rename a file to a dated name that is free, which tells `why`; return the new path."""
    aside = next(name for name in _dated_names(path, why) if not os.path.lexists(name))
    path.rename(aside)
    return aside


def _dated_names(path: Path, why: str) -> Iterator[Path]:
    dated = f"{path.name}.{why}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    yield path.with_name(dated)
    for number in count(2):
        yield path.with_name(f"{dated}-{number}")


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _open_regular(path: Path, flags: int) -> int:
    # Without O_NONBLOCK the opening of a named pipe would wait for its other end.
    wanted = flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(path, wanted, 0o600)
    except OSError as error:
        kind = irregular(path)
        if kind is None:
            raise
        reason = f"{error.strerror} ({not_regular(kind)})"
        raise OSError(error.errno, reason, str(path)) from None
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, not_regular(irregular(path) or "no regular file"), str(path))
    return opened


def not_regular(kind: str) -> str:
    """Return why what is no regular file is refused. `kind`: as `irregular` names it."""
    return f"it is {kind}, and must be a regular file of this job"


def append_whole(file: BinaryIO, content: bytes) -> None:
    """Append all of `content`, or nothing if the disk refuses. Raises OSError."""
    end = file.tell() if file.seekable() else None
    try:
        write_all(file, content)
    except OSError:
        if end is not None:
            file.seek(end)
            with suppress(OSError):  # a device has no length
                file.truncate()
        raise


def write_all(file: BinaryIO, content: bytes) -> None:
    """Write all of `content`; one unbuffered write may take only a part. Raises OSError."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
