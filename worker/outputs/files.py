"""Writing to files whole or not at all; names of rotated files."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

PAGE_BYTES = 65_536


def rotated_path(path: Path, seq: int) -> Path:
    return path.with_name(f"{path.stem}.{seq:012}{path.suffix}")


def rotated_seqs(path: Path) -> list[int]:
    names = (found.name for found in path.parent.glob(f"{path.stem}.*{path.suffix}"))
    middles = (name.removeprefix(f"{path.stem}.").removesuffix(path.suffix) for name in names)
    return [int(middle) for middle in middles if middle.isdecimal()]


def write_whole(path: Path, content: bytes) -> None:
    """Replace a small file as a whole; readers see the old one or the new one."""
    fresh = path.with_name(f"{path.name}.new")
    with open_private(fresh, os.O_TRUNC) as file:
        write_all(file, content)
    fresh.replace(path)


def open_private(path: Path, flags: int = 0) -> BinaryIO:
    """Open for reading and writing, made for nobody else to read where it is not there yet."""
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    return os.fdopen(opened, "r+b", buffering=0)


def append_whole(file: BinaryIO, content: bytes) -> None:
    """Write all or, where the disk refuses, nothing: no line stands there torn."""
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
    """Write all or raise: an unbuffered write may take only a part of it."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]
