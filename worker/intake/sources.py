"""What a user names as input, and the bytes in it."""

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from worker.rules.record import STANDARD_INPUT

CHUNK_BYTES = 1 << 18
GZIP_MAGIC = b"\x1f\x8b"
DEAD_LETTER_BEGINNING = b'{"source":'
_NOT_YET = {".csv": "CSV", ".zst": "zstandard"}


class InputError(Exception):
    """An input that cannot be read; the sentence says which and why."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input. `path`: what to open; `size_bytes` of a plain file at the start.

    `name`: the path as the user gave it, bytes that are no UTF-8 escaped.
    """

    path: str
    name: str
    is_gzip: bool = False
    holds_dead_letters: bool = False
    size_bytes: int | None = None


def resolve(path: str) -> Source:
    """Look at an input before anything starts.

    Raises InputError for one that is missing, no file, not readable, or of an unknown format.
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
    suffix = Path(path).suffix.lower()
    _refuse_format(name, Path(path), beginning)
    # What a growing file holds beyond its size at the start is the next run's; the job's own
    # dead-letter file, read as input, would else never end.
    size_bytes = status.st_size if stat.S_ISREG(status.st_mode) and suffix != ".gz" else None
    return Source(
        path, name, suffix == ".gz", beginning.startswith(DEAD_LETTER_BEGINNING), size_bytes
    )


def _beginning(path: str, mode: int) -> bytes:
    """Look into a file; a pipe is left alone, what was looked at would be missing later."""
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return b""
    with Path(path).open("rb") as file:
        return file.read(len(DEAD_LETTER_BEGINNING))


def _refuse_format(name: str, path: Path, beginning: bytes) -> None:
    suffix = path.suffix.lower()
    inner = path.with_suffix("").suffix.lower() if suffix == ".gz" else suffix
    for ending in (suffix, inner):
        if ending in _NOT_YET:
            raise InputError(
                f"{name}: {_NOT_YET[ending]} is not read by this version: "
                "convert it to JSON Lines (.jsonl or .jsonl.gz)"
            )
    if beginning.startswith(GZIP_MAGIC) and suffix != ".gz":
        raise InputError(f"{name}: this is a gzip file: give it a name that ends in .gz")


def chunks(source: Source) -> Iterator[bytes]:
    """Yield the bytes of a source, unpacked, a chunk at a time.

    Raises InputError where it vanished, cannot be read on, or is cut off.
    """
    try:
        yield from _chunks(source)
    except EOFError:
        raise InputError(
            f"{source.name}: the gzip file is cut off: fetch it again, then run the same command"
        ) from None
    except (gzip.BadGzipFile, zlib.error):
        raise InputError(
            f"{source.name}: not a sound gzip file: fetch it again, then run the same command"
        ) from None
    except OSError as error:
        raise InputError(f"{source.name}: {error.strerror or error}") from None


def _chunks(source: Source) -> Iterator[bytes]:
    if source.path == STANDARD_INPUT:
        # Not through sys.stdin: its lock, held by a waiting thread, would stall the exit.
        while chunk := os.read(0, CHUNK_BYTES):
            yield chunk
        return
    if source.is_gzip:
        with gzip.open(source.path, "rb") as unpacked:
            while chunk := unpacked.read1(CHUNK_BYTES):
                yield chunk
        return
    left = source.size_bytes
    with closing(Path(source.path).open("rb", buffering=0)) as plain:
        while chunk := plain.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
            if left is not None:
                left -= len(chunk)
            yield chunk
