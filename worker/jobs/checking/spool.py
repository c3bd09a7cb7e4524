"""More entries than memory should hold, divided into partitions that fit into it one by one."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

PARTITIONS = 256
MEMORY_BYTES_MAX = 16 << 20
"""What one spool holds before it writes to its file: half a million entries of 32 bytes."""


class Spool:
    """Entries in partitions: in memory up to a bound, from then on in a temporary file.

    The file has no name: it is gone with the process, however that ends. Its writes raise OSError
    with the name of the temporary directory.
    """

    def __init__(self, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self._memory_bytes_max = memory_bytes_max
        self._buffers = [bytearray() for _ in range(PARTITIONS)]
        self._held_bytes = 0
        self._file: BinaryIO | None = None
        self._file_bytes = 0
        self._segments: list[list[tuple[int, int]]] = [[] for _ in range(PARTITIONS)]
        """For each partition: where its pieces begin in the file, and their lengths."""

    def add(self, entries: Iterable[bytes]) -> None:
        """Add entries; the first byte of an entry is the number of its partition."""
        buffers, added_bytes = self._buffers, 0
        for entry in entries:
            buffers[entry[0]] += entry
            added_bytes += len(entry)
        self._held_bytes += added_bytes
        if self._held_bytes > self._memory_bytes_max:
            self._write()

    def partitions(self) -> Iterator[bytes]:
        """Yield the content of each partition that has one: its entries in the order of adding."""
        for buffer, segments in zip(self._buffers, self._segments, strict=True):
            pieces = [self._read(at, size) for at, size in segments]
            content = b"".join([*pieces, buffer])
            if content:
                yield content

    def close(self) -> None:
        """Remove the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()
            for number, buffer in enumerate(self._buffers):
                self._segments[number].append((self._file_bytes, len(buffer)))
                _write_all(self._file.fileno(), buffer)
                self._file_bytes += len(buffer)
                buffer.clear()
        except OSError as error:
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from None
        self._held_bytes = 0

    def _read(self, at: int, size: int) -> bytes:
        assert self._file is not None  # noqa: S101 - there are segments
        return os.pread(self._file.fileno(), size, at)


def _write_all(file: int, content: bytearray) -> None:
    written = 0
    while written < len(content):
        written += os.write(file, memoryview(content)[written:])
