"""Hypothesis strategies for records."""

from typing import Any

from hypothesis import strategies as st

from worker.rules.topic.characters import is_blank

GROUP = "@TGS#_@TGS#cGRP0001"

_ASCII = st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="@#")
_TEXT = st.characters(exclude_categories=["Cs"])
_OF_A_NAME = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])
_OF_A_TEXT = st.one_of(st.characters(exclude_categories=["Cs", "Cc"]), st.sampled_from("\t\n\r"))


def texts(bytes_max: int, *, bytes_min: int = 0) -> st.SearchStrategy[str]:
    return st.text(_TEXT, min_size=bytes_min, max_size=bytes_max).filter(
        lambda text: len(text.encode()) <= bytes_max
    )


def topic_names() -> st.SearchStrategy[str]:
    """Generate valid names; `is_blank` decides which of them people can see."""
    names = st.text(_OF_A_NAME, min_size=1, max_size=30)
    return names.filter(lambda name: len(name.encode()) <= 30 and not is_blank(name))


def free_texts(bytes_max: int) -> st.SearchStrategy[str]:
    """Generate texts of one or more lines."""
    return st.text(_OF_A_TEXT, max_size=bytes_max).filter(
        lambda text: len(text.encode()) <= bytes_max
    )


def group_ids() -> st.SearchStrategy[str]:
    return st.text(_ASCII, min_size=1, max_size=42).map(lambda own: f"@TGS#_{own}")


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Generate any valid record, with any of the optional fields."""
    group_id = draw(group_ids())
    topic_ids = st.text(_ASCII, min_size=1, max_size=40).map(lambda own: f"{group_id}@TOPIC#_{own}")
    optional = {
        "TopicId": topic_ids,
        "Type": st.just("Community"),
        "From_Account": st.one_of(st.integers(0, 2**64 - 1), texts(32, bytes_min=1)),
        "CustomString": free_texts(200),
        "FaceUrl": free_texts(100),
        "Notification": free_texts(100),
        "Introduction": free_texts(100),
        "CreateTime": st.integers(0, 2**32 - 1),
    }
    record: dict[str, Any] = {"GroupId": group_id, "TopicName": draw(topic_names())}
    return record | draw(st.fixed_dictionaries({}, optional=optional))
