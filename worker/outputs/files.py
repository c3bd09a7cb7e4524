"""Writing files whole or not at all, and the names of rotated files."""

import errno
import os
from contextlib import suppress
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
    with open_private(fresh, os.O_TRUNC) as file:
        write_all(file, content)
    fresh.replace(path)


def open_private(path: Path, flags: int = 0) -> BinaryIO:
    """Open for reading and writing; a file that is created can be read by its owner only."""
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    return os.fdopen(opened, "r+b", buffering=0)


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
