"""What is kept of the fields of a call: enough to see which of them were changed."""

from typing import Any

import pytest

from worker.rules.sent_fields import field_hashes
from worker.rules.topic.fields import FIELDS

BODY: dict[str, Any] = {
    "GroupId": "@TGS#_a",
    "TopicName": "Grüße",
    "CustomString": "",
    "CreateTime": 1_600_000_000,
    "TopicId": "@TGS#_a@TOPIC#_1",
}


def hash_of(body: dict[str, Any], name: str) -> bytes | None:
    """Return the hash of one field, None if none is kept."""
    kept = field_hashes(body)
    entries = {kept[at]: kept[at + 1 : at + 5] for at in range(0, len(kept), 5)}
    return entries.get(FIELDS.index(name))


def test_each_sent_field_but_the_ids_has_a_hash() -> None:
    have_one = [name for name in FIELDS if hash_of(BODY, name) is not None]
    assert have_one == ["TopicName", "CustomString", "CreateTime"]


@pytest.mark.parametrize(
    ("name", "value"), [("TopicName", "Grüsse"), ("CustomString", " "), ("CreateTime", 1)]
)
def test_a_change_of_one_field_changes_its_hash_alone(name: str, value: object) -> None:
    changed = BODY | {name: value}
    others = [other for other in FIELDS if other != name]
    assert hash_of(changed, name) != hash_of(BODY, name)
    assert [hash_of(changed, other) for other in others] == [
        hash_of(BODY, other) for other in others
    ]
