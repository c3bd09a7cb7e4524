"""Hypothesis strategies for records."""

from typing import Any

from hypothesis import strategies as st

GROUP = "@TGS#_@TGS#cGRP0001"

_ASCII = st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="@#")
_TEXT = st.characters(exclude_categories=["Cs"])


def texts(bytes_max: int, *, bytes_min: int = 0) -> st.SearchStrategy[str]:
    return st.text(_TEXT, min_size=bytes_min, max_size=bytes_max).filter(
        lambda text: len(text.encode()) <= bytes_max
    )


def topic_names() -> st.SearchStrategy[str]:
    return texts(30, bytes_min=1)


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
        "CustomString": texts(200),
        "FaceUrl": texts(100),
        "Notification": texts(100),
        "Introduction": texts(100),
        "CreateTime": st.integers(0, 2**32 - 1),
    }
    record: dict[str, Any] = {"GroupId": group_id, "TopicName": draw(topic_names())}
    return record | draw(st.fixed_dictionaries({}, optional=optional))
