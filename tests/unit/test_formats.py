"""Tables, Parquet, compressions and encodings: the same records come out of each."""

import bz2
import gzip
import io
import lzma
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from worker.intake.formats import parquet, table
from worker.intake.formats.json_lines import Line
from worker.intake.formats.kinds import FormatError
from worker.intake.formats.table import TableError
from worker.intake.opening import lines_of
from worker.intake.sources import InputError, UnsupportedInputError, expand, resolve

GROUP = "@TGS#_a"
RECORDS = [{"GroupId": GROUP, "TopicName": f"话题 {number}"} for number in range(200)]
LINES = b"".join(orjson.dumps(record) + b"\n" for record in RECORDS)
BYTES_MAX = 100_000


def rows(text: str) -> list[Line]:
    return list(table.rows(iter(io.StringIO(text, newline="")), 100))


def read(path: Path, **given: Any) -> list[dict[str, Any]]:
    return [line.record() for line in lines_of(resolve(str(path), **given), BYTES_MAX)]


def test_a_row_is_an_object_of_header_to_text_without_empty_cells() -> None:
    found = rows('id, GroupId ,TopicName\r\n1,a,"x, ""y""\nz"\r\n\r\n,,\r\n2,,b')
    assert [(line.number, line.record()) for line in found] == [
        (2, {"id": "1", "GroupId": "a", "TopicName": 'x, "y"\nz'}),
        (6, {"id": "2", "TopicName": "b"}),
    ]
    assert found[0].content == orjson.dumps(found[0].record())


def test_a_spreadsheet_may_name_its_separator() -> None:
    (line,) = rows("sep=;\na,b;c\n1;2\n")
    assert (line.number, line.record()) == (3, {"a,b": "1", "c": "2"})
    assert rows("sep=\na,b\n1,2\n")[0].record() == {"a": "1", "b": "2"}
    assert rows("") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a,b\n1\n", "the row has 1 cells, the header has 2"),
        ("a,b\n1,2,3\n", "the row has 3 cells, the header has 2"),
        ("a,\n1,2\n", "the row has a value in a column without a name"),
    ],
)
def test_a_row_that_does_not_fit_its_header_is_invalid(text: str, problem: str) -> None:
    (line,) = rows(text)
    with pytest.raises(ValueError, match=problem):
        line.record()


def test_a_column_without_name_may_be_empty() -> None:
    assert rows("a,\n1,\n")[0].record() == {"a": "1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a\n"1\n2', "a quoted cell does not end"),
        ('a\n"' + "x" * 200, "line 2: a quoted cell does not end"),
        ('a\n"1"2\n', "line 2: "),
    ],
)
def test_quotes_that_do_not_fit_end_the_table(text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        rows(text)


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(FormatError, match="the header names two columns a"):
        rows("a,b,a\n1,2,3\n")


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", PACK)
def test_every_compression_is_known_by_its_first_bytes(tmp_path: Path, suffix: str) -> None:
    pack = PACK[suffix]
    path = tmp_path / "a"
    for named in (path, tmp_path / f"a.jsonl.{suffix}"):
        named.write_bytes(pack(LINES) + pack(b""))
        assert read(named) == RECORDS
    path.write_bytes(pack(LINES)[:-20])
    with pytest.raises(InputError, match="cut off|not a sound"):
        read(path)
    path.write_bytes(pack(LINES)[:12] + b"x" * 100)
    with pytest.raises(InputError, match="not a sound|cut off"):
        read(path)
    wrong = tmp_path / f"b.{suffix}"
    wrong.write_bytes(LINES)
    with pytest.raises(InputError, match="not a sound"):
        read(wrong)


def test_an_archive_inside_a_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(b"a".ljust(257, b"\0") + b"ustar"))
    with pytest.raises(UnsupportedInputError, match="a tar archive"):
        resolve(str(path))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-be"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.jsonl"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((mark + LINES.decode()).encode(encoding))
    assert read(path) == RECORDS


