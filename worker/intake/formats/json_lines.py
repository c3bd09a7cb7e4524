"""JSON Lines: bytes become numbered lines; a line that is too long is never held in memory."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from worker.rules.record import HASH_BYTES, content_hash

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
KEPT_OF_A_LONG_LINE = 1024
WHITE_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank.

    `number`: from 1, blank lines counted. `content`: the line without the white space around it.
    `content_hash`: HASH_BYTES over all of it. Of a line that is too long `content` is a beginning
    (KEPT_OF_A_LONG_LINE bytes), and `too_long_bytes` the length; else 0.
    """

    number: int
    content: bytes
    content_hash: bytes
    too_long_bytes: int = 0


def split(chunks: Iterable[bytes], line_bytes_max: int) -> Iterator[Line]:
    """Yield the lines in chunks of bytes, however the chunks divide them.

    LF and CRLF end a line. A byte order mark and blank lines are skipped. What follows the last
    line end is a line, too.
    """
    number = 0
    rest = b""
    long_line: _LongLine | None = None
    for chunk in _without_mark(chunks):
        pieces = chunk.split(b"\n")
        last = len(pieces) - 1
        for index, piece in enumerate(pieces):
            if long_line is None and len(rest) + len(piece) > line_bytes_max + 1:
                long_line = _LongLine(rest)
                rest = b""
            if long_line is not None:
                long_line.add(piece)
            else:
                rest = rest + piece if rest else piece
            if index == last:
                break
            number += 1
            line = long_line.line(number) if long_line else _line(number, rest, line_bytes_max)
            rest, long_line = b"", None
            if line:
                yield line
    line = long_line.line(number + 1) if long_line else _line(number + 1, rest, line_bytes_max)
    if line:
        yield line


def _line(number: int, content: bytes, line_bytes_max: int) -> Line | None:
    stripped = content.strip(WHITE_SPACE)
    if not stripped:
        return None
    if len(stripped) > line_bytes_max:
        long_line = _LongLine(b"")
        long_line.add(content)
        return long_line.line(number)
    return Line(number, stripped, content_hash(stripped))


class _LongLine:
    """A line that is too long: its bytes are counted and hashed, and only the beginning kept."""

    def __init__(self, beginning: bytes) -> None:
        self._kept = b""
        self._bytes = 0
        self._hash = hashlib.blake2b(digest_size=HASH_BYTES)
        self.add(beginning)

    def add(self, piece: bytes) -> None:
        if len(self._kept) < KEPT_OF_A_LONG_LINE:
            self._kept = (self._kept + piece[:KEPT_OF_A_LONG_LINE])[:KEPT_OF_A_LONG_LINE]
        self._bytes += len(piece)
        self._hash.update(piece)

    def line(self, number: int) -> Line:
        return Line(number, self._kept, self._hash.digest(), self._bytes)


def _without_mark(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Drop a byte order mark, which a pipe may deliver in pieces."""
    beginning: bytes | None = b""
    for chunk in chunks:
        if beginning is None:
            yield chunk
            continue
        beginning += chunk
        if len(beginning) >= len(BYTE_ORDER_MARK):
            yield beginning.removeprefix(BYTE_ORDER_MARK)
            beginning = None
    if beginning:
        yield beginning
