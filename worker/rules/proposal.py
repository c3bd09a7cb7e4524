"""Proposes a mapping: which of a record's own fields are the fields of the API, by their names.

A person reads the proposal before it is used, so a name that is probably right is enough.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.rules.topic.fields import (
    FIELDS,
    MILLISECONDS_FROM,
    REQUIRED,
    FieldLimits,
    check_field,
)
from worker.rules.topic.grouping import MessageGroup, kind_of_message
from worker.rules.topic.identity import GROUP_ID_PREFIX, TOPIC_ID_INFIX
from worker.rules.topic.mapping import name_like, parse_path, spell_path, value_at
from worker.rules.topic.times import TimeForm, seconds_of

BY_VALUE = ("GroupId", "TopicId")
"""The fields of the API that are known by what their IDs begin with, whatever their name is."""
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "TopicName": ("topicname", "name", "title", "channelname", "displayname", "subject"),
    "From_Account": (
        "fromaccount", "creator", "creatorid", "createdby", "owner", "ownerid", "author",
    ),
    "CustomString": ("customstring", "custom", "metadata"),
    "FaceUrl": ("faceurl", "avatar", "avatarurl", "icon", "iconurl", "image", "imageurl"),
    "Notification": (
        "notification", "notice", "announcement", "topic.value", "topic", "header",
    ),
    "Introduction": (
        "introduction", "purpose.value", "description", "purpose", "about", "summary", "intro",
    ),
    "CreateTime": (
        "createtime", "created", "createdat", "createat", "creationtime", "datecreated",
        "creationdate", "timestamp",
    ),
}  # fmt: skip
"""For each field of the API the names that other systems use, the likeliest first.

Compared in lower case, without what stands between words. `a.b` is the entry `b` of the object `a`.
"""
KEYS = ("id", "key", "_id", "uid", "uuid", "channelid", "externalid", "slug")
"""The names of a record's key, the likeliest first; compared in lower case."""
MOST = 0.95
"""The share of the values of a field that tells its kind: a few broken records do not count."""
_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mapping for records of one kind, and what it would make of those that were looked at.

    `fields`: a path in the record -> the field of the API; where both are the same there is none.
    `key_field`: the record's key in the old system. `create_time`: how times are written, None
    without times or for seconds. `missing`: required fields that nothing was found for.
    `ignored`: names and paths of the record that are neither mapped nor misspelt. `problems`: why
    records would be refused, each with how many. `records`: how many were looked at.
    """

    records: int
    fields: Mapping[str, str] = field(default_factory=dict)
    key_field: str | None = None
    create_time: TimeForm | None = None
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()


def propose(records: Sequence[Mapping[str, Any]]) -> Proposal:
    """Return a mapping for records like these, which are as they were read."""
    examples: dict[str, list[Any]] = {}
    for record in records:
        for path, value in _paths(record):
            examples.setdefault(path, []).append(value)
    chosen = dict(_choose(examples))
    key_field = next(
        (
            path
            for key in KEYS
            for path in examples
            if path.lower() == key and _is_free(path, chosen)
        ),
        None,
    )
    used = {_top(path) for path in (*chosen, *([key_field] if key_field else []))}
    names = dict.fromkeys(
        name for record in records for name, value in record.items() if value is not None
    )
    slips = {name: name_like(name, FIELDS) for name in names if name not in used}
    times = [
        value for path, name in chosen.items() if name == "CreateTime" for value in examples[path]
    ]
    unit = _unit(times)
    return Proposal(
        records=len(records),
        fields={path: name for path, name in chosen.items() if path != name},
        key_field=key_field,
        create_time=None if unit == "seconds" else unit,
        missing=tuple(name for name in REQUIRED if name not in chosen.values()),
        ignored=(
            *(spell_path((name,)) for name, meant in slips.items() if meant is None),
            *dict.fromkeys(_beside(records, {*chosen, key_field})),
        ),
        problems=(
            *_problems(records, chosen, unit or "seconds"),
            *_misspelt(records, slips),
        ),
    )


def _beside(records: Sequence[Mapping[str, Any]], mapped: Collection[str | None]) -> Iterator[str]:
    """Yield the paths beside a mapped one in the same inner object."""
    holders = {_top(path) for path in mapped if path and len(parse_path(path)) > 1}
    for record in records:
        for name in holders:
            inside = record.get(name)
            paths = (spell_path((name, inner)) for inner in _names_in(inside))
            yield from (path for path in paths if path not in mapped)


def _names_in(value: Any) -> Iterable[str]:
    return value if isinstance(value, Mapping) else ()


def _paths(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each field that is set, those of inner objects one level deep."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from (
                (spell_path((name, inner)), v)
                for inner, v in value.items()
                if v is not None and not isinstance(v, Mapping)
            )
        elif value is not None:
            yield spell_path((name,)), value


def _choose(examples: Mapping[str, list[Any]]) -> Iterator[tuple[str, str]]:
    """Yield a path for each field of the API that one is found for."""
    taken: set[str] = set()
    for name in FIELDS:
        if name in examples:
            taken.add(name)
            yield name, name
    for name in (*BY_VALUE, *SYNONYMS):
        if name in taken:
            continue
        fitting = (
            path
            for path in _named_like(name, examples)
            if path not in taken and _fits(name, examples[path])
        )
        found = next(fitting, None)
        if found is not None:
            taken.add(found)
            yield found, name


def _named_like(name: str, paths: Iterable[str]) -> Iterator[str]:
    """Yield the paths that may be a field of the API by their names, the likeliest first."""
    if name in BY_VALUE:
        yield from paths
    for synonym in SYNONYMS.get(name, ()):
        yield from (path for path in paths if _plain(path) == synonym)


def _fits(name: str, values: Sequence[Any]) -> bool:
    """Return whether values may stand in a field of the API, by their kind."""
    if name in BY_VALUE:
        return _are_most(_is_id(value, of_topic=name == "TopicId") for value in values)
    if name == "CreateTime":
        return _unit(values) is not None
    kinds = (str, int) if name == "From_Account" else (str,)
    return _are_most(isinstance(v, kinds) and not isinstance(v, bool) for v in values)


def _is_id(value: Any, *, of_topic: bool) -> bool:
    """Return whether a value begins as the service's IDs do: of a topic, or of a community."""
    is_ours = isinstance(value, str) and value.startswith(GROUP_ID_PREFIX)
    return is_ours and (TOPIC_ID_INFIX in value) is of_topic


