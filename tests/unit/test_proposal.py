"""A mapping is proposed from the names and kinds of the fields that records have."""

from typing import Any

from worker.rules.proposal import Proposal, propose
from worker.rules.topic.mapping import parse_path, value_at

GROUP = "@TGS#_@TGS#cQVLVHIM62CJ"


def slack(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"C{number}",
        "name": f"channel-{number}",
        "created": 1_500_000_000 + number,
        "creator": "U1",
        "is_archived": False,
        "members": ["U1"],
        "topic": {"value": "Company news", "creator": "U1"},
        "purpose": {"value": "For everyone"},
        **fields,
    }


def test_a_slack_export_is_mapped_with_its_inner_texts() -> None:
    assert propose([slack(1), slack(2)]) == Proposal(
        records=2,
        fields={
            "name": "TopicName",
            "creator": "From_Account",
            "topic.value": "Notification",
            "purpose.value": "Introduction",
            "created": "CreateTime",
        },
        key_field="id",
        missing=("GroupId",),
        ignored=("is_archived", "members", "topic.creator"),
        problems=((2, "GroupId is missing"),),
    )


def test_records_of_the_api_need_no_mapping() -> None:
    assert propose([{"GroupId": GROUP, "TopicName": "a", "CreateTime": 5}]) == Proposal(records=1)


def test_what_would_be_refused_is_counted() -> None:
    records: list[dict[str, Any]] = [
        {"GroupId": GROUP, "title": "x" * (40 + n), "Introdction": "typo"} for n in range(3)
    ]
    records.append({"GroupId": "general", "title": "y", "FaceUrl": 7})
    found = propose(records)
    assert found.fields == {"title": "TopicName"}
    assert found.ignored == ()
    assert set(found.problems) == {
        (3, "TopicName has 40 to 42 bytes of UTF-8, 30 are allowed"),
        (1, "GroupId must start with @TGS#_ (a community's ID) and go on after it"),
        (1, "FaceUrl must be a text, not a number"),
        (3, "unknown field Introdction (is it Introduction?)"),
    }


def test_the_way_in_which_most_times_are_written_is_proposed() -> None:
    def unit(*times: Any) -> str | None:
        return propose([{"created_at": time} for time in times]).create_time

    assert unit(1_600_000_000, 1_600_000_000.0, "1600000000") is None
    assert unit(1_600_000_000_000, "1600000000000") == "milliseconds"
    assert unit("2020-09-13T12:26:40Z", "2020-09-13") == "iso8601"
    assert unit(1_600_000_000, 1_600_000_000_000) == "auto"
    assert unit(*[1_600_000_000_000] * 99, 1_600_000_000) == "milliseconds"


def test_values_of_another_kind_are_not_mapped() -> None:
    found = propose(
        [{"group": "general", "created": "yesterday", "owner": True, "name": ["a"], "icon": None}]
    )
    assert found.fields == {}
    assert found.missing == ("GroupId", "TopicName")


def test_a_community_and_a_topic_are_known_by_their_ids() -> None:
    record = {"tid": f"{GROUP}@TOPIC#_a", "gid": GROUP, "Name": "a", "community": "old"}
    assert propose([record]).fields == {
        "gid": "GroupId",
        "tid": "TopicId",
        "Name": "TopicName",
    }


def test_a_dot_in_a_name_is_no_path() -> None:
    record = {"a.b": {"c\\d": {"deep": 1}, "e": 5}, "f": 1}
    assert value_at(record, parse_path("a\\.b.e")) == 5
    assert value_at(record, parse_path("a\\.b.c\\\\d.deep")) == 1
    assert value_at(record, parse_path("a.b")) is None
    assert propose([record]).ignored == ("a\\.b", "f")


def test_what_stands_beside_a_mapped_value_is_left_out_by_its_path() -> None:
    found = propose(
        [
            {
                "name": "general",
                "topic": {"value": "All", "creator": "", "last.set": 0},
                "pins": [],
            },
            {"name": "random", "topic": {"value": "", "edits": {"by": "U1"}, "note": None}},
            {"name": "other", "topic": "no object"},
        ]
    )
    assert found.fields["topic.value"] == "Notification"
    assert found.ignored == (
        "pins", "topic.creator", "topic.last\\.set", "topic.edits", "topic.note",
    )  # fmt: skip
