"""A record becomes a topic: every field checked, the TopicId fixed, the body serialized once.

Field rules and limits: REST page of import_topic; ID rules: group system page ("Custom IDs").
"""

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import orjson

FIELDS = (
    "GroupId",
    "TopicName",
    "TopicId",
    "Type",
    "From_Account",
    "CustomString",
    "FaceUrl",
    "Notification",
    "Introduction",
    "CreateTime",
)
REQUIRED = ("GroupId", "TopicName")
GROUP_ID_PREFIX = "@TGS#_"
TOPIC_ID_INFIX = "@TOPIC#_"
GROUP_ID_BYTES_MAX = 48
TOPIC_ID_BYTES_MAX = 96
USER_ID_BYTES_MAX = 32
CREATE_TIME_MAX = 2**32 - 1
MILLISECONDS_FROM = 10**12
SHOWN_MAX = 40
PROBLEMS_MAX = 20
"""Unknown names reported of one record; a line of a megabyte may hold a hundred thousand."""

KEY_TAG = b"topic-import/1/key\0"
CONTENT_TAG = b"topic-import/1/content\0"


class Origin(IntEnum):
    """Where a topic's ID comes from; stored in queues, so the numbers never change."""

    GIVEN = 0
    DERIVED = 1
    NONE = 2


@dataclass(frozen=True, slots=True)
class FieldLimits:
    """Longest values in bytes of UTF-8."""

    topic_name: int = 30
    custom_string: int = 3000
    face_url: int = 100
    notification: int = 300
    introduction: int = 240


@dataclass(frozen=True, slots=True)
class RecordRules:
    """How records are read: the settings of the section `records`."""

    limits: FieldLimits = field(default_factory=FieldLimits)
    truncate: bool = False
    derive_ids: bool = True
    fields: Mapping[str, str] = field(default_factory=dict)
    key_field: str | None = None


@dataclass(frozen=True, slots=True)
class Topic:
    """A valid record: its identity, and the body of its call as bytes of compact UTF-8 JSON."""

    topic_id: str | None
    origin: Origin
    group_id: str
    name: str
    key: str | int | None
    has_account: bool
    body: bytes
    truncated: tuple[str, ...] = ()


class InvalidRecordError(ValueError):
    """A record that cannot be sent: all its problems, and what of its identity can be told."""

    def __init__(
        self,
        problems: list[str],
        *,
        key: str | int | None = None,
        group_id: str | None = None,
        topic_id: str | None = None,
        is_object: bool = True,
    ) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems
        self.key = key
        self.group_id = group_id
        self.topic_id = topic_id
        self.is_object = is_object


_JSON_KEY = re.compile(rb'"\s*:')


