"""The inputs that a user names, and the bytes in them."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from worker.intake.compression import (
    Compression,
    CompressionError,
    by_magic,
    by_suffix,
    unpacked,
)
from worker.rules.record import STANDARD_INPUT

CHUNK_BYTES = 1 << 18
STANDARD_INPUT_FD = 0
DEAD_LETTER_BEGINNING = b'{"source":'
_NOT_YET = {".csv": "CSV", ".zst": "zstandard"}


class InputError(Exception):
    """An input that cannot be read; the sentence names it and the reason."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    `path`: what to open. `name`: the path as the user gave it, bytes that are not UTF-8 escaped.
    `holds_dead_letters`: it begins like a dead-letter file. `size_bytes`: how much of it to read;
    None: to its end.
    """

    path: str
    name: str
    compression: Compression | None = None
    holds_dead_letters: bool = False
    size_bytes: int | None = None


def resolve(path: str) -> Source:
    """Open an input once before anything starts, and return what is known of it.

    Raises InputError if it is missing, cannot be read, or has a format that is not supported.
    """
    if path == STANDARD_INPUT:
        if sys.stdin is None or sys.stdin.closed:
            raise InputError("-: standard input is closed")
        return Source(path, path)
    name = os.fsencode(path).decode(errors="backslashreplace")
    try:
        status = Path(path).stat()
        beginning = _beginning(path, status.st_mode)
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path!r}: {error}") from None
    compression = by_suffix(Path(path).suffix.lower())
    _refuse_format(name, Path(path), compression, beginning)
    return Source(
        path,
        name,
        compression,
        holds_dead_letters=beginning.startswith(DEAD_LETTER_BEGINNING),
        size_bytes=_size_to_read(status, compression),
    )


def _beginning(path: str, mode: int) -> bytes:
    """Return the first bytes of a file; nothing of a pipe, which would lose them."""
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return b""
    with Path(path).open("rb") as file:
        return file.read(len(DEAD_LETTER_BEGINNING))


def _size_to_read(status: os.stat_result, compression: Compression | None) -> int | None:
    # A plain file is read to the size that it has now; the next run reads what is appended later.
    # Otherwise the job's own dead-letter file, read as an input, would never end.
    return status.st_size if stat.S_ISREG(status.st_mode) and compression is None else None


def _refuse_format(
    name: str, path: Path, compression: Compression | None, beginning: bytes
) -> None:
    suffix = path.suffix.lower()
    inner_suffix = path.with_suffix("").suffix.lower() if compression else suffix
    for ending in (suffix, inner_suffix):
        if ending in _NOT_YET:
            raise InputError(
                f"{name}: {_NOT_YET[ending]} is not read by this version: "
                "convert it to JSON Lines (.jsonl or .jsonl.gz)"
            )
    found = by_magic(beginning)
    if found and found != compression:
        raise InputError(
            f"{name}: this is a {found.name} file: give it a name that ends in {found.suffix}"
        )


def chunks(source: Source) -> Iterator[bytes]:
    """Yield the bytes of a source, unpacked, in chunks of at most CHUNK_BYTES.

    Raises InputError, after what could be read, if the source vanished, cannot be read on, is
    damaged or cut off.
    """
    try:
        if source.path == STANDARD_INPUT:
            yield from _standard_input()
        elif source.compression:
            yield from unpacked(source.path, source.compression, CHUNK_BYTES)
        else:
            yield from _plain(source)
    except CompressionError as error:
        raise InputError(
            f"{source.name}: {error}: fetch it again, then run the same command"
        ) from None
    except OSError as error:
        raise InputError(f"{source.name}: {error.strerror or error}") from None


def _standard_input() -> Iterator[bytes]:
    # Not through sys.stdin: a thread that waits in it holds its lock, and the exit would hang.
    while chunk := os.read(STANDARD_INPUT_FD, CHUNK_BYTES):
        yield chunk


def _plain(source: Source) -> Iterator[bytes]:
    left = source.size_bytes
    with closing(Path(source.path).open("rb", buffering=0)) as file:
        while chunk := file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
            if left is not None:
                left -= len(chunk)
            yield chunk
