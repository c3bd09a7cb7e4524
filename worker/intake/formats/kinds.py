"""What an input is as a whole, judged by its first bytes before its first record is read."""

import csv
import re
from enum import Enum

import orjson

BEGINNING_BYTES = 1 << 16
"""How much of an input is looked at, if it has so much."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DEAD_LETTER_BEGINNING = b'{"source":'
"""How this program's own dead letters begin; no mapping and no encoding is meant for them."""
SEPARATORS = ",;\t|"
LINES_JUDGED = 20
NAMES_SHOWN = 5
_BLANK = b" \t\r\n"
_LISTS_IN_OBJECT = re.compile(rb'"([^"\\]{1,40})"\s*:\s*\[')


class Kind(Enum):
    """How records stand in an input."""

    LINES = "JSON Lines"
    DOCUMENT = "a JSON document"
    TABLE = "a table"
    PARQUET = "Parquet"


class FormatError(Exception):
    """An input that holds no records as it is: what it is, and what to do."""


def is_enough(beginning: bytes) -> bool:
    """Return whether more bytes would change no judgement; a slow producer is not waited for."""
    if len(beginning) >= BEGINNING_BYTES:
        return True
    text = beginning.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANK)
    return text.startswith(b"{") and _is_json(text.partition(b"\n")[0]) and b"\n" in text


def refuse_binary(beginning: bytes, name: str) -> None:
    """Raise FormatError if an input is an archive or another file that is no text.

    `beginning`: after any compression that is read. `name`: for the commands in the sentence.
    """
    kind = next((kind for magic, kind in _BINARY if beginning.startswith(magic)), None)
    if beginning.startswith(b"PK\x03\x04") and _is_spreadsheet(beginning):
        kind = _SPREADSHEET
    if beginning[257:262] == b"ustar":
        kind = "a tar archive: unpack it (tar -xf {name}) and name the file in it"
    first = beginning.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANK)[:1]
    if kind is None and first not in {b"{", b"["} and b"\0" in beginning:
        kind = "binary data: export the records as JSON Lines or CSV"
    if kind:
        raise FormatError(kind.format(name=name))


def judge(beginning: bytes, suffix: str, *, has_path: bool) -> Kind:
    """Return what an input is by its first bytes, which are UTF-8 text.

    `suffix`: the end of its name, in lower case, without that of a compression. `has_path`: whether
    the user says where in a document the records are. Raises FormatError for what is none of them.
    """
    text = beginning.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANK)
    if text.startswith(DEAD_LETTER_BEGINNING):
        return Kind.LINES
    if has_path and text:
        return Kind.DOCUMENT
    if text.startswith(b"["):
        first, _, rest = text.partition(b"\n")
        is_line = _is_json(first) and rest.lstrip(_BLANK).startswith(b"{")
        return Kind.LINES if is_line else Kind.DOCUMENT
    if text.startswith(b"{"):
        _refuse_spread_object(text)
        return Kind.LINES
    if suffix in {".csv", ".tsv"} or _looks_like_table(text):
        return Kind.TABLE
    return Kind.LINES


def separator_of(header: str) -> str:
    """Return the character between the cells of a table's first line, a comma if there is none."""
    return max(SEPARATORS, key=lambda separator: len(_cells(header, separator)))


def _refuse_spread_object(text: bytes) -> None:
    first, _, rest = text.partition(b"\n")
    following = rest.lstrip(_BLANK)
    if _is_json(first) or not following or following.startswith(b"{"):
        return
    lists = [name.decode(errors="replace") for name in _LISTS_IN_OBJECT.findall(text)]
    named = ", ".join(dict.fromkeys(lists[:NAMES_SHOWN]))
    raise FormatError(
        "one JSON object over several lines. If it holds a list of records, name it with "
        f"records.path{f' (it holds {named})' if named else ''}; if each object is a record, write "
        "each on a line of its own (jq -c .)"
    )


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _looks_like_table(text: bytes) -> bool:
    lines = text.decode(errors="replace").splitlines()[:LINES_JUDGED]
    if not lines or any(line.startswith(("{", "[")) for line in lines):
        return False
    separator = separator_of(lines[0])
    header = _cells(lines[0], separator)
    is_header = len(header) > 1 and all(header) and len(set(header)) == len(header)
    return is_header and all(len(_cells(line, separator)) == len(header) for line in lines[1:2])


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _is_spreadsheet(beginning: bytes) -> bool:
    return any(name in beginning for name in (b"xl/", b"[Content_Types].xml", b"opendocument.sp"))


_SPREADSHEET = "a spreadsheet: save its sheet as CSV (UTF-8), its columns of IDs as text"
_BINARY = (
    (
        b"PK\x03\x04",
        "a zip archive: unpack it (unzip {name}) and name the file in it that holds the records",
    ),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it (7z x {name}) and name the file in it"),
    (b"Rar!\x1a\x07", "a rar archive: unpack it (unrar x {name}) and name the file in it"),
    (
        b"SQLite format 3\0",
        "an SQLite database: export a table (sqlite3 -json {name} 'SELECT * FROM channels' > "
        "channels.json)",
    ),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _SPREADSHEET),
    (b"%PDF", "a PDF: export the records as JSON Lines or CSV"),
    (b"Obj\x01", "an Avro file: convert it to JSON Lines (avro-tools tojson {name})"),
    (b"ORC", "an ORC file: convert it to JSON Lines or Parquet"),
)
