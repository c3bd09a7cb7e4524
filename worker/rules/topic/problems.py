"""Why a record cannot be sent, in sentences for the person who has to correct it."""

from typing import Any

SHOWN_CHARACTERS_MAX = 40
"""How much of a name or value from a record one sentence repeats."""
PROBLEMS_MAX = 20
"""How many names of one record are reported; a line of 1 MB may hold 100,000 unknown ones."""


class InvalidRecordError(ValueError):
    """A record that cannot be sent.

    `problems`: every problem found, one sentence each. `key`, `group_id`, `topic_id`: the parts of
    its identity that could be read. `is_object`: whether the line was a JSON object, and so can be
    repeated as JSON in the dead letter.
    """

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
    """Return the kind of a JSON value in words, for a sentence."""
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


def shortened(value: Any) -> str:
    """Return the beginning of a text, or the kind of any other value, for a sentence."""
    text = value if isinstance(value, str) else kind_of(value)
    if len(text) <= SHOWN_CHARACTERS_MAX:
        return text
    return f"{text[:SHOWN_CHARACTERS_MAX]}…"
