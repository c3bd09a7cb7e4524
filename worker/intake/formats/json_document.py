"""The records of one JSON document: an array, or what stands at a path in an object.

Each record keeps the bytes that it has in the document, so it is read, hashed and identified as the
same bytes on a line of JSON Lines. (A parser of events, like ijson, would parse all numbers and
names itself: repeated names and half surrogates would vanish before anybody saw them.) What does
not belong to a record is skipped without being held.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import orjson

from worker.intake.formats.json_lines import KEPT_OF_A_LONG_LINE, Line
from worker.intake.formats.kinds import BYTE_ORDER_MARK, FormatError
from worker.rules.record import HASH_BYTES, on_one_line

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_DEPTH_AT_ONCE = 6
_SPACE = re.compile(rb"[ \t\r\n]*+")
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_STRUCTURE = re.compile(rb'["{}\[\]]')
_SCALAR = re.compile(rb"[^,\]\}\s]*+")


def _container(depth: int) -> re.Pattern[bytes]:
    """Return a pattern of a whole object or array that is nested up to a depth."""
    inside = rb'[^"{}\[\]]++|' + _STRING
    for _ in range(depth):
        inside = rb'[^"{}\[\]]++|' + _STRING + rb"|[{\[](?:" + inside + rb")*+[}\]]"
    return re.compile(rb"[{\[](?:" + inside + rb")*+[}\]]", re.DOTALL)


_CONTAINER = _container(_DEPTH_AT_ONCE)


class DocumentError(Exception):
    """A document that cannot be read on; the text says where and why."""


def elements(chunks: Iterator[bytes], path: Sequence[str], bytes_max: int) -> Iterator[Line]:
    """Yield the elements of an array, numbered from 1; of an object at the path, only itself.

    `path`: names that lead to them from the outermost object. Raises DocumentError where the
    document is broken or cut off, FormatError if there is nothing at the path.
    """
    scanner = _Scanner(chunks, bytes_max)
    for name in path:
        _go_to(scanner, name, path)
    beginning = scanner.peek()
    if beginning == b"{" and path:
        yield scanner.element(1)
        return
    if beginning != b"[":
        raise FormatError(f"there is no list at records.path {'.'.join(path)}")
    number = 0
    for number in _positions(scanner):
        yield scanner.element(number)
    if not path and scanner.peek():
        raise DocumentError(f"something follows the array, after record {number}")


def _go_to(scanner: "_Scanner", wanted: str, path: Sequence[str]) -> None:
    """Move to the value of a name in the object that begins here."""
    if scanner.peek() != b"{":
        raise FormatError(f"there is no list at records.path {'.'.join(path)}")
    scanner.skip()
    while (character := scanner.peek()) == b'"':
        name = scanner.string()
        if scanner.peek() != b":":
            raise DocumentError(f"no colon follows the name {name}")
        scanner.skip()
        if name == wanted:
            return
        scanner.pass_value()
        if scanner.peek() == b",":
            scanner.skip()
    if not character:
        raise DocumentError("the document is cut off")
    raise FormatError(f"there is no list at records.path {'.'.join(path)}")


def _positions(scanner: "_Scanner") -> Iterator[int]:
    """Yield the numbers of the elements of the array that begins here, before each of them."""
    scanner.skip()
    if scanner.peek() == b"]":
        scanner.skip()
        return
    number = 0
    while True:
        number += 1
        if not scanner.peek():
            raise DocumentError(f"the document is cut off after record {number - 1}")
        yield number
        character = scanner.peek()
        scanner.skip()
        if character == b"]":
            return
        if character != b",":
            where = f"after record {number}"
            raise DocumentError(
                f"neither a comma nor ] follows {where}" if character else f"cut off {where}"
            )
        if scanner.peek() == b"]":
            raise DocumentError(f"a comma and no record stand before the ], after record {number}")


class _Scanner:
    """A position in a document of which one piece is in memory."""

    def __init__(self, chunks: Iterator[bytes], bytes_max: int) -> None:
        self._chunks = chunks
        self._bytes_max = bytes_max
        self._piece = b""
        self._at = 0
        self._is_first = True

    def peek(self) -> bytes:
        """Return the next character that is no white space, b"" at the end; stay before it."""
        while True:
            found = _SPACE.match(self._piece, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._piece):
                return self._piece[self._at : self._at + 1]
            if not self._more():
                return b""

    def skip(self) -> None:
        """Move past the next character."""
        self._at += 1

    def string(self) -> str:
        """Read the text that begins here."""
        raw = b"".join(self._value())
        try:
            text: str = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise DocumentError(f"not JSON: {error.msg}") from None
        return text

    def pass_value(self) -> None:
        """Move past the value that begins here, and keep nothing of it."""
        self.peek()
        for _ in self._value():
            pass

    def element(self, number: int) -> Line:
        """Read the value that begins here as a record; of one that is too long the beginning."""
        self.peek()
        whole = _CONTAINER.match(self._piece, self._at)
        if whole and whole.end() - self._at <= self._bytes_max:
            self._at = whole.end()
            return Line(number, on_one_line(whole[0]))
        kept, size, hashed = b"", 0, blake2b(digest_size=HASH_BYTES)
        for piece in self._value():
            size += len(piece)
            hashed.update(piece)
            kept = (kept + piece)[: self._bytes_max + 1]
        if size > self._bytes_max:
            return Line(number, on_one_line(kept[:KEPT_OF_A_LONG_LINE]), hashed.digest(), size)
        return Line(number, on_one_line(kept))

    def _value(self) -> Iterator[bytes]:
        """Yield the value that begins here in pieces, and move past it."""
        if self._piece[self._at : self._at + 1] not in {b"{", b"[", b'"'}:
            yield from self._scalar()
            return
        ending = _Ending()
        while True:
            start = self._at
            self._at, is_whole = ending.find(self._piece, start)
            yield self._piece[start : self._at]
            if is_whole:
                return
            if not self._more():
                raise DocumentError("the document is cut off")

    def _scalar(self) -> Iterator[bytes]:
        while True:
            found = _SCALAR.match(self._piece, self._at)
            end = found.end() if found else self._at
            yield self._piece[self._at : end]
            self._at = end
            if end < len(self._piece) or not self._more():
                return

    def _more(self) -> bool:
        """Add the next chunk to what was not passed yet; return whether there was one."""
        chunk = next(self._chunks, b"")
        if self._is_first:
            self._is_first = False
            chunk = chunk.removeprefix(BYTE_ORDER_MARK)
        self._piece = self._piece[self._at :] + chunk
        self._at = 0
        return bool(chunk)


class _Ending:
    """Finds the end of a text, an object or an array, piece by piece."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = False

    def find(self, piece: bytes, start: int) -> tuple[int, bool]:
        """Return up to where the value is in a piece, and whether it ends there.

        If it does not, the next piece must begin with what is left of this one.
        """
        at = start
        while at < len(piece):
            if self._is_in_string:
                found = _IN_STRING.match(piece, at)
                at = found.end() if found else at
                if piece[at : at + 1] != b'"':
                    return at, False  # the text goes on, perhaps after a backslash
                at += 1
                self._is_in_string = False
            else:
                mark = _STRUCTURE.search(piece, at)
                if mark is None:
                    return len(piece), False
                at = mark.end()
                self._is_in_string = mark[0] == b'"'
                self._depth += (mark[0] in b"{[") - (mark[0] in b"}]")
            if self._depth == 0 and not self._is_in_string:
                return at, True
        return at, False
