"""The quick look at a value: whether it is surely valid.

`fields` says what is wrong with a value, in words; here most valid values are known for valid in a
tenth of the time. A value that is not may be valid all the same: then `fields` decides.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from worker.rules.topic.characters import name_problem, text_problem
from worker.rules.topic.fields import (
    CREATE_TIME_MAX,
    FIELDS,
    REQUIRED,
    TOPIC_ID_BYTES_MAX,
    USER_ID_BYTES_MAX,
    FieldLimits,
    check_field,
)

GROUP_IDS_REMEMBERED = 4096
SHAPES_REMEMBERED = 256
CREATE_TIME_DIGITS = 11
"""With so many digits a time is out of range, whatever follows."""

PlainCheck = Callable[[Any, int], Any]
"""Takes a value and the most bytes of UTF-8 that it may have. Returns the value to send, None if
the value needs a closer look."""
_Step = tuple[str, PlainCheck, int, bool]
"""A field: its name, its check, its limit in bytes, and whether it is a text without more rules."""


class PlainReader:
    """Reads records of which every field is surely valid.

    The records of an export mostly have the same names in the same order, their shape. What the
    names mean is found out once for each shape.
    """

    def __init__(self, limits: FieldLimits, key_field: str | None) -> None:
        self._limits = limits
        self._key_field = key_field
        self._steps_of: dict[tuple[str, ...], tuple[_Step, ...]] = {}

    def body(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the body of a record's call without a derived TopicId, in the order of FIELDS.

        `values`: by their names in the API, and the key. Returns None if the record needs a closer
        look; it may be valid all the same.
        """
        shape = tuple(values)
        steps = self._steps_of.get(shape)
        if steps is None:
            steps = self._remember(shape)
        body: dict[str, Any] = {}
        for name, check, bytes_max, is_text in steps:
            value = values[name]
            if is_text and isinstance(value, str) and value.isprintable() and value.isascii():
                # Most texts: this saves a call for each.
                sent = value if len(value) <= bytes_max else None
            else:
                sent = check(value, bytes_max)
            if sent is not None:
                body[name] = sent
            elif value is not None or name in REQUIRED:
                return None
        return body or None

    def _remember(self, shape: tuple[str, ...]) -> tuple[_Step, ...]:
        if len(self._steps_of) >= SHAPES_REMEMBERED:
            self._steps_of.clear()
        steps = self._steps_of[shape] = self._steps(shape)
        return steps

    def _steps(self, shape: tuple[str, ...]) -> tuple[_Step, ...]:
        """Return the steps for a shape; none if a name is unknown or a required one is missing."""
        names = set(shape) - {self._key_field}
        if not (names.issuperset(REQUIRED) and names.issubset(FIELDS)):
            return ()
        return tuple(self._step(name) for name in FIELDS if name in names)

    def _step(self, name: str) -> _Step:
        check = _CHECKS[name]
        bytes_max = self._limits.bytes_max(name) or _OWN_LIMITS.get(name, 0)
        return name, check, bytes_max, check is _text


def is_plain_key(key: Any) -> bool:
    """Return whether a record's key is surely valid."""
    return isinstance(key, str) or type(key) is int


def _fits(text: str, bytes_max: int) -> bool:
    return (len(text) if text.isascii() else len(text.encode())) <= bytes_max


@lru_cache(maxsize=GROUP_IDS_REMEMBERED)
def _is_group_id(value: str) -> bool:
    # The records of one community mostly stand together.
    return check_field("GroupId", value)[1] is None


def _group_id(value: Any, _bytes_max: int) -> Any:
    return value if isinstance(value, str) and _is_group_id(value) else None


def _topic_name(value: Any, bytes_max: int) -> Any:
    if isinstance(value, str) and value and name_problem(value) is None:
        return value if _fits(value, bytes_max) else None
    return None


def _topic_id(value: Any, bytes_max: int) -> Any:
    is_plain = isinstance(value, str) and value.isascii() and value.isprintable()
    return value if is_plain and 0 < len(value) <= bytes_max else None


def _type(value: Any, _bytes_max: int) -> Any:
    return value if value == "Community" else None


def _account(value: Any, bytes_max: int) -> Any:
    if type(value) is int and value >= 0:
        value = str(value)
    return value if isinstance(value, str) and value and _fits(value, bytes_max) else None


def _text(value: Any, bytes_max: int) -> Any:
    if isinstance(value, str) and _fits(value, bytes_max) and text_problem(value) is None:
        return value
    return None


def _create_time(value: Any, _bytes_max: int) -> Any:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:CREATE_TIME_DIGITS])  # as a table has it
    return value if type(value) is int and 0 <= value <= CREATE_TIME_MAX else None


_OWN_LIMITS = {"TopicId": TOPIC_ID_BYTES_MAX, "From_Account": USER_ID_BYTES_MAX}
_CHECKS: dict[str, PlainCheck] = {
    "GroupId": _group_id,
    "TopicName": _topic_name,
    "TopicId": _topic_id,
    "Type": _type,
    "From_Account": _account,
    "CustomString": _text,
    "FaceUrl": _text,
    "Notification": _text,
    "Introduction": _text,
    "CreateTime": _create_time,
}
