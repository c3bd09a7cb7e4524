"""The inputs that a user names, what they are, and the bytes in them."""

import codecs
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from worker.intake.compression import CHUNK_BYTES, CompressionError, by_magic, by_suffix
from worker.intake.formats.kinds import (
    DEAD_LETTER_BEGINNING,
    FormatError,
    Kind,
    is_enough,
    judge,
    refuse_binary,
)
from worker.rules.record import STANDARD_INPUT

STANDARD_INPUT_FD = 0
PARQUET_MAGIC = b"PAR1"
MAGIC_BYTES = 512
"""Enough to know a compression, an archive or a byte order mark."""
GLOB_CHARACTERS = "*?["
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


class InputError(Exception):
    """An input that cannot be read; the sentence names it and the reason."""


class UnsupportedInputError(InputError):
    """An input of which nothing is read: it is no file with records as it is."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    `path`: what to open. `name`: the path as the user gave it, bytes that are not UTF-8 escaped.
    `holds_dead_letters`: it begins like a dead-letter file. `size_bytes`: how much of it to read;
    None: to its end. `records_path`: where in a JSON document the records are. `encoding`: how its
    text is encoded; None: UTF-8, or UTF-16 by its mark.
    """

    path: str
    name: str
    holds_dead_letters: bool = False
    size_bytes: int | None = None
    records_path: tuple[str, ...] = ()
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An input that is being read: what it is, and its text in UTF-8 (not of Parquet)."""

    kind: Kind
    chunks: Iterator[bytes]


def expand(pattern: str) -> list[str]:
    """Return the files that a path names: those that match it if it is a pattern and no file."""
    path = Path(pattern)
    if not any(character in pattern for character in GLOB_CHARACTERS) or path.exists():
        return [pattern]
    root = Path(path.anchor) if path.anchor else Path()
    parts = path.relative_to(path.anchor) if path.anchor else path
    return sorted(str(found) for found in root.glob(str(parts)) if found.is_file()) or [pattern]


def resolve(path: str, records_path: tuple[str, ...] = (), encoding: str | None = None) -> Source:
    """Return what is known of an input, which is looked at once before anything starts.

    A pipe is looked at when it is read. Raises InputError if it is missing, cannot be read, or
    holds no records as it is (UnsupportedInputError).
    """
    if path == STANDARD_INPUT:
        if sys.stdin is None or sys.stdin.closed:
            raise InputError("-: standard input is closed")
        return Source(path, path, records_path=records_path, encoding=encoding)
    name = os.fsencode(path).decode(errors="backslashreplace")
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path!r}: {error}") from None
    if stat.S_ISDIR(status.st_mode):
        example = Path(name) / "*.jsonl"
        raise InputError(f"{name}: a directory: name its files, for example '{example}'")
    source = Source(path, name, records_path=records_path, encoding=encoding)
    if not stat.S_ISREG(status.st_mode):
        return source
    opened = open_source(source)
    beginning = b"" if opened.kind is Kind.PARQUET else next(opened.chunks, b"")
    return Source(
        path,
        name,
        holds_dead_letters=beginning.startswith(DEAD_LETTER_BEGINNING),
        # Read to the size that it has now; the next run reads what is appended later. Otherwise the
        # job's own dead-letter file, read as an input, would never end.
        size_bytes=status.st_size,
        records_path=records_path,
        encoding=encoding,
    )


def open_source(source: Source) -> Opened:
    """Open an input and judge what it is by its first bytes.

    Raises InputError if that is nothing that can be read. Its chunks raise InputError, after what
    could be read, if it cannot be read on, is damaged or cut off.
    """
    beginning, chunks = _begun(_raw(source), lambda read: len(read) >= MAGIC_BYTES)
    compression = by_magic(beginning)
    suffixes = [suffix.lower() for suffix in Path(source.name).suffixes]
    if compression is not None:
        unpacked = _with_sentences(source, compression.unpack(chunks))
        beginning, chunks = _begun(unpacked, lambda read: len(read) >= MAGIC_BYTES)
    named = by_suffix(suffixes[-1]) if suffixes else None
    if named is not None:
        if named != compression and beginning:
            raise InputError(
                f"{source.name}: not a sound {named.name} file: fetch it again, or name it as what "
                "it is"
            )
        suffixes.pop()
    try:
        if beginning.startswith(PARQUET_MAGIC):
            _require_file(source, is_packed=compression is not None)
            return Opened(Kind.PARQUET, iter(()))
        return _open_text(source, beginning, chunks, suffixes[-1] if suffixes else "")
    except FormatError as error:
        raise UnsupportedInputError(f"{source.name}: {error}") from None


def _open_text(source: Source, beginning: bytes, chunks: Iterator[bytes], suffix: str) -> Opened:
    encoding = source.encoding or _UTF_16.get(beginning[:2])
    if beginning.startswith(DEAD_LETTER_BEGINNING):
        encoding = None
    if encoding is None or not encoding.startswith("utf-16"):
        refuse_binary(beginning, source.name)
    if encoding is not None:
        chunks = _transcoded(source, chunks, encoding)
    beginning, chunks = _begun(chunks, is_enough)
    kind = judge(beginning, suffix, has_path=bool(source.records_path))
    return Opened(kind, chunks)


def _require_file(source: Source, *, is_packed: bool) -> None:
    if is_packed or not Path(source.path).is_file():
        raise FormatError("Parquet is read from files that are not compressed: name the file")


def _begun(
    chunks: Iterator[bytes], is_enough: Callable[[bytes], bool]
) -> tuple[bytes, Iterator[bytes]]:
    """Return the beginning of some chunks, and the chunks with it."""
    beginning, failed = b"", None
    try:
        for chunk in chunks:
            beginning += chunk
            if is_enough(beginning):
                break
    except InputError as error:
        failed = error
    rest = chunks if failed is None else _failing(failed)
    return beginning, chain([beginning] if beginning else [], rest)


def _failing(error: InputError) -> Iterator[bytes]:
    """Raise an error where the chunks would go on."""
    yield b""
    raise error


def _raw(source: Source) -> Iterator[bytes]:
    try:
        yield from _standard_input() if source.path == STANDARD_INPUT else _file(source)
    except OSError as error:
        raise InputError(f"{source.name}: {error.strerror or error}") from None


def _standard_input() -> Iterator[bytes]:
    # Not through sys.stdin: a thread that waits in it holds its lock, and the exit would hang.
    while chunk := os.read(STANDARD_INPUT_FD, CHUNK_BYTES):
        yield chunk


def _file(source: Source) -> Iterator[bytes]:
    left = source.size_bytes
    with closing(Path(source.path).open("rb", buffering=0)) as file:
        while chunk := file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
            if left is not None:
                left -= len(chunk)
            yield chunk


def _with_sentences(source: Source, chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except CompressionError as error:
        raise InputError(
            f"{source.name}: {error}: fetch it again, then run the same command"
        ) from None


def _transcoded(source: Source, chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield text in UTF-8, without a byte order mark."""
    decoder = codecs.getincrementaldecoder(encoding)()
    is_first = True
    try:
        for chunk in chain(chunks, [b""]):
            text = decoder.decode(chunk, final=not chunk)
            if is_first:
                text = text.removeprefix("\ufeff")
                is_first = not text
            if text:
                yield text.encode()
    except UnicodeError as error:
        reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
        raise InputError(f"{source.name}: not {encoding}: {reason}") from None