def test_an_encoding_that_is_not_the_one_of_the_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"a":"话"}'.encode())
    assert read(path, encoding="latin-1") == [{"a": "\xe8\xaf\x9d"}]
    with pytest.raises(InputError, match="not ascii: ordinal not in range"):
        read(path, encoding="ascii")


def test_a_table_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\nK\xe4se,1\n")
    with pytest.raises(InputError, match=r"not UTF-8 \(byte 0xe4\): name its encoding"):
        read(path)


def test_our_own_dead_letters_have_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "dead-letter.jsonl"
    path.write_bytes('{"source":"话"}'.encode())
    assert read(path, encoding="cp1252", records_path=("a",)) == [{"source": "话"}]


def test_a_broken_document_is_an_error_of_its_input(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a":1}')
    with pytest.raises(InputError, match=r"a\.json: cut off after record 1"):
        read(path)
    path.write_bytes(b'{"a":1}')
    with pytest.raises(UnsupportedInputError, match="there is no list at"):
        read(path, records_path=("b",))


def test_patterns_are_expanded_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "[x].jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "c.jsonl").mkdir()
    names = [Path(path).name for path in expand(f"{tmp_path}/[ab].jsonl")]
    assert names == ["a.jsonl", "b.jsonl"]
    assert expand(f"{tmp_path}/[x].jsonl") == [f"{tmp_path}/[x].jsonl"], "a file, no pattern"
    assert expand("no*such") == ["no*such"]


class TestParquet:
    def write(self, path: Path, columns: dict[str, list[Any]]) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path)

    def test_a_row_is_read_by_its_json_form(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        names = [f"n{number}" for number in range(1200)]
        times = [None, *[1_500_000_000] * 1199]
        self.write(path, {"GroupId": [GROUP] * 1200, "TopicName": names, "CreateTime": times})
        lines = list(lines_of(resolve(str(path)), BYTES_MAX))
        assert [line.number for line in lines] == list(range(1, 1201))
        assert lines[0].record() == {"GroupId": GROUP, "TopicName": "n0"}
        assert lines[-1].content == orjson.dumps(lines[-1].record())

    def test_a_damaged_file_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        self.write(path, {"a": [1, 2]})
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputError, match="not sound Parquet after row 0"):
            read(path)

    def test_only_files_are_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet.gz"
        path.write_bytes(gzip.compress(b"PAR1"))
        with pytest.raises(UnsupportedInputError, match="files that are not compressed"):
            resolve(str(path))

    def test_without_the_library_the_extra_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        path = tmp_path / "a.parquet"
        path.write_bytes(b"PAR1")
        with pytest.raises(UnsupportedInputError, match=r"topic-import-worker\[parquet\]"):
            read(path)

    def test_the_json_form_never_changes(self) -> None:
        row = {
            "text": "话",
            "number": 2**63,
            "float": 1.5,
            "flag": True,
            "null": None,
            "nan": math.nan,
            "time": datetime(2021, 9, 20, 21, 52, 29, 49000, tzinfo=UTC),
            "naive": datetime(2021, 9, 20, 21, 52, 29),  # noqa: DTZ001 - as Parquet holds them
            "date": date(2021, 9, 20),
            "clock": time(21, 52, 29),
            "decimal": Decimal("1.50"),
            "bytes": "话".encode(),
            "binary": b"\xff\x00",
            "list": [1, None, {"a": None, "b": 1}],
        }
        assert parquet.json_form(row) == {
            "text": "话",
            "number": 2**63,
            "float": 1.5,
            "flag": True,
            "time": "2021-09-20T21:52:29.049000+00:00",
            "naive": "2021-09-20T21:52:29",
            "date": "2021-09-20",
            "clock": "21:52:29",
            "decimal": "1.50",
            "bytes": "话",
            "binary": "ff00",
            "list": [1, None, {"b": 1}],
        }
