"""Parquet: each row becomes an object by its JSON form; the row's number is its position.

The JSON form of a value: texts, whole numbers, true and false as they are; null and NaN are absent;
a time in ISO 8601, a date as 2021-09-20; a decimal as text; bytes as the UTF-8 text that they are,
else in hexadecimal; lists and structs as arrays and objects. It decides the identity of a record
without key, and must not change.
"""

import math
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

import orjson

from worker.intake.formats.json_lines import Line
from worker.intake.formats.kinds import FormatError

BATCH_ROWS = 500
NEEDS_EXTRA = "Parquet needs the extra: pip install 'topic-import-worker[parquet]'"


class ParquetError(Exception):
    """A file that cannot be read on; the text says why."""


def rows(path: str) -> Iterator[Line]:
    """Yield the rows of a file, numbered from 1.

    Raises FormatError without the library, ParquetError for a damaged file.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - only who reads Parquet pays for it
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise FormatError(NEEDS_EXTRA) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield _line(number, row)
    except pa.ArrowException as error:
        raise ParquetError(f"not sound Parquet after row {number}: {error}") from None


def _line(number: int, row: dict[str, Any]) -> Line:
    record = json_form(row)
    return Line(number, orjson.dumps(record), parsed=record)


def json_form(value: Any) -> Any:
    """Return a value as JSON has it; None for one that is absent."""
    match value:
        case dict():
            formed = {name: json_form(inner) for name, inner in value.items()}
            return {name: inner for name, inner in formed.items() if inner is not None}
        case list():
            return [json_form(inner) for inner in value]
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return _text(value)
        case float():
            return None if math.isnan(value) else value
        case None | str() | int():
            return value
        case _:
            return str(value)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()
