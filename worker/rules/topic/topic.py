"""A record becomes a topic: every field is checked, the TopicId fixed, the body serialized once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from worker.rules.topic.cutting import cut
from worker.rules.topic.fields import (
    FIELDS,
    READ_BY_PEOPLE,
    REQUIRED,
    FieldLimits,
    check_field,
)
from worker.rules.topic.identity import Origin, belongs_to, derive_topic_id, topic_id_problem
from worker.rules.topic.mapping import RecordMapping
from worker.rules.topic.plain import PlainReader, is_plain_key
from worker.rules.topic.problems import InvalidRecordError, kind_of
from worker.rules.topic.times import TimeForm


@dataclass(frozen=True, slots=True)
class RecordRules:
    """How records become topics: the settings of the section `records`.

    `truncate`: cut a value that is too long instead of refusing the record, if people read it
    (READ_BY_PEOPLE). `derive_ids`: give a record without TopicId a derived one. The mapping:
    `fields`: where the user has a field -> its name in the API. `key_field`: where the record's key
    is. `constants`: fields that all records have. `ignored`, `ignore_unknown`: what is left out.
    `where`: values that a record must have, or it is skipped. `create_time`: how times are written.
    """

    limits: FieldLimits = field(default_factory=FieldLimits)
    truncate: bool = False
    derive_ids: bool = True
    fields: Mapping[str, str] = field(default_factory=dict)
    key_field: str | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    ignored: Sequence[str] = ()
    ignore_unknown: bool = False
    where: Mapping[str, Any] = field(default_factory=dict)
    create_time: TimeForm = "seconds"
    mapping: RecordMapping = field(init=False, repr=False, compare=False)
    plain: PlainReader = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mapping = RecordMapping(
            fields=self.fields,
            key_field=self.key_field,
            constants=self.constants,
            ignored=self.ignored,
            ignore_unknown=self.ignore_unknown,
            where=self.where,
            create_time=self.create_time,
        )
        object.__setattr__(self, "mapping", mapping)
        key_field = self.key_field if mapping.is_direct else None
        object.__setattr__(self, "plain", PlainReader(self.limits, key_field))


@dataclass(slots=True)
class Topic:
    """A valid record; to be read only, frozen it would cost twice the time of its making.

    `topic_id` is None only with the origin NONE. `key`: the record's key in the old system, never
    sent. `has_account`: whether `From_Account` is given. `body`: the body of its call, compact JSON
    in UTF-8. `truncated`: the names of the fields that were cut.
    """

    topic_id: str | None
    origin: Origin
    group_id: str
    name: str
    key: str | int | None
    has_account: bool
    body: bytes
    truncated: tuple[str, ...] = ()


def to_topic(record: Mapping[str, Any], rules: RecordRules, topic_id: str | None = None) -> Topic:
    """Check a parsed record, fix its TopicId and serialize the body of its call.

    `topic_id`: the ID that was fixed earlier for this record (read from its dead letter), used if
    the record itself has none. Raises InvalidRecordError with every problem of the record.
    """
    if topic_id is None:
        topic = _plain_topic(record, rules)
        if topic is not None:
            return topic
    return _Reading(record, rules).topic(topic_id)


def plain_body(
    record: Mapping[str, Any], rules: RecordRules
) -> tuple[dict[str, Any], Origin, str | int | None] | None:
    """Return what a record that is surely valid sends, where its TopicId comes from, and its key.

    A derived TopicId is not in the body. Returns None if the record needs a closer look; most
    records do not, so this is where the time of an import's reading goes.
    """
    if rules.mapping.is_direct:
        values, key = record, record.get(rules.key_field) if rules.key_field else None
    else:
        named = rules.mapping.named(record)
        if named.problems:
            return None
        values, key = named.values, named.key
    body = rules.plain.body(values)
    if body is None or (rules.key_field and not is_plain_key(key)):
        return None
    if "TopicId" not in body:
        return body, Origin.DERIVED if rules.derive_ids else Origin.NONE, key
    if topic_id_problem(body["TopicId"], body["GroupId"]):
        return None
    return body, Origin.GIVEN, key


def _plain_topic(record: Mapping[str, Any], rules: RecordRules) -> Topic | None:
    found = plain_body(record, rules)
    if found is None:
        return None
    body, origin, key = found
    group_id = body["GroupId"]
    if origin is Origin.DERIVED:
        # Last in the body: contents are compared by their hashes, those in older queues, too.
        body["TopicId"] = derive_topic_id(group_id, key, record)
    return Topic(
        body.get("TopicId"),
        origin,
        group_id,
        body["TopicName"],
        key,
        "From_Account" in body,
        orjson.dumps(body),
    )


class _Reading:
    """The reading of one record: what was taken from it, and its problems, so far."""

    def __init__(self, record: Mapping[str, Any], rules: RecordRules) -> None:
        self.record = record
        self.rules = rules
        self.problems: list[str] = []
        self.truncated: list[str] = []
        self.key_given: Any = None
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
        named = self.rules.mapping.named(self.record)
        self._read_key(named.key)
        self.problems += named.problems
        self.problems += [f"{name} is missing" for name in REQUIRED if name not in named.values]
        return named.values

    def _read_key(self, value: Any) -> None:
        self.key_given = value
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
                f"not {kind_of(value)}"
            )

    def _check(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        checked, problem = check_field(name, value)
        if problem:
            self.problems.append(f"{name} {problem}")
            return None
        return self._fit(name, checked)

    def _fit(self, name: str, value: Any) -> Any:
        limit_bytes = self.rules.limits.bytes_max(name)
        if limit_bytes is None:
            return value
        size_bytes = len(value) if value.isascii() else len(value.encode())
        if size_bytes <= limit_bytes:
            return value
        if self.rules.truncate and name in READ_BY_PEOPLE and (kept := cut(value, limit_bytes)):
            self.truncated.append(name)
            return kept
        self.problems.append(f"{name} has {size_bytes} bytes of UTF-8, {limit_bytes} are allowed")
        return value

    def _check_topic_id(self, body: dict[str, Any]) -> None:
        topic_id, group_id = body.get("TopicId"), body.get("GroupId")
        if topic_id is None or group_id is None:
            return
        problem = topic_id_problem(topic_id, group_id)
        if problem:
            self.problems.append(f"TopicId {problem}")

    def _fix_topic_id(self, body: dict[str, Any], fixed: str | None) -> Origin:
        if fixed is None and not self.rules.derive_ids:
            return Origin.NONE
        key_field = self.rules.key_field
        if key_field and self.key_given is None and fixed is None:
            self.problems.append(
                f"the key {key_field} is missing, and the TopicId is derived from it"
            )
        if self.problems:
            return Origin.DERIVED
        group_id = body["GroupId"]
        topic_id = fixed or derive_topic_id(group_id, self.key, self.record)
        if not belongs_to(topic_id, group_id):
            # The GroupId in the dead letter was corrected: the ID of the old community is no use.
            topic_id = derive_topic_id(group_id, self.key, self.record)
        body["TopicId"] = topic_id
        return Origin.DERIVED


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
