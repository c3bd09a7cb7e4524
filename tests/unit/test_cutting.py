"""Cutting texts that are too long at the end of what people see as one character."""

from itertools import accumulate
from typing import Any

import orjson
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import case_records
from tests.support.strategies import GROUP
from worker.rules.topic.characters import is_blank
from worker.rules.topic.cutting import cut
from worker.rules.topic.fields import FieldLimits
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, Topic, to_topic

RULES = RecordRules(truncate=True)
PIECES = st.sampled_from(
    [
        "a", " ", "\n", "话", "é", "e\u0301", "\u0301", "กี่", "👍🏽", "👨‍👩‍👧‍👦", "🇩🇪", "🇩",
        "\u200d", "\u200b", "❤️", "\ufe0f", "क्षि", "ന്\u200d", "각", "\u1100", "\u115f", "\r\n",
        "\u0600",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.lists(PIECES, max_size=30).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
)


def boundaries(text: str) -> list[int]:
    return [0, *accumulate(len(cluster) for cluster in regex.findall(r"\X", text))]


def cut_topic(**fields: Any) -> Topic:
    return to_topic({"GroupId": GROUP, "TopicName": "general"} | fields, RULES)


@given(TEXTS, st.integers(1, 80))
def test_what_is_cut_fits_and_ends_well(text: str, bytes_max: int) -> None:
    kept = cut(text, bytes_max)
    assert len(kept.encode()) <= bytes_max
    assert text.startswith(kept)
    assert len(kept) in boundaries(text)
    assert not kept.endswith("\u200d")
    assert kept == kept.rstrip()
    assert not kept or not is_blank(kept)


@given(TEXTS, st.integers(1, 80))
def test_only_what_does_not_fit_or_end_well_is_lost(text: str, bytes_max: int) -> None:
    kept = cut(text, bytes_max)
    for end in boundaries(text):
        if end > len(kept):
            longer = text[:end]
            last = regex.findall(r"\X", longer)[-1]
            fits = len(longer.encode()) <= bytes_max
            assert not fits or is_blank(last) or last[-1] == "\u200d" or last[-1].isspace()


@given(TEXTS)
def test_a_text_that_fits_is_untouched(text: str) -> None:
    limits = FieldLimits(introduction=len(text.encode()))
    rules = RecordRules(truncate=True, limits=limits)
    try:
        topic = to_topic({"GroupId": GROUP, "TopicName": "x", "Introduction": text}, rules)
    except InvalidRecordError as error:
        assert "control character" in str(error)  # noqa: PT017
        return
    assert orjson.loads(topic.body)["Introduction"] == text
    assert topic.truncated == ()


def test_names_are_cut_between_what_people_see_as_characters() -> None:
    cut_names = [to_topic(record, RULES).name for record in case_records("names-to-cut.jsonl")]
    assert cut_names == [
        "团队讨论",
        "Caf\xe9 " + "e\u0301" * 8,
        "Thai กี่กี่",
        "Plans 👍🏽👍🏽👍🏽",
    ]


@pytest.mark.parametrize(
    ("text", "bytes_max", "kept"),
    [
        ("ab cd", 3, "ab"),
        ("🇩🇪🇫🇷", 12, "🇩🇪"),
        ("❤️❤️", 6, "❤️"),
        ("ab\u200d\u200dcd", 8, "a"),
        ("a \ufe0fb", 5, "a"),
        ("\u0600  x", 3, ""),
        ("👨‍👩‍👧‍👦", 24, ""),
        ("e" + "\u0301" * 100_000, 30, ""),
    ],
)
def test_nothing_is_left_dangling(text: str, bytes_max: int, kept: str) -> None:
    assert cut(text, bytes_max) == kept


def test_only_what_people_read_is_cut() -> None:
    topic = cut_topic(TopicName="x" * 31, Introduction="y" * 241, Notification="z" * 301)
    assert topic.truncated == ("TopicName", "Notification", "Introduction")
    for field, length in (("FaceUrl", 101), ("CustomString", 3001)):
        with pytest.raises(InvalidRecordError, match=f"{field} has {length} bytes of UTF-8"):
            cut_topic(**{field: "x" * length})


def test_a_name_of_one_character_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidRecordError, match="TopicName has 201 bytes of UTF-8, 30 are"):
        cut_topic(TopicName="e" + "\u0301" * 100)
