"""Fixed vectors of derived TopicIds; a change would import every topic again as a new one."""

from typing import Any

import pytest

from worker.rules.topic.identity import derive_topic_id

GROUP = "@TGS#_@TGS#cQVLVHIM62CJ"


@pytest.mark.parametrize(
    ("key", "record", "digits"),
    [
        ("room-17", {}, "ec933b1cf07926258a98cd3a0c0fcff9"),
        (17, {}, "6893d93f7e922618a0c4371c0fb99432"),
        ("17", {}, "b931cb1fe5e28ef406a011b945d170a6"),
        ("房间", {}, "64dc1060d212430239e5c1afb58d7599"),
        (None, {"GroupId": GROUP, "TopicName": "general"}, "3b78fadda3d729eb6a4b05c70d0443e2"),
        (
            None,
            {"GroupId": GROUP, "TopicName": "话题 😀", "CreateTime": 1448357837},
            "d15d68ed3291b08118e49b6e46c21344",
        ),
    ],
)
def test_derived_topic_ids_never_change(
    key: str | int | None, record: dict[str, Any], digits: str
) -> None:
    assert derive_topic_id(GROUP, key, record) == f"{GROUP}@TOPIC#_{digits}"


def test_field_order_does_not_change_the_topic_id() -> None:
    record = {"TopicName": "general", "GroupId": GROUP}
    turned = dict(reversed(record.items()))
    assert derive_topic_id(GROUP, None, record) == derive_topic_id(GROUP, None, turned)
