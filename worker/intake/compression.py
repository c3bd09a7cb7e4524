"""Compressed inputs: by which name and first bytes a format is known, and how it is unpacked."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedIOBase


class CompressionError(Exception):
    """A compressed file that cannot be unpacked to its end; the text names format and reason."""


@dataclass(frozen=True, slots=True)
class Compression:
    """One format.

    `suffix`: how its files' names end, in lower case. `magic`: the first bytes of its files.
    `damage`: what reading a damaged file raises; a file that is cut off raises EOFError.
    """

    name: str
    suffix: str
    magic: bytes
    open: Callable[[str], BufferedIOBase]
    damage: tuple[type[Exception], ...]


GZIP = Compression(
    name="gzip",
    suffix=".gz",
    magic=b"\x1f\x8b",
    open=gzip.GzipFile,
    damage=(gzip.BadGzipFile, zlib.error),
)
COMPRESSIONS = (GZIP,)


def by_suffix(suffix: str) -> Compression | None:
    """Return the format that the end of a file's name stands for, None if it stands for none."""
    return next((known for known in COMPRESSIONS if known.suffix == suffix), None)


def by_magic(beginning: bytes) -> Compression | None:
    """Return the format that a file with these first bytes has, None if it has none."""
    return next((known for known in COMPRESSIONS if beginning.startswith(known.magic)), None)


def unpacked(path: str, compression: Compression, chunk_bytes: int) -> Iterator[bytes]:
    """Yield the content of a compressed file in chunks of at most `chunk_bytes`.

    Raises CompressionError after the last bytes that could be unpacked, OSError if the file cannot
    be opened or read.
    """
    try:
        with compression.open(path) as file:
            while chunk := file.read1(chunk_bytes):
                yield chunk
    except EOFError:
        raise CompressionError(f"the {compression.name} file is cut off") from None
    except compression.damage:
        raise CompressionError(f"not a sound {compression.name} file") from None
