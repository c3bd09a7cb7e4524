"""The TopicId: the identity of a topic, and how it is derived."""

import hashlib
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import orjson

GROUP_ID_PREFIX = "@TGS#_"


TOPIC_ID_INFIX = "@TOPIC#_"


KEY_TAG = b"topic-import/1/key\0"


CONTENT_TAG = b"topic-import/1/content\0"


class Origin(IntEnum):
    """Where a topic's ID comes from; stored in queues, so the numbers never change."""

    GIVEN = 0
    DERIVED = 1
    NONE = 2


def derive_topic_id(group_id: str, key: str | int | None, record: Mapping[str, Any]) -> str:
    """Derive the TopicId of a record without one; fixed for ever, it is the idempotency.

    32 hex digits of SHA-256 over a tag and the key as JSON, or without a key the record as read
    with its names sorted. Test vectors: tests/unit/test_topic_id_vectors.py.
    """
    if key is not None:
        digest = hashlib.sha256(KEY_TAG + orjson.dumps(key))
    else:
        digest = hashlib.sha256(
            CONTENT_TAG + orjson.dumps(dict(record), option=orjson.OPT_SORT_KEYS)
        )
    return f"{group_id}{TOPIC_ID_INFIX}{digest.hexdigest()[:32]}"


def custom_part_problem(custom: str) -> str | None:
    if not custom:
        return f"ends after {TOPIC_ID_INFIX}"
    if GROUP_ID_PREFIX in custom:
        return f"may not hold {GROUP_ID_PREFIX} after {TOPIC_ID_INFIX}"
    if custom.startswith("@TOPIC#") or "@TOPIC#_@TOPIC#" in custom:
        return "may not hold @TOPIC#_@TOPIC# (the service's own IDs look so)"
    return None
