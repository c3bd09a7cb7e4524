"""CSV and TSV: each row becomes an object of header to cell text; an empty cell is absent."""

import csv
from collections import Counter
from collections.abc import Iterator

import orjson

from worker.intake.formats.json_lines import Line
from worker.intake.formats.kinds import FormatError, separator_of

SEPARATOR_LINE = "sep="
"""With such a first line a spreadsheet says which character stands between the cells."""


class TableError(Exception):
    """A table that cannot be read on; the text says where and why."""


def rows(lines: Iterator[str], cell_bytes_max: int) -> Iterator[Line]:
    """Yield the rows below the header, numbered by the first line that each has.

    `lines`: with their line ends, which may stand inside quotes. Raises TableError for quotes that
    do not end, FormatError for a header that names two columns alike.
    """
    csv.field_size_limit(cell_bytes_max)
    before = 0
    header_line = next(lines, "")
    separator = None
    if header_line.lower().startswith(SEPARATOR_LINE):
        separator = header_line[len(SEPARATOR_LINE) :].strip("\r\n") or None
        header_line, before = next(lines, ""), 1
    reader = csv.reader(
        _chained(header_line, lines), delimiter=separator or separator_of(header_line), strict=True
    )
    try:
        header = [name.strip() for name in next(reader, [])]
        _refuse_header(header)
        start = before + reader.line_num + 1
        for cells in reader:
            if any(cells):
                yield _row(start, header, cells)
            start = before + reader.line_num + 1
    except csv.Error as error:
        raise TableError(f"line {before + reader.line_num}: {_in_words(error)}") from None


def _chained(first: str, lines: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from lines


def _row(number: int, header: list[str], cells: list[str]) -> Line:
    if len(cells) != len(header):
        problem = f"the row has {len(cells)} cells, the header has {len(header)}"
        return Line(number, orjson.dumps(cells), problem=problem)
    if "" in header and any(cell and not name for name, cell in zip(header, cells, strict=True)):
        problem = "the row has a value in a column without a name"
        return Line(number, orjson.dumps(cells), problem=problem)
    record = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    return Line(number, orjson.dumps(record), parsed=record)


def _refuse_header(header: list[str]) -> None:
    repeated = [name for name, count in Counter(header).items() if name and count > 1]
    if repeated:
        raise FormatError(f"the header names two columns {repeated[0]}")


def _in_words(error: csv.Error) -> str:
    text = str(error)
    if "field limit" in text or "unexpected end of data" in text:
        return "a quoted cell does not end: is a quote missing, or is the file cut off?"
    return text
