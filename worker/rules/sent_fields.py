"""What was sent of a topic, in a few bytes a field: enough to see later what was changed."""

from collections.abc import Mapping
from struct import Struct
from typing import Any
from zlib import crc32

from worker.rules.topic.fields import FIELDS

_IDS = frozenset(("GroupId", "TopicId"))
_COMPARED = tuple((name, number) for number, name in enumerate(FIELDS) if name not in _IDS)
_pack = Struct("<BI").pack


def field_hashes(body: Mapping[str, Any]) -> bytes:
    """Return five bytes for each field of a call's body but its IDs: its number and its hash.

    The number is the place of the field in FIELDS. The hash is CRC-32 of its text in UTF-8: it
    tells a change, and is no proof against somebody who wants to hide one.
    """
    return b"".join(
        [
            _pack(number, crc32(str(body[name]).encode()))
            for name, number in _COMPARED
            if name in body
        ]
    )
