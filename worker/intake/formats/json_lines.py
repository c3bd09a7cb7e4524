"""JSON Lines: bytes become numbered lines; a line that is too long is never held in memory."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

from worker.intake.formats.kinds import BYTE_ORDER_MARK
from worker.rules.record import HASH_BYTES, content_hash
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.problems import InvalidRecordError

KEPT_OF_A_LONG_LINE = 1024
WHITE_SPACE = b" \t\r\n"


class Line:
    """One line that is not blank.

    Other formats make lines of their records, too. `number`: from 1, blank lines counted; of an
    array the number of the element, of a table the first line of the row. `content`: the line
    without the white space around it. Of a line that is too long `content` is a beginning
    (KEPT_OF_A_LONG_LINE bytes), and `too_long_bytes` the length; else 0. `parsed`: the record, if
    its format has parsed it already. `problem`: why the record cannot be read, if its format knows.
    """

    __slots__ = ("_hash", "content", "number", "parsed", "problem", "too_long_bytes")

    def __init__(
        self,
        number: int,
        content: bytes,
        hashed: bytes | None = None,
        too_long_bytes: int = 0,
        *,
        parsed: dict[str, Any] | None = None,
        problem: str | None = None,
    ) -> None:
        self.number = number
        self.content = content
        self.too_long_bytes = too_long_bytes
        self.parsed = parsed
        self.problem = problem
        self._hash = hashed

    def record(self) -> dict[str, Any]:
        """Return the record. Raises InvalidRecordError if the line is none."""
        if self.parsed is not None:
            return self.parsed
        if self.too_long_bytes:
            raise InvalidRecordError([self._too_long()], is_object=False)
        if self.problem:
            raise InvalidRecordError([self.problem], is_object=False)
        return parse_record(self.content)

    def _too_long(self) -> str:
        return (
            f"the line has {self.too_long_bytes} bytes, too long (records.max_line_bytes), and "
            "only its beginning is kept"
        )

    @property
    def content_hash(self) -> bytes:
        """Return HASH_BYTES over all of the line."""
        if self._hash is None:
            self._hash = content_hash(self.content)
        return self._hash


def split(chunks: Iterable[bytes], line_bytes_max: int) -> Iterator[Line]:
    """Yield the lines in chunks of bytes, however the chunks divide them.

    LF and CRLF end a line. A byte order mark and blank lines are skipped. What follows the last
    line end is a line, too.
    """
    number = 1
    unended = _Unended(line_bytes_max)
    line: Line | None
    for chunk in _without_mark(chunks):
        first, *pieces = chunk.split(b"\n")
        unended.add(first)
        if not pieces:
            continue
        if line := unended.line(number):
            yield line
        unended.add(pieces.pop())
        for piece in pieces:
            number += 1
            content = piece.strip(WHITE_SPACE)
            if len(piece) > line_bytes_max:
                line = _line(number, piece, line_bytes_max)
            else:
                line = Line(number, content) if content else None
            if line:
                yield line
        number += 1
    if line := unended.line(number):
        yield line


def _line(number: int, content: bytes, line_bytes_max: int) -> Line | None:
    unended = _Unended(line_bytes_max)
    unended.add(content)
    return unended.line(number)


class _Unended:
    """A line whose end was not read yet. Of one that is too long only the beginning is kept."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._content = b""
        self._bytes = 0
        self._hash: blake2b | None = None

    def add(self, piece: bytes) -> None:
        """Add the next bytes of the line."""
        self._bytes += len(piece)
        if self._hash is not None:
            self._hash.update(piece)
            self._content += piece[: KEPT_OF_A_LONG_LINE - len(self._content)]
            return
        self._content = self._content + piece if self._content else piece
        # One more for a carriage return, which does not count.
        if self._bytes > self._line_bytes_max + 1:
            self._become_long()

    def line(self, number: int) -> Line | None:
        """Return the line, None for a blank one, and begin the next."""
        stripped = self._content.strip(WHITE_SPACE)
        if self._hash is None and len(stripped) > self._line_bytes_max:
            self._become_long()
        line: Line | None = None
        if self._hash is not None:
            line = Line(number, self._content, self._hash.digest(), self._bytes)
        elif stripped:
            line = Line(number, stripped)
        self._content, self._bytes, self._hash = b"", 0, None
        return line

    def _become_long(self) -> None:
        self._hash = blake2b(self._content, digest_size=HASH_BYTES)
        self._content = self._content[:KEPT_OF_A_LONG_LINE]


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
