"""Text from strangers on one visible line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rules.visible_text import visible, visible_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with spaces", "plain, with spaces"),
        ("Überschrift 话题 👍", "Überschrift 话题 👍"),
        ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
        ("a\r\nFAKE LINE\tb", r"a\r\nFAKE LINE\tb"),
        ("\x00\x7f\x85\x9b", r"\x00\x7f\x85\x9b"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\u202egnp.exe\u2066\u200b\ufeff", r"\u202egnp.exe\u2066\u200b\ufeff"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", r"\udcff"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_a_visible_text_is_one_line_and_stays_as_it_is(text: str) -> None:
    shown = visible(text)
    assert len(shown.splitlines()) <= 1
    assert visible(shown) == shown
    assert not any("\x00" <= character < " " for character in shown)


def test_a_traceback_keeps_its_own_lines() -> None:
    assert visible_lines("one\n  two\x1b\n") == "one\n  two\\x1b\n"
