"""The records of an input as lines, whatever its format."""

import io
from collections.abc import Iterator

from worker.intake.compression import ChunkFile
from worker.intake.formats import json_document, json_lines, parquet, table
from worker.intake.formats.json_lines import Line
from worker.intake.formats.kinds import FormatError, Kind
from worker.intake.sources import InputError, Opened, Source, UnsupportedInputError, open_source


def lines_of(source: Source, line_bytes_max: int) -> Iterator[Line]:
    """Yield the records of an input as lines, in their order.

    Of a line longer than `line_bytes_max` bytes only the beginning is kept. Raises InputError after
    what could be read, UnsupportedInputError before anything is read of an input without records.
    """
    opened = open_source(source)
    try:
        match opened.kind:
            case Kind.LINES:
                yield from json_lines.split(opened.chunks, line_bytes_max)
            case Kind.DOCUMENT:
                yield from json_document.elements(
                    opened.chunks, source.records_path, line_bytes_max
                )
            case Kind.TABLE:
                yield from table.rows(_text_lines(opened), line_bytes_max)
            case Kind.PARQUET:
                yield from parquet.rows(source.path)
    except FormatError as error:
        raise UnsupportedInputError(f"{source.name}: {error}") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{source.name}: not UTF-8 (byte 0x{byte:02x}): name its encoding, for example "
            'records.encoding = "cp1252"'
        ) from None
    except (json_document.DocumentError, table.TableError, parquet.ParquetError) as error:
        raise InputError(f"{source.name}: {error}") from None


def _text_lines(opened: Opened) -> Iterator[str]:
    raw = io.BufferedReader(ChunkFile(opened.chunks))
    return iter(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""))
