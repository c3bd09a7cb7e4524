"""Compressed inputs: by which first bytes a format is known, and how it is unpacked."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

CHUNK_BYTES = 1 << 18
ZSTANDARD_PIECE_BYTES = 1 << 10
"""What is unpacked at once: 1 KB of zstandard may become 32 MB, and no more."""
Unpack = Callable[[Iterator[bytes]], Iterator[bytes]]


class CompressionError(Exception):
    """A compressed file that cannot be unpacked to its end; the text names format and reason."""


@dataclass(frozen=True, slots=True)
class Compression:
    """One format.

    `suffix`: how its files' names end, in lower case. `magic`: the first bytes of its files.
    `unpack`: from chunks of packed bytes to unpacked ones; raises CompressionError.
    """

    name: str
    suffix: str
    magic: bytes
    unpack: Unpack


def by_suffix(suffix: str) -> Compression | None:
    """Return the format that the end of a file's name stands for, None if it stands for none."""
    return next((known for known in COMPRESSIONS if known.suffix == suffix), None)


def by_magic(beginning: bytes) -> Compression | None:
    """Return the format that a file with these first bytes has, None if it has none."""
    return next((known for known in COMPRESSIONS if beginning.startswith(known.magic)), None)


class ChunkFile(io.RawIOBase):
    """Chunks of bytes as a file, for the readers of the standard library."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(cast("bytearray", buffer))
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _with_file(
    name: str, open_file: Callable[[Any], io.BufferedIOBase], *damage: type[Exception]
) -> Unpack:
    """Return how to unpack with a reader of the standard library.

    `damage`: what reading a damaged file raises; a file that is cut off raises EOFError.
    """

    def unpack(chunks: Iterator[bytes]) -> Iterator[bytes]:
        packed = io.BufferedReader(ChunkFile(chunks), CHUNK_BYTES)
        try:
            with open_file(packed) as file:
                while chunk := file.read1(CHUNK_BYTES):
                    yield chunk
        except EOFError:
            raise CompressionError(f"the {name} file is cut off") from None
        except damage:
            raise CompressionError(f"not a sound {name} file") from None

    return unpack


def _unpack_zstandard(chunks: Iterator[bytes]) -> Iterator[bytes]:
    # Not its reader of files, which ends without a word where a file is cut off.
    import zstandard  # noqa: PLC0415 - only who reads such a file pays for it

    frame = None
    try:
        for packed in _pieces(chunks):
            rest = packed
            while rest:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(rest)
                rest = frame.unused_data
                frame = None if frame.eof else frame
    except zstandard.ZstdError:
        raise CompressionError("not a sound zstandard file") from None
    if frame is not None:
        raise CompressionError("the zstandard file is cut off")


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), ZSTANDARD_PIECE_BYTES):
            yield chunk[start : start + ZSTANDARD_PIECE_BYTES]


COMPRESSIONS = (
    Compression(
        "gzip",
        ".gz",
        b"\x1f\x8b",
        _with_file("gzip", lambda file: gzip.GzipFile(fileobj=file), gzip.BadGzipFile, zlib.error),
    ),
    Compression("zstandard", ".zst", b"\x28\xb5\x2f\xfd", _unpack_zstandard),
    Compression("bzip2", ".bz2", b"BZh", _with_file("bzip2", bz2.BZ2File, OSError)),
    Compression("xz", ".xz", b"\xfd7zXZ\x00", _with_file("xz", lzma.LZMAFile, lzma.LZMAError)),
)
