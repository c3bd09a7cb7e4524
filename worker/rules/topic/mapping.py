"""From a record as an export writes it to the fields of the API."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.rules.topic.fields import FIELDS
from worker.rules.topic.problems import PROBLEMS_MAX, shortened
from worker.rules.topic.times import TimeForm, range_problem, seconds_of

Path = tuple[str, ...]
"""The names that lead to a value, from the outermost object inwards."""
SIMILAR = 0.75
"""How alike two names are, at least, for one to be a slip of the pen."""
_CHARACTER = re.compile(r"\\[.\\]|.", re.DOTALL)
"""One character of a name as a path spells it, or the dot between two names."""


def parse_path(text: str) -> Path:
    r"""Return the path that a setting spells, `purpose.value`.

    `\.` is a dot in a name, and a backslash before a dot or another backslash is written twice.
    """
    names = [""]
    for character in _CHARACTER.findall(text):
        if character == ".":
            names.append("")
        else:
            names[-1] += character[-1]
    return tuple(names)


def spell_path(path: Path) -> str:
    """Return a path as a setting spells it."""
    return ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in path)


def value_at(record: Mapping[str, Any], path: Path) -> Any:
    """Return the value at a path of a record, None without one."""
    value: Any = record
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def name_like(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a name is probably meant to be, None if it is like no one."""
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=SIMILAR)
    return lower[close[0]] if close else None


@dataclass(slots=True)
class Named:
    """The values of a record under the names of the API; nothing is checked yet but times.

    `key`: the value of its key, None without one. `problems`: what could not be mapped. `given_as`:
    the user's name of each value. `unknown`: what nothing maps.
    """

    values: dict[str, Any] = field(default_factory=dict)
    key: Any = None
    problems: list[str] = field(default_factory=list)
    given_as: dict[str, str] = field(default_factory=dict)
    unknown: list[Path] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    """What is known of the value with one name: the field that it is, or the names inside it."""

    target: str | None = None
    is_key: bool = False
    is_ignored: bool = False
    inner: dict[str, "_Node"] = field(default_factory=dict)


class RecordMapping:
    """How records are mapped; prepared once for all records."""

    def __init__(
        self,
        *,
        fields: Mapping[str, str],
        key_field: str | None,
        constants: Mapping[str, Any],
        ignored: Sequence[str],
        ignore_unknown: bool,
        where: Mapping[str, Any],
        create_time: TimeForm,
    ) -> None:
        self._constants = constants
        self._ignore_unknown = ignore_unknown
        self._create_time = create_time
        self._names = [*FIELDS, *fields]
        self._where = [(parse_path(path), _wanted(value)) for path, value in where.items()]
        self._root = _Node()
        for name in FIELDS:
            self._node((name,)).target = name
        for path, ours in fields.items():
            self._node(parse_path(path)).target = ours
        for path in ignored:
            self._node(parse_path(path)).is_ignored = True
        if key_field:
            key = self._node(parse_path(key_field))
            key.is_key = True
        for wanted, _ in self._where:
            self._node(wanted)
        self.is_direct = not (
            fields or constants or ignored or ignore_unknown or where or create_time != "seconds"
        ) and (key_field is None or len(parse_path(key_field)) == 1)
        """Whether records have the names of the API, and no more than a key beside them."""

    def _node(self, path: Path) -> _Node:
        node = self._root
        for name in path:
            node = node.inner.setdefault(name, _Node())
        return node

    def chooses(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record is one of those that are wanted (`records.where`)."""
        return all(_is_wanted(value_at(record, path), wanted) for path, wanted in self._where)

    def named(self, record: Mapping[str, Any]) -> Named:
        """Return the values of a record under the names of the API."""
        named = Named()
        _walk(record, self._root, (), named)
        if named.unknown and not self._ignore_unknown:
            self._report_unknown(named.unknown, named.problems)
        for name, value in self._constants.items():
            if named.values.setdefault(name, value) != value:
                named.problems.append(
                    f"{name} is given twice, as {named.given_as[name]} and by records.constants"
                )
        if "CreateTime" in named.values:
            given = named.values.pop("CreateTime")
            seconds, problem = seconds_of(given, self._create_time)
            if problem is None and self._create_time != "seconds":
                problem = range_problem(given, seconds)
            if problem:
                named.problems.append(f"CreateTime {problem}")
            else:
                named.values["CreateTime"] = seconds
        return named

    def _report_unknown(self, unknown: list[Path], problems: list[str]) -> None:
        problems += [self._unknown_field(path) for path in unknown[:PROBLEMS_MAX]]
        if len(unknown) > PROBLEMS_MAX:
            problems.append(f"{len(unknown) - PROBLEMS_MAX} more unknown fields")

    def _unknown_field(self, path: Path) -> str:
        name = _shown(path)
        meant = name_like(name, self._names)
        hint = f" (is it {meant}?)" if meant else ""
        return f"unknown field {shortened(name)}{hint}"


def _walk(record: Mapping[str, Any], at: _Node, above: Path, named: Named) -> None:
    for name, value in record.items():
        node = at.inner.get(name)
        if value is None:
            continue
        if node is None:
            named.unknown.append((*above, name))
        elif not node.is_ignored:
            if node.is_key:
                named.key = value
            if node.target:
                _take(named, node.target, (*above, name), value)
            elif node.inner and isinstance(value, dict):
                _walk(value, node, (*above, name), named)


def _take(named: Named, ours: str, path: Path, value: Any) -> None:
    name = _shown(path)
    if ours in named.values:
        named.problems.append(f"{ours} is given twice, as {named.given_as[ours]} and as {name}")
    else:
        named.values[ours] = value
        named.given_as[ours] = name


def _shown(path: Path) -> str:
    """Return a path for a sentence: a name alone as the record has it."""
    return spell_path(path) if len(path) > 1 else path[0]


def _wanted(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _is_wanted(value: Any, wanted: Iterable[Any]) -> bool:
    # In Python true is 1; in JSON it is not. From a table or the environment all values are texts.
    return any(
        (value == one and isinstance(value, bool) == isinstance(one, bool))
        or (isinstance(value, str) != isinstance(one, str) and _spelled(value) == _spelled(one))
        for one in wanted
    )


def _spelled(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None