def parse_record(line: bytes) -> dict[str, Any]:
    """Parse one line of JSON.

    Raises InvalidRecordError for what is no JSON object, and for a name that stands twice
    (parsers keep the last and forget the first: a choice nobody made).
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidRecordError([_describe_json_error(line, error)], is_object=False) from None
    if not isinstance(record, dict):
        kind = _kind(record)
        raise InvalidRecordError(
            [f"the line is {kind}, a record is a JSON object"], is_object=False
        )
    if len(_JSON_KEY.findall(line)) > len(record):
        twice = _names_that_stand_twice(line)
        if twice:
            problems = [f"{name} stands more than once in the record" for name in twice]
            raise InvalidRecordError(problems, is_object=False)
    return record


def to_topic(record: Mapping[str, Any], rules: RecordRules, topic_id: str | None = None) -> Topic:
    """Check a parsed record and fix its TopicId.

    `topic_id`: an ID fixed earlier for this record (a dead letter's), used where it has none.
    Raises InvalidRecordError with every problem of the record.
    """
    return _Reading(record, rules).topic(topic_id)


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


class _Reading:
    """One record being read: the fields taken so far and the problems found so far."""

    def __init__(self, record: Mapping[str, Any], rules: RecordRules) -> None:
        self.record = record
        self.rules = rules
        self.problems: list[str] = []
        self.truncated: list[str] = []
        self.key: str | int | None = None

    def topic(self, fixed_topic_id: str | None) -> Topic:
        values = self._named_values()
        body = {
            name: value
            for name in FIELDS
            if (value := self._check(name, values.get(name))) is not None
        }
        self._check_topic_id(body)
        origin = Origin.GIVEN
        if "TopicId" not in body and "TopicId" not in values:
            origin = self._fix_topic_id(body, fixed_topic_id)
        if self.problems:
            raise InvalidRecordError(
                self.problems,
                key=self.key,
                group_id=_text_or_none(values.get("GroupId")),
                topic_id=_text_or_none(values.get("TopicId")) or fixed_topic_id,
            )
        return Topic(
            topic_id=body.get("TopicId"),
            origin=origin,
            group_id=body["GroupId"],
            name=body["TopicName"],
            key=self.key,
            has_account="From_Account" in body,
            body=orjson.dumps(body),
            truncated=tuple(self.truncated),
        )

    def _named_values(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        unknown: list[str] = []
        given_as: dict[str, str] = {}
        for name, value in self.record.items():
            if name == self.rules.key_field:
                self._read_key(value)
                continue
            ours = self.rules.fields.get(name, name)
            if ours not in _CHECKS:
                unknown.append(name)
            elif ours in values:
                self.problems.append(f"{ours} is given twice, as {given_as[ours]} and as {name}")
            elif value is not None:
                values[ours] = value
                given_as[ours] = name
        self._complain_of(unknown)
        self.problems += [f"{name} is missing" for name in REQUIRED if name not in values]
        return values

    def _complain_of(self, unknown: list[str]) -> None:
        self.problems += [_unknown_field(name, self.rules) for name in unknown[:PROBLEMS_MAX]]
        if len(unknown) > PROBLEMS_MAX:
            self.problems.append(f"{len(unknown) - PROBLEMS_MAX} more unknown fields")

    def _read_key(self, value: Any) -> None:
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            self.key = value
        elif isinstance(value, float):
            self.problems.append(
                f"the key {self.rules.key_field} must be a text or a whole number of at most "
                "64 bits (a longer one loses digits: write it in quotes)"
            )
        elif value is not None:
            self.problems.append(
                f"the key {self.rules.key_field} must be a text or a whole number, "
                f"not {_kind(value)}"
            )

    def _check(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        checked, problem = _CHECKS[name](value)
        if problem:
            self.problems.append(f"{name} {problem}")
            return None
        return self._fit(name, checked)

    def _fit(self, name: str, value: Any) -> Any:
        limit_name = _LIMITED.get(name)
        if limit_name is None:
            return value
        limit_bytes = getattr(self.rules.limits, limit_name)
        encoded = value.encode()
        if len(encoded) <= limit_bytes:
            return value
        cut = encoded[:limit_bytes].decode(errors="ignore") if self.rules.truncate else ""
        if cut:
            self.truncated.append(name)
            return cut
        self.problems.append(f"{name} has {len(encoded)} bytes of UTF-8, {limit_bytes} are allowed")
        return value

    def _check_topic_id(self, body: dict[str, Any]) -> None:
        topic_id, group_id = body.get("TopicId"), body.get("GroupId")
        if topic_id is None or group_id is None:
            return
        prefix = group_id + TOPIC_ID_INFIX
        if not topic_id.startswith(prefix):
            self.problems.append(f"TopicId does not start with its GroupId and {TOPIC_ID_INFIX}")
            return
        problem = _custom_part_problem(topic_id[len(prefix) :])
        if problem:
            self.problems.append(f"TopicId {problem}")

    def _fix_topic_id(self, body: dict[str, Any], fixed: str | None) -> Origin:
        if fixed is None and not self.rules.derive_ids:
            return Origin.NONE
        key_field = self.rules.key_field
        if key_field and self.record.get(key_field) is None and fixed is None:
            self.problems.append(
                f"the key {key_field} is missing, and the TopicId is derived from it"
            )
        if self.problems:
            return Origin.DERIVED
        group_id = body["GroupId"]
        topic_id = fixed or derive_topic_id(group_id, self.key, self.record)
        if not topic_id.startswith(group_id + TOPIC_ID_INFIX):
            # The dead letter's community was mended: the old ID cannot be used in the new one.
            topic_id = derive_topic_id(group_id, self.key, self.record)
        body["TopicId"] = topic_id
        return Origin.DERIVED


_Checked = tuple[Any, str | None]


def _text(value: Any) -> _Checked:
    if isinstance(value, str):
        return value, None
    return None, f"must be a text, not {_kind(value)}"


def _text_that_says_something(value: Any) -> _Checked:
    text, problem = _text(value)
    if text == "":
        return None, "is empty"
    return text, problem


def _identifier(value: Any, bytes_max: int) -> _Checked:
    text, problem = _text_that_says_something(value)
    if problem:
        return None, problem
    if not all(" " <= character <= "~" for character in text):
        return None, "may hold printable ASCII only"
    if len(text) > bytes_max:
        return None, f"has {len(text)} bytes, {bytes_max} are allowed"
    return text, None


def _group_id(value: Any) -> _Checked:
    text, problem = _identifier(value, GROUP_ID_BYTES_MAX)
    if problem:
        return None, problem
    if not text.startswith(GROUP_ID_PREFIX) or text == GROUP_ID_PREFIX:
        return None, f"must start with {GROUP_ID_PREFIX} (a community's ID) and go on after it"
    if TOPIC_ID_INFIX in text:
        return None, f"holds {TOPIC_ID_INFIX}: it is a topic's ID, not a community's"
    return text, None


def _topic_id(value: Any) -> _Checked:
    return _identifier(value, TOPIC_ID_BYTES_MAX)


def _type(value: Any) -> _Checked:
    if value == "Community":
        return value, None
    return None, f"must be Community, not {_shown(value)}"


def _account(value: Any) -> _Checked:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        value = str(value)
    elif isinstance(value, float | int):
        return None, "must be a text (a whole number of at most 64 bits is sent as one)"
    text, problem = _text_that_says_something(value)
    if problem:
        return None, problem
    if len(text.encode()) > USER_ID_BYTES_MAX:
        return None, f"has {len(text.encode())} bytes, {USER_ID_BYTES_MAX} are allowed"
    return text, None


def _create_time(value: Any) -> _Checked:
    if isinstance(value, bool) or not isinstance(value, int):
        shown = f"{value}" if isinstance(value, float) else _kind(value)
        return None, f"must be whole seconds since 1970, not {shown}"
    if abs(value) >= MILLISECONDS_FROM:
        return None, f"{value} looks like milliseconds: give whole seconds since 1970"
    if not 0 <= value <= CREATE_TIME_MAX:
        return None, f"{value} is not within 0 and {CREATE_TIME_MAX} (seconds, 32 bits)"
    return value, None


_CHECKS: dict[str, Callable[[Any], _Checked]] = {
    "GroupId": _group_id,
    "TopicName": _text_that_says_something,
    "TopicId": _topic_id,
    "Type": _type,
    "From_Account": _account,
    "CustomString": _text,
    "FaceUrl": _text,
    "Notification": _text,
    "Introduction": _text,
    "CreateTime": _create_time,
}
_LIMITED = {
    "TopicName": "topic_name",
    "CustomString": "custom_string",
    "FaceUrl": "face_url",
    "Notification": "notification",
    "Introduction": "introduction",
}


def _custom_part_problem(custom: str) -> str | None:
    if not custom:
        return f"ends after {TOPIC_ID_INFIX}"
    if GROUP_ID_PREFIX in custom:
        return f"may not hold {GROUP_ID_PREFIX} after {TOPIC_ID_INFIX}"
    if custom.startswith("@TOPIC#") or "@TOPIC#_@TOPIC#" in custom:
        return "may not hold @TOPIC#_@TOPIC# (the service's own IDs look so)"
    return None


def _unknown_field(name: str, rules: RecordRules) -> str:
    known = [*FIELDS, *rules.fields]
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.75)
    hint = f" (is it {lower[close[0]]}?)" if close else ""
    return f"unknown field {_shown(name)}{hint}"


def _describe_json_error(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        if line.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "not UTF-8: this looks like UTF-16, save the file as UTF-8"
        return f"not UTF-8: byte 0x{line[broken.start]:02x} at byte {broken.start + 1} of the line"
    if "surrogate" in error.msg:
        return f"not JSON: half a surrogate pair, which UTF-8 cannot hold ({error.msg})"
    return f"not JSON: {error.msg} at character {error.colno}"


def _names_that_stand_twice(line: bytes) -> list[str]:
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(name for name, _ in pairs)
        twice.extend(name for name, count in counts.items() if count > 1)
        return dict(pairs)

    # The standard library's parser, and only for the few lines that may hold such a name:
    # orjson cannot tell. What it finds too deep the field checks refuse.
    with suppress(RecursionError):
        json.loads(line, object_pairs_hook=note)
    return [_shown(name) for name in twice[:PROBLEMS_MAX]]


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _kind(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
