"""Converting a record to a topic, and listing all problems of an invalid record."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import GROUP, group_ids, records, topic_names
from worker.rules.topic.fields import FieldLimits
from worker.rules.topic.identity import Origin
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, to_topic

RULES = RecordRules()


def record(**changes: Any) -> dict[str, Any]:
    return {"GroupId": GROUP, "TopicName": "general"} | changes


def problems_of(changed: dict[str, Any], rules: RecordRules = RULES) -> str:
    with pytest.raises(InvalidRecordError) as caught:
        to_topic(changed, rules)
    return str(caught.value)


@given(records())
def test_a_valid_record_is_sent_unchanged_with_its_topic_id(given_record: dict[str, Any]) -> None:
    topic = to_topic(given_record, RULES)
    sent = orjson.loads(topic.body)
    assert sent.pop("TopicId") == topic.topic_id
    assert sent == {
        name: str(value) if name == "From_Account" else value
        for name, value in given_record.items()
        if name != "TopicId"
    }
    assert topic.body == orjson.dumps(orjson.loads(topic.body)), "compact UTF-8"


@given(group_ids(), topic_names(), st.one_of(st.integers(0, 2**63), st.text(max_size=20)))
def test_every_derived_topic_id_is_a_valid_topic_id(
    group_id: str, name: str, key: str | int
) -> None:
    rules = RecordRules(key_field="id")
    topic = to_topic({"GroupId": group_id, "TopicName": name, "id": key}, rules)
    assert topic.origin is Origin.DERIVED
    assert topic.topic_id is not None
    assert len(topic.topic_id.encode()) <= 96
    again = to_topic(
        {"GroupId": group_id, "TopicName": name, "TopicId": topic.topic_id}, RecordRules()
    )
    assert again.origin is Origin.GIVEN


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"GroupId": None}, "GroupId is missing"),
        ({"TopicName": ""}, "TopicName is empty"),
        ({"GroupId": "#NAME?"}, "GroupId is #NAME?: a spreadsheet took the @ of the ID"),
        ({"TopicName": 5}, "TopicName must be a text, not a number"),
        ({"TopicName": ["a"]}, "TopicName must be a text, not a list"),
        ({"TopicName": {}}, "TopicName must be a text, not an object"),
        ({"TopicName": True}, "TopicName must be a text, not true or false"),
        ({"TopicName": "话" * 11}, "TopicName has 33 bytes of UTF-8, 30 are allowed"),
        ({"CustomString": "x" * 3001}, "CustomString has 3001 bytes"),
        ({"FaceUrl": "x" * 101}, "FaceUrl has 101 bytes"),
        ({"Notification": "x" * 301}, "Notification has 301 bytes"),
        ({"Introduction": "😀" * 61}, "Introduction has 244 bytes"),
        ({"GroupId": "room"}, "GroupId must start with @TGS#_"),
        ({"GroupId": "@TGS#_"}, "GroupId must start with @TGS#_"),
        ({"GroupId": "@TGS#_" + "x" * 43}, "GroupId has 49 bytes, 48 are allowed"),
        ({"GroupId": "@TGS#_房"}, "GroupId may hold printable ASCII only"),
        ({"GroupId": "@TGS#_a@TOPIC#_b"}, "it is a topic's ID"),
        ({"TopicId": f"{GROUP}@TOPIC#_"}, "TopicId ends after @TOPIC#_"),
        ({"TopicId": "@TGS#_other@TOPIC#_a"}, "TopicId does not start with its GroupId"),
        ({"TopicId": f"{GROUP}@TOPIC#_a@TGS#_b"}, "TopicId may not hold @TGS#_"),
        ({"TopicId": f"{GROUP}@TOPIC#_@TOPIC#c1"}, "TopicId may not hold @TOPIC#_@TOPIC#"),
        ({"TopicId": f"{GROUP}@TOPIC#_{'x' * 70}"}, "TopicId has 97 bytes, 96 are allowed"),
        ({"TopicId": ""}, "TopicId is empty"),
        ({"Introduction": 5}, "Introduction must be a text, not a number"),
        ({"TopicId": 7}, "TopicId must be a text"),
        ({"Type": "Public"}, "Type must be Community, not Public"),
        ({"Type": 1}, "Type must be Community, not a number"),
        ({"Type": [[]]}, "Type must be Community, not a list"),
        ({"From_Account": ""}, "From_Account is empty"),
        ({"From_Account": 1.5}, "From_Account must be a text"),
        ({"From_Account": True}, "From_Account must be a text"),
        ({"From_Account": -1}, "From_Account must be a text"),
        ({"From_Account": "话" * 11}, "From_Account has 33 bytes, 32 are allowed"),
        ({"CreateTime": 1448357837000}, "1448357837000 looks like milliseconds"),
        ({"CreateTime": 1448357837000000}, "1448357837000000 is no time in seconds or milli"),
        ({"CreateTime": 2**32}, "is not within 0 and 4294967295"),
        ({"CreateTime": -1}, "is not within"),
        ({"CreateTime": "soon"}, 'CreateTime must be whole seconds since 1970, not "soon"'),
        ({"CreateTime": {"a": 1}}, "CreateTime must be whole seconds since 1970, not an object"),
        ({"CreateTime": 1.5}, "CreateTime must be whole seconds since 1970, not 1.5"),
        ({"CreateTime": True}, "CreateTime must be whole seconds"),
        ({"GroupID": "x"}, "unknown field GroupID (is it GroupId?)"),
        ({"x" * 60: 1}, "unknown field " + "x" * 40 + "…"),
    ],
)
def test_each_invalid_field_is_named_with_its_rule(changes: dict[str, Any], message: str) -> None:
    assert message in problems_of(record(**changes))


def test_all_problems_of_a_record_are_reported_together() -> None:
    message = problems_of({"TopicName": "x" * 31, "CreateTime": "soon", "Colour": "red"})
    for part in ("GroupId is missing", "31 bytes", "CreateTime", "Colour"):
        assert part in message


def test_at_most_twenty_unknown_fields_are_named() -> None:
    message = problems_of(record(**{f"field{i}": i for i in range(100)}))
    assert message.count("unknown field field") == 20
    assert "80 more unknown fields" in message


def test_an_invalid_record_keeps_its_key_and_group_id() -> None:
    rules = RecordRules(key_field="id")
    with pytest.raises(InvalidRecordError) as caught:
        to_topic(record(id="k1", CreateTime="soon"), rules)
    assert (caught.value.key, caught.value.group_id, caught.value.topic_id) == ("k1", GROUP, None)


def test_null_equals_an_absent_field() -> None:
    own = {"TopicId": f"{GROUP}@TOPIC#_a"}
    assert (
        to_topic(record(**own, Introduction=None), RULES).body
        == to_topic(record(**own), RULES).body
    )


def test_an_account_number_is_sent_as_text() -> None:
    topic = to_topic(record(From_Account=1400187352), RULES)
    assert orjson.loads(topic.body)["From_Account"] == "1400187352"
    assert topic.has_account


def test_truncate_cuts_long_texts_at_a_character_boundary() -> None:
    rules = RecordRules(truncate=True)
    topic = to_topic(record(TopicName="ab" + "话" * 20), rules)
    assert topic.name == "ab" + "话" * 9
    assert topic.truncated == ("TopicName",)


def test_a_text_that_truncation_would_empty_is_refused() -> None:
    rules = RecordRules(truncate=True, limits=FieldLimits(topic_name=2))
    assert "TopicName has 3 bytes" in problems_of(record(TopicName="话"), rules)


def test_field_names_are_mapped_to_the_api() -> None:
    rules = RecordRules(fields={"title": "TopicName"})
    assert to_topic({"GroupId": GROUP, "title": "general"}, rules).name == "general"
    message = problems_of(record(title="general"), rules)
    assert "TopicName is given twice, as TopicName and as title" in message


def test_the_key_is_kept_but_not_sent() -> None:
    topic = to_topic(record(id=17), RecordRules(key_field="id"))
    assert topic.key == 17
    assert b"id" not in topic.body.replace(b"GroupId", b"").replace(b"TopicId", b"")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "the key id is missing"),
        ({"id": None}, "the key id is missing"),
        ({"id": 1.5}, "the key id must be a text or a whole number of at most 64 bits"),
        ({"id": True}, "the key id must be a text or a whole number, not true or false"),
        ({"id": [1]}, "the key id must be a text or a whole number, not a list"),
    ],
)
def test_an_unusable_key_makes_a_record_invalid(changes: dict[str, Any], message: str) -> None:
    assert message in problems_of(record(**changes), RecordRules(key_field="id"))


def test_a_record_with_a_topic_id_needs_no_key() -> None:
    topic = to_topic(record(TopicId=f"{GROUP}@TOPIC#_a"), RecordRules(key_field="id"))
    assert topic.origin is Origin.GIVEN


def test_as_given_mode_adds_no_topic_id() -> None:
    rules = RecordRules(derive_ids=False)
    assert to_topic(record(CreateTime="1448357837"), rules).origin is Origin.NONE
    topic = to_topic(record(), rules)
    assert topic.topic_id is None
    assert topic.origin is Origin.NONE
    assert b"TopicId" not in topic.body


def test_a_fixed_id_is_kept_unless_the_community_changed() -> None:
    fixed = f"{GROUP}@TOPIC#_fixed"
    assert to_topic(record(), RULES, fixed).topic_id == fixed
    moved = to_topic(record(GroupId="@TGS#_other"), RULES, fixed).topic_id
    assert moved is not None
    assert moved.startswith("@TGS#_other@TOPIC#_")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"null", "the line is null"),
        (b"[1]", "the line is a list"),
        (b'"text"', "the line is a text"),
        (b"1", "the line is a number"),
        (b'{"a":"\xff"}', "not UTF-8: byte 0xff at byte 7"),
        ('{"a":1}'.encode("utf-16"), "looks like UTF-16"),
        (b'{"a":"\\ud800"}', "half a surrogate pair"),
        (b'{"a":"\x00"}', "not JSON"),
        (b'{"a":1,"a":2}', "a stands more than once"),
        (b'{"a" : 1, "a" : 2}', "a stands more than once"),
        (b'{"a":{"b":1,"b":2}}', "b stands more than once"),
        (b'{"a":[{"b":1,"b":2}]}', "b stands more than once"),
        (b'{"u":"http://x","a":1,"a":2}', "a stands more than once"),
        (b'{"u":"\\u003a","a":1,"a":2}', "a stands more than once"),
        (b"[" * 2000, "not JSON"),
    ],
)
def test_a_line_that_is_no_record_has_a_reason(line: bytes, message: str) -> None:
    with pytest.raises(InvalidRecordError) as caught:
        parse_record(line)
    assert message in str(caught.value)
    assert not caught.value.is_object


def test_field_names_inside_values_are_not_duplicates() -> None:
    line = b'{"a":"x\\":y","b":{"a":1},"c":"\\"a\\":","d:":[{"a":[]}]}'
    read = {"a": 'x":y', "b": {"a": 1}, "c": '"a":', "d:": [{"a": []}]}
    assert parse_record(line) == read


def test_overly_deep_nesting_is_reported_by_the_field_checks() -> None:
    line = b'{"a":' * 1000 + b"1" + b"}" * 1000
    assert "unknown field a" in problems_of(parse_record(line))


def test_a_cut_record_without_a_topic_id_is_sent_as_it_was_given() -> None:
    rules = RecordRules(derive_ids=False, truncate=True)
    topic = to_topic({"GroupId": GROUP, "TopicName": "n" * 40}, rules)
    assert (topic.origin, topic.topic_id, topic.truncated) == (Origin.NONE, None, ("TopicName",))
