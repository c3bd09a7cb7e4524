"""Splitting chunks of bytes into lines."""

from hypothesis import given
from hypothesis import strategies as st

from worker.intake.formats.json_lines import split
from worker.rules.record import content_hash

LINE_MAX = 20


def numbered(content: bytes, sizes: list[int]) -> list[tuple[int, bytes, int]]:
    pieces, rest = [], content
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    lines = split([piece for piece in [*pieces, rest] if piece], LINE_MAX)
    return [(line.number, line.content, line.too_long_bytes) for line in lines]


CONTENTS = st.lists(
    st.sampled_from(
        [b"a", b"{}", b" ", b"\r", b"\n", b"\n", b"x" * 19, b"y" * 30, b"\xef\xbb\xbf"]
    ),
    max_size=30,
).map(b"".join)


@given(CONTENTS, st.lists(st.integers(1, 7), max_size=20))
def test_chunk_boundaries_do_not_change_the_lines(content: bytes, sizes: list[int]) -> None:
    assert numbered(content, sizes) == numbered(content, [])


@given(CONTENTS)
def test_every_nonblank_line_is_returned_once_with_its_number(content: bytes) -> None:
    expected = [
        number
        for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
        if line.strip(b" \t\r") or len(line) > LINE_MAX + 1
    ]
    assert [number for number, _, _ in numbered(content, [])] == expected


def test_crlf_blank_lines_and_byte_order_mark_are_skipped() -> None:
    content = b"\xef\xbb\xbf{}\r\n\r\n  \n{ }\r\nlast"
    assert numbered(content, [1, 1, 1]) == [(1, b"{}", 0), (4, b"{ }", 0), (5, b"last", 0)]


def test_an_overlong_line_keeps_its_beginning_length_and_hash() -> None:
    chunks = [b"x" * 1000] * 100
    (line,) = split([*chunks, b"\n"], 50_000)
    assert line.too_long_bytes == 100_000
    assert len(line.content) == 1024
    assert line.content_hash == content_hash(b"x" * 100_000)


def test_overlong_lines_with_different_ends_have_different_hashes() -> None:
    one, two = split([b"x" * 40 + b"1\n" + b"x" * 40 + b"2\n"], LINE_MAX)
    assert one.content_hash != two.content_hash
