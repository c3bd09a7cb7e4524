"""Other names, places and forms of the fields of a record."""

from typing import Any

import pytest

from tests.support.strategies import GROUP
from worker.rules.topic.identity import derive_topic_id
from worker.rules.topic.mapping import parse_path, spell_path
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, Topic, to_topic

CHANNEL = {
    "id": "C0",
    "name": "general",
    "created": 1_500_000_000,
    "purpose": {"value": "For everyone", "creator": ""},
    "a.b": 0,
}
SLACK: dict[str, Any] = {
    "fields": {"name": "TopicName", "created": "CreateTime", "purpose.value": "Introduction"},
    "constants": {"GroupId": GROUP},
    "key_field": "id",
}


def mapped(record: dict[str, Any], **rules: Any) -> Topic:
    return to_topic(record, RecordRules(**rules))


def problems(record: dict[str, Any], **rules: Any) -> list[str]:
    with pytest.raises(InvalidRecordError) as caught:
        mapped(record, **rules)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("name", ("name",)),
        ("purpose.value", ("purpose", "value")),
        (r"a\.b.c", ("a.b", "c")),
        (r"a\\.b\\\.c", ("a\\", "b\\.c")),
        ("a..b", ("a", "", "b")),
        ("", ("",)),
    ],
)
def test_a_path_is_read_as_it_is_spelled(text: str, path: tuple[str, ...]) -> None:
    assert parse_path(text) == path
    assert spell_path(path) == text


def test_nested_values_and_constants_become_fields() -> None:
    topic = mapped(CHANNEL, **SLACK, ignored=["purpose.creator", r"a\.b"])
    assert topic.group_id == GROUP
    assert topic.name == "general"
    assert topic.key == "C0"
    assert b'"Introduction":"For everyone","CreateTime":1500000000' in topic.body


def test_names_that_nothing_maps_are_problems_unless_they_are_to_be_ignored() -> None:
    assert problems(CHANNEL, **SLACK) == [
        "unknown field purpose.creator",
        "unknown field a.b",
    ]
    assert mapped(CHANNEL, **SLACK, ignore_unknown=True).name == "general"


def test_null_is_no_field_whatever_its_name() -> None:
    record = {"GroupId": GROUP, "TopicName": "a", "retention": None, "folder": {"id": None}}
    assert mapped(record, fields={"folder.name": "Introduction"}).name == "a"
    assert mapped(record | {"folder": None}).name == "a"


def test_an_ignored_object_is_ignored_with_all_in_it() -> None:
    rules = {"ignored": ["purpose", r"a\.b", "name", "created", "id"]}
    record = CHANNEL | {"GroupId": GROUP, "TopicName": "own"}
    assert mapped(record, **rules).name == "own"


def test_a_record_without_key_is_identified_as_it_was_read() -> None:
    rules = {**SLACK, "key_field": None, "ignore_unknown": True}
    assert mapped(CHANNEL, **rules).topic_id == derive_topic_id(GROUP, None, CHANNEL)


def test_the_key_may_be_a_field_and_lie_inside() -> None:
    rules = {"fields": {"channel.name": "TopicName"}, "constants": {"GroupId": GROUP}}
    topic = mapped({"channel": {"name": "futures"}}, **rules, key_field="channel.name")
    assert (topic.name, topic.key) == ("futures", "futures")
    absent = problems({"channel": "futures"}, **rules, key_field="channel.name")
    assert "the key channel.name is missing, and the TopicId is derived from it" in absent


def test_a_constant_that_a_record_contradicts_is_a_problem() -> None:
    rules = {"constants": {"GroupId": GROUP}}
    assert mapped({"GroupId": GROUP, "TopicName": "a"}, **rules).group_id == GROUP
    (problem,) = problems({"GroupId": "@TGS#_b", "TopicName": "a"}, **rules)
    assert problem == "GroupId is given twice, as GroupId and by records.constants"


def test_a_nested_value_that_is_given_twice_is_named_with_its_path() -> None:
    rules = {"fields": {"topic.value": "Notification"}}
    record = {"GroupId": GROUP, "TopicName": "a", "Notification": "b", "topic": {"value": "c"}}
    (problem,) = problems(record, **rules)
    assert problem == "Notification is given twice, as Notification and as topic.value"


@pytest.mark.parametrize(
    ("where", "is_chosen"),
    [
        ({}, True),
        ({"type": "channel"}, True),
        ({"type": ["team", "channel"]}, True),
        ({"type": "team"}, False),
        ({"archived": False}, True),
        ({"archived": 0}, False),
        ({"archived": "false"}, True),
        ({"members": "2"}, True),
        ({"members": True}, False),
        ({"inner.private": True}, True),
        ({"inner.other": True}, False),
        ({"type.other": True}, False),
        ({"type": "channel", "members": 3}, False),
        ({"nothing": "None"}, False),
    ],
)
def test_only_wanted_records_are_chosen(where: dict[str, Any], is_chosen: object) -> None:
    record = {
        "type": "channel",
        "archived": False,
        "members": 2,
        "inner": {"private": True},
        "nothing": None,
    }
    assert RecordRules(where=where).mapping.chooses(record) is is_chosen


def test_what_chooses_a_record_is_no_unknown_field() -> None:
    record = {"type": "channel", "GroupId": GROUP, "TopicName": "a"}
    assert mapped(record, where={"type": "channel"}).name == "a"


def test_times_are_read_in_the_form_that_is_set() -> None:
    record = {"GroupId": GROUP, "TopicName": "a", "CreateTime": "2021-09-20T21:52:29Z"}
    assert b'"CreateTime":1632174749' in mapped(record, create_time="iso8601").body
    late = {**record, "CreateTime": 10**16}
    (problem,) = problems(late, create_time="milliseconds")
    assert problem.startswith("CreateTime 10000000000000000 is no time between 1970 and 2106")
    (problem,) = problems(record)
    assert problem == ('CreateTime must be whole seconds since 1970, not "2021-09-20T21:52:29Z"')
