"""What a community answers, by conventions in its GroupId; all others exist and are well."""

import re
from typing import Any

_FULL = re.compile(r"full(\d+)")
_DOWN = re.compile(r"down(?:(\d+)s)?")

Refusal = tuple[int, str]


def refuse_group(group_id: Any, elapsed_s: float) -> Refusal | None:
    """Return the code and text with which a community refuses every call, None if it does not.

    `elapsed_s`: seconds since the first call of all.
    """
    if not is_printable(group_id, 48) or not group_id.startswith("@TGS#_"):
        return 10015, "group ID is invalid"
    if "missing" in group_id:
        return 10010, "group does not exist or was deleted"
    if "forbidden" in group_id:
        return 10007, "no permission"
    if "notopics" in group_id:
        return 11000, "the group has no community topics"
    down = _DOWN.search(group_id)
    if down and (down[1] is None or elapsed_s < int(down[1])):
        return 10002, "internal error, try again"
    return None


def is_unreadable(group_id: str) -> bool:
    """Return whether get_topic is refused for this community."""
    return "unreadable" in group_id


def topics_max(group_id: str, default: int) -> int:
    """Return how many topics the community may hold; 0: any number."""
    full = _FULL.search(group_id)
    return int(full[1]) if full else default


def is_printable(text: Any, bytes_max: int) -> bool:
    """Return whether a value is a text of printable ASCII, not empty and not too long."""
    return (
        isinstance(text, str)
        and 0 < len(text) <= bytes_max
        and all(" " <= character <= "~" for character in text)
    )
