"""The TopicId is the identity of a topic: which IDs are valid, and how a missing one is derived.

Source of the rules for IDs: group system page, section "Custom IDs".
"""

import hashlib
import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import orjson

GROUP_ID_PREFIX = "@TGS#_"
TOPIC_ID_INFIX = "@TOPIC#_"
SERVICE_MADE_BEGINNING = "@TOPIC#"
"""The custom part of an ID that the service made itself begins with this."""
DIGEST_BYTES = 16
KEY_TAG = b"topic-import/1/key\0"
CONTENT_TAG = b"topic-import/1/content\0"
"""The tags keep a key and a record with the same JSON text from sharing an ID."""
_DIGEST = re.compile(r"[0-9a-f]{32}")


class Origin(IntEnum):
    """Where a topic's ID comes from; stored in queues, so the numbers never change."""

    GIVEN = 0
    DERIVED = 1
    NONE = 2


def derive_topic_id(group_id: str, key: str | int | None, record: Mapping[str, Any]) -> str:
    """Return the TopicId of a record that has none: its community's ID, and `identity_digest`.

    Raises TypeError if the record is nested deeper than orjson writes.
    """
    return f"{group_id}{TOPIC_ID_INFIX}{identity_digest(key, record).hex()}"


def identity_digest(key: str | int | None, record: Mapping[str, Any]) -> bytes:
    """Return the DIGEST_BYTES that identify a record within its community.

    They are the beginning of SHA-256 over a tag and the key as JSON, or over another tag and the
    record as it was read with its names sorted if `key` is None. The derivation must never change:
    a repeated call is recognised by it. Test vectors: tests/unit/test_topic_id_vectors.py. Raises
    as `derive_topic_id`.
    """
    if key is not None:
        digest = hashlib.sha256(KEY_TAG + orjson.dumps(key))
    else:
        as_read = record if isinstance(record, dict) else dict(record)
        digest = hashlib.sha256(CONTENT_TAG + orjson.dumps(as_read, option=orjson.OPT_SORT_KEYS))
    return digest.digest()[:DIGEST_BYTES]


def digest_in(topic_id: str, group_id: str) -> bytes | None:
    """Return the digest in a TopicId that looks like a derived one, None for any other.

    `topic_id`: begins with `group_id`, as a valid one does.
    """
    own = topic_id[len(group_id) + len(TOPIC_ID_INFIX) :]
    return bytes.fromhex(own) if _DIGEST.fullmatch(own) else None


def belongs_to(topic_id: str, group_id: str) -> bool:
    """Return whether a TopicId begins as the IDs of this community must."""
    return topic_id.startswith(group_id + TOPIC_ID_INFIX)


def topic_id_problem(topic_id: str, group_id: str) -> str | None:
    """Return why a given TopicId is invalid in its community, None if it is valid."""
    if not belongs_to(topic_id, group_id):
        return f"does not start with its GroupId and {TOPIC_ID_INFIX}"
    custom_part = topic_id.removeprefix(group_id + TOPIC_ID_INFIX)
    if not custom_part:
        return f"ends after {TOPIC_ID_INFIX}"
    if GROUP_ID_PREFIX in custom_part:
        return f"may not hold {GROUP_ID_PREFIX} after {TOPIC_ID_INFIX}"
    if custom_part.startswith(SERVICE_MADE_BEGINNING) or "@TOPIC#_@TOPIC#" in custom_part:
        return "may not hold @TOPIC#_@TOPIC# (the service's own IDs look so)"
    return None