def _are_most(fitting: Iterable[bool]) -> bool:
    fits = list(fitting)
    return sum(fits) >= MOST * len(fits)


def _unit(values: Sequence[Any]) -> TimeForm | None:
    """Return how most of the times are written, None if these are none."""
    units = Counter(unit for unit in map(_unit_of, values) if unit is not None)
    if not values or units.total() < MOST * len(values):
        return None
    unit, count = units.most_common(1)[0]
    return unit if count >= MOST * len(values) else "auto"


def _unit_of(value: Any) -> TimeForm | None:
    if isinstance(value, str) and _ISO_8601.fullmatch(value):
        return "iso8601"
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return "milliseconds" if abs(value) >= MILLISECONDS_FROM else "seconds"


def _problems(
    records: Sequence[Mapping[str, Any]], chosen: Mapping[str, str], unit: TimeForm
) -> Iterator[tuple[int, str]]:
    """Yield how many records would be refused for each kind of reason, and the reason."""
    groups: dict[str, MessageGroup] = {}
    for record in records:
        for message in _problems_of(record, chosen, unit):
            group = groups.setdefault(kind_of_message(message), MessageGroup(message))
            group.add(message, "")
    for group in groups.values():
        yield group.count, group.message


def _problems_of(
    record: Mapping[str, Any], chosen: Mapping[str, str], unit: TimeForm
) -> Iterator[str]:
    limits = FieldLimits()
    values = {name: value_at(record, parse_path(path)) for path, name in chosen.items()}
    yield from (f"{name} is missing" for name in REQUIRED if values.get(name) is None)
    for name, value in values.items():
        if value is None:
            continue
        checked, problem = _checked(name, value, unit)
        bytes_max = limits.bytes_max(name)
        if problem:
            yield f"{name} {problem}"
        elif bytes_max is not None and len(checked.encode()) > bytes_max:
            yield f"{name} has {len(checked.encode())} bytes of UTF-8, {bytes_max} are allowed"


def _checked(name: str, value: Any, unit: TimeForm) -> tuple[Any, str | None]:
    if name != "CreateTime":
        return check_field(name, value)
    seconds, problem = seconds_of(value, unit)
    return check_field(name, seconds) if problem is None else (None, problem)


def _misspelt(
    records: Sequence[Mapping[str, Any]], slips: Mapping[str, str | None]
) -> Iterator[tuple[int, str]]:
    for name, meant in slips.items():
        if meant is not None:
            count = sum(name in record for record in records)
            yield count, f"unknown field {name} (is it {meant}?)"


def _is_free(path: str, chosen: Mapping[str, str]) -> bool:
    return path not in chosen and path not in FIELDS


def _plain(path: str) -> str:
    return re.sub(r"[_\- ]", "", path).lower()


def _top(path: str) -> str:
    """Return the name of the record's own field that a path begins with."""
    return parse_path(path)[0]
