"""The records of one JSON document, however its chunks are divided."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.intake.formats.json_document import DocumentError, elements
from worker.intake.formats.kinds import FormatError
from worker.rules.topic.problems import InvalidRecordError

BYTES_MAX = 1000
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=5),
    st.sampled_from(['"', "\\", "[{", "}]", '\\"', "\n"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def chunked(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def read(content: bytes, *path: str, size: int = 10_000) -> list[tuple[int, Any]]:
    lines = elements(chunked(content, size), path, BYTES_MAX)
    return [(line.number, orjson.loads(line.content)) for line in lines]


@given(st.lists(VALUES, max_size=5), st.integers(1, 7), st.booleans())
def test_every_element_is_read_once(values: list[Any], size: int, is_indented: object) -> None:
    content = orjson.dumps(values, option=orjson.OPT_INDENT_2 if is_indented else None)
    assert read(content, size=size) == list(enumerate(values, 1))


@given(VALUES, st.lists(VALUES, max_size=3), VALUES, st.integers(1, 9))
def test_what_stands_before_and_after_is_passed_over(
    before: Any, values: list[Any], after: Any, size: int
) -> None:
    document = {"before": before, "a.b": {"x": before, "list": values, "y": after}, "after": after}
    found = read(orjson.dumps(document), "a.b", "list", size=size)
    assert found == list(enumerate(values, 1))


def test_an_object_at_the_path_is_one_record() -> None:
    document = {"guild": {"id": 1}, "channel": {"id": 2}, "messages": [1, 2]}
    assert read(orjson.dumps(document), "channel") == [(1, {"id": 2})]


def test_an_element_nested_deeper_than_is_matched_at_once_is_read() -> None:
    deep: Any = 1
    for _ in range(50):
        deep = {"a": [deep]}
    assert read(orjson.dumps([deep, {"b": 1}])) == [(1, deep), (2, {"b": 1})]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_element_that_is_too_long_is_told_and_passed_over(size: int) -> None:
    content = orjson.dumps([{"a": "x" * 5000}, {"b": 1}, {"a": "x" * 5000}])
    first, second, third = elements(chunked(content, size), (), BYTES_MAX)
    assert (first.too_long_bytes, first.content[:5]) == (5008, b'{"a":')
    assert first.content_hash == third.content_hash
    assert second.content == b'{"b":1}'
    with pytest.raises(InvalidRecordError, match="5008 bytes, too long"):
        first.record()


def test_a_record_keeps_its_bytes_on_one_line() -> None:
    content = b'[\n  {\n    "a":  1.0,\r\n    "b": "\\u8bdd"\n  }\n]'
    (line,) = elements(iter([content]), (), BYTES_MAX)
    assert line.content == b'{     "a":  1.0,      "b": "\\u8bdd"   }'


def test_a_name_that_stands_twice_is_refused_as_on_a_line() -> None:
    (line,) = elements(iter([b'[{"a":1,"a":2}]']), (), BYTES_MAX)
    with pytest.raises(InvalidRecordError, match="a stands more than once"):
        line.record()


@pytest.mark.parametrize(
    ("content", "path", "message"),
    [
        (b'[{"a":1}', (), "cut off after record 1"),
        (b'[{"a":1},', (), "cut off after record 1"),
        (b'[{"a":"', (), "cut off"),
        (b"[", (), "cut off after record 0"),
        (b'[{"a":1} {"b":1}]', (), "neither a comma nor ] follows after record 1"),
        (b'[{"a":1},]', (), "a comma and no record stand before the ], after record 1"),
        (b"[1] 2", (), "something follows the array, after record 1"),
        (b'{"x":1', ("a",), "cut off"),
        (b'{"x" 1}', ("a",), "no colon follows the name x"),
        (b'{"\\x":1}', ("a",), "not JSON"),
    ],
)
def test_a_broken_document_is_told_with_its_place(
    content: bytes, path: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DocumentError, match=message):
        list(elements(iter([content]), path, BYTES_MAX))


@pytest.mark.parametrize(
    ("content", "path"),
    [
        (b'{"x":1}', ("a",)),
        (b'{"a":1}', ("a",)),
        (b'{"a":[]}', ("a", "b")),
        (b"{}", ("a",)),
        (b"[]", ("a",)),
    ],
)
def test_a_path_that_leads_to_no_list_is_told(content: bytes, path: tuple[str, ...]) -> None:
    with pytest.raises(FormatError, match=r"there is no list at records\.path"):
        list(elements(iter([content]), path, BYTES_MAX))
