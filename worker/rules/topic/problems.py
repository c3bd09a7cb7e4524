"""Why a record cannot be sent."""

from typing import Any

SHOWN_MAX = 40


PROBLEMS_MAX = 20
"""Unknown names reported of one record; a line of a megabyte may hold a hundred thousand."""


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


def kind_of(value: Any) -> str:
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


def shown(value: Any) -> str:
    text = value if isinstance(value, str) else kind_of(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"
