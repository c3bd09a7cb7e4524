"""What an input is as a whole is judged by its first bytes."""

import io
import zipfile

import pytest

from worker.intake.formats.kinds import (
    BEGINNING_BYTES,
    FormatError,
    Kind,
    is_enough,
    judge,
    refuse_binary,
    separator_of,
)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("beginning", "suffix", "kind"),
    [
        (b"", "", Kind.LINES),
        (b'{"a":1}\n{"a":2}', ".csv", Kind.LINES),
        (b'\xef\xbb\xbf\r\n {"a":1}', "", Kind.LINES),
        (b'{"a": torn\n{"a":1}', "", Kind.LINES),
        (b'{"a": torn', "", Kind.LINES),
        (b'{"source":"x","record":{\n}', "", Kind.LINES),
        (b"[1]\n{}\n", "", Kind.LINES),
        (b'[\n {"a":1}', "", Kind.DOCUMENT),
        (b'[{"a":1},', "", Kind.DOCUMENT),
        (b"[]", ".jsonl", Kind.DOCUMENT),
        (b"GroupId,TopicName\na,b\n", "", Kind.TABLE),
        (b"GroupId\tTopicName", "", Kind.TABLE),
        (b'"GroupId";"TopicName"\n"a;b";c\n', "", Kind.TABLE),
        (b"GroupId\na\n", ".csv", Kind.TABLE),
        (b"GroupId\na\n", "", Kind.LINES),
        (b"hello, world\nonce more", "", Kind.LINES),
        (b'hello, world\n{"a":1,"b":2}', "", Kind.LINES),
        (b"a,a\n1,2", "", Kind.LINES),
        (b'"text"', "", Kind.LINES),
    ],
)
def test_an_input_is_judged_as_a_whole(beginning: bytes, suffix: str, kind: Kind) -> None:
    assert judge(beginning, suffix, has_path=False) is kind


def test_with_a_path_every_text_is_a_document_but_our_own_dead_letters() -> None:
    assert judge(b'{"channels":[]}', "", has_path=True) is Kind.DOCUMENT
    assert judge(b"", "", has_path=True) is Kind.LINES
    assert judge(b'{"source":"x"}', "", has_path=True) is Kind.LINES


def test_an_object_over_several_lines_is_refused_with_the_lists_in_it() -> None:
    with pytest.raises(FormatError, match=r"records\.path \(it holds channels\)"):
        judge(b'{\n "channels": [\n {"a": 1}]}', "", has_path=False)
    with pytest.raises(FormatError, match=r"with records\.path; if each object"):
        judge(b'{\n "a": 1\n}\n{\n "a": 2\n}', "", has_path=False)


@pytest.mark.parametrize(
    ("beginning", "message"),
    [
        (zipped("channels.json"), r"a zip archive: unpack it \(unzip x\)"),
        (zipped("xl/workbook.xml"), "a spreadsheet: save its sheet as CSV"),
        (zipped("[Content_Types].xml"), "a spreadsheet"),
        (zipped(), "an empty zip archive"),
        (b"channels.json".ljust(257, b"\0") + b"ustar\x0000", "a tar archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07\x01", "a rar archive"),
        (b"SQLite format 3\0", "sqlite3 -json x"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet"),
        (b"%PDF-1.7", "a PDF"),
        (b"Obj\x01", "an Avro file"),
        (b"ORC", "an ORC file"),
        (b"\x00\x01\x02", "binary data"),
    ],
)
def test_what_is_no_text_is_refused_with_what_to_do(beginning: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        refuse_binary(beginning, "x")


def test_a_zero_in_a_line_of_json_makes_no_binary() -> None:
    refuse_binary(b'{"a":1}\n\0\0', "x")
    refuse_binary(b'\xef\xbb\xbf{"a":1}\n\0\0', "x")
    refuse_binary(b"", "x")


@pytest.mark.parametrize(
    ("beginning", "enough"),
    [
        (b"", False),
        (b'{"a":1}', False),
        (b'{"a":1}\n', True),
        (b"{\n", False),
        (b"a,b\n1,2\n", False),
        (b"a" * BEGINNING_BYTES, True),
    ],
)
def test_a_slow_producer_of_lines_is_not_waited_for(beginning: bytes, enough: object) -> None:
    assert is_enough(beginning) is enough


@pytest.mark.parametrize(
    ("header", "separator"),
    [("a,b;c,d", ","), ("a;b", ";"), ("a\tb,c\td", "\t"), ('"a|b";c', ";"), ("a", ",")],
)
def test_the_separator_with_the_most_cells_is_the_one(header: str, separator: str) -> None:
    assert separator_of(header) == separator
