"""The quick look at a record says the same as the close one, or nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import GROUP, records
from worker.rules.topic.fields import FIELDS
from worker.rules.topic.identity import derive_topic_id, digest_in, identity_digest
from worker.rules.topic.plain import SHAPES_REMEMBERED, PlainReader
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, Topic, _Reading, plain_body, to_topic

ODD_VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "x" * 40, "话" * 11, " \t", "a\x07", "a\nb", 0, -1, 2**32, 2**64, 1.5, True, [], {}]
)
ODD_IDS = st.sampled_from([f"{GROUP}@TOPIC#_", f"{GROUP}@TOPIC#_a", "@TGS#_a", "x" * 97, "话"])
RULES = st.sampled_from(
    [
        RecordRules(),
        RecordRules(key_field="id"),
        RecordRules(derive_ids=False, truncate=True),
        RecordRules(fields={"title": "TopicName"}),
    ]
)


@st.composite
def odd_records(draw: st.DrawFn) -> dict[str, Any]:
    """Return a valid record with a few values that mostly are not."""
    names = st.sampled_from([*FIELDS, "id", "title", "colour"])
    values = st.one_of(ODD_VALUES, ODD_IDS)
    return draw(records()) | draw(st.dictionaries(names, values, max_size=3))


def read_closely(record: dict[str, Any], rules: RecordRules) -> Topic | str:
    try:
        return _Reading(record, rules).topic(None)
    except InvalidRecordError as error:
        return str(error)


def read(record: dict[str, Any], rules: RecordRules) -> Topic | str:
    try:
        return to_topic(record, rules)
    except InvalidRecordError as error:
        return str(error)


@given(odd_records(), RULES)
def test_a_quick_look_changes_nothing(record: dict[str, Any], rules: RecordRules) -> None:
    assert read(record, rules) == read_closely(record, rules)


@given(records())
def test_valid_records_need_no_close_look(record: dict[str, Any]) -> None:
    assert plain_body(record, RecordRules()) is not None


def test_any_number_of_shapes_is_read() -> None:
    plain = PlainReader(RecordRules().limits, None)
    for number in range(SHAPES_REMEMBERED + 10):
        assert plain.body({"GroupId": GROUP, "TopicName": "a", f"x{number}": 1}) is None
    assert plain.body({"GroupId": GROUP, "TopicName": "a"}) is not None


@pytest.mark.parametrize("key", [None, "room-17", 17])
def test_a_derived_topic_id_holds_its_digest(key: str | int | None) -> None:
    record = {"GroupId": GROUP, "TopicName": "a"}
    topic_id = derive_topic_id(GROUP, key, record)
    assert digest_in(topic_id, GROUP) == identity_digest(key, record)
    assert digest_in(f"{GROUP}@TOPIC#_own", GROUP) is None
