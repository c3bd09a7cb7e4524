"""Texts that people cannot use: names with nothing to see, and control characters."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import GROUP
from worker.rules.topic.characters import is_blank, is_visible
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, to_topic

INVISIBLE = st.one_of(
    st.characters(categories=["Zs", "Cf", "Mn", "Mc", "Me"]),
    st.sampled_from("\u3164\u115f\u1160\uffa0\u2800\ufe0f\u034f\u2065\ufff0\U000e0080\U000e01ef"),
)


def problem_of(**fields: str) -> str | None:
    try:
        to_topic({"GroupId": GROUP, "TopicName": "general"} | fields, RecordRules())
    except InvalidRecordError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        (" ", "U+0020"),
        ("   \t ", "U+0020 U+0009"),
        ("\u00a0\u00a0", "U+00A0"),
        ("\u200b", "U+200B"),
        ("\u200d\u200d ", "U+200D U+0020"),
        ("\u3164", "U+3164"),
        ("\u2800", "U+2800"),
        ("\ufe0f", "U+FE0F"),
        ("\u0301\u0301", "U+0301"),
        ("\U000e0041", "U+E0041"),
        ("\u200b\u200c\u200d\u2060", "U+200B U+200C U+200D ..."),
    ],
)
def test_a_name_with_nothing_to_see_is_refused(name: str, codes: str) -> None:
    assert problem_of(TopicName=name) == f"TopicName has nothing that people can see, only {codes}"


@given(st.text(INVISIBLE, min_size=1, max_size=7))
def test_no_mix_of_invisible_characters_is_a_name(name: str) -> None:
    assert is_blank(name)
    assert "nothing that people can see" in str(problem_of(TopicName=name))


@given(st.text(INVISIBLE, max_size=3), st.characters(categories=["L", "N", "P", "S", "Co", "Cn"]))
def test_one_visible_character_makes_a_name(around: str, character: str) -> None:
    if is_visible(character):
        assert problem_of(TopicName=f"{around}{character}{around}") is None
    else:
        assert unicodedata.category(character) in {"Lo", "So", "Cn"}


@pytest.mark.parametrize("name", ["话", "☕", "❤️", "👨‍👩‍👧‍👦", "กี่", "ᅟᅡ", "1️⃣", "می‌خواهم"])
def test_names_with_joiners_and_marks_are_valid(name: str) -> None:
    assert problem_of(TopicName=name) is None


@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029])
def test_no_control_may_stand_in_a_name(number: int) -> None:
    problem = str(problem_of(TopicName=f"a{chr(number)}b"))
    assert problem.startswith("TopicName holds the ")
    assert problem.endswith(f" U+{number:04X}")


@pytest.mark.parametrize("field", ["CustomString", "FaceUrl", "Notification", "Introduction"])
@pytest.mark.parametrize("number", [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029])
def test_texts_may_hold_tabs_and_line_ends_only(field: str, number: int) -> None:
    problem = problem_of(**{field: f"a{chr(number)}b"})
    if chr(number) in "\t\n\r\u2028\u2029":
        assert problem is None
    else:
        assert problem == f"{field} holds the control character U+{number:04X}"
