"""How an export writes a time, and what that is in seconds since 1970."""

import re
from datetime import datetime
from typing import Any, Literal

from worker.rules.topic.problems import kind_of, shortened

TimeForm = Literal["seconds", "milliseconds", "iso8601", "auto"]
Seconds = tuple[int | None, str | None]
"""Seconds and None, or None and the problem, to be read after the field's name."""
MILLISECONDS_A_SECOND = 1000
SECONDS_BETWEEN = (946_684_800, 2**32 - 1)
"""From 2000 to 2106: such a number is no time in milliseconds that anybody means."""
_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")


def seconds_of(value: Any, form: TimeForm) -> Seconds:
    """Return the seconds that a value stands for, written in this form.

    A whole float and digits in a text are the number that they spell. Only `auto` drops a fraction
    of a second; it takes what can only be meant in one way.
    """
    number = _number(value)
    if form == "seconds":
        return _whole(number, value, "seconds")
    if form == "milliseconds":
        milliseconds, problem = _whole(number, value, "milliseconds")
        return None if milliseconds is None else milliseconds // MILLISECONDS_A_SECOND, problem
    if form == "auto" and number is not None:
        return _plausible(number)
    return _from_iso(value)


def range_problem(value: Any, seconds: int | None) -> str | None:
    """Return why a value that stands for so many seconds is out of the service's range."""
    if seconds is None or 0 <= seconds <= SECONDS_BETWEEN[1]:
        return None
    shown = _shown(value) if isinstance(value, str) else value
    return f"{shown} is no time between 1970 and 2106: is records.create_time right?"


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        return _spelled(value.strip())
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def _spelled(text: str) -> int | float | None:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    return float(text) if found[1] else int(text)


def _whole(number: float | None, value: Any, unit: str) -> Seconds:
    if number is None or number % 1 != 0:
        return None, f"must be whole {unit} since 1970, not {_shown(value)}"
    return int(number), None


def _from_iso(value: Any) -> Seconds:
    try:
        time = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None:
        return None, f"must be a time like 2021-09-20T21:52:29Z, not {_shown(value)}"
    if time.tzinfo is None:
        return None, f"{_shown(value)} has no time zone: it must end like Z or +02:00"
    return int(time.timestamp() // 1), None


def _plausible(number: float) -> Seconds:
    low, high = SECONDS_BETWEEN
    if number == 0 or low <= number <= high:
        return int(number), None
    if low * MILLISECONDS_A_SECOND <= number <= high * MILLISECONDS_A_SECOND:
        return int(number // MILLISECONDS_A_SECOND), None
    return None, (
        f"{number} is neither seconds nor milliseconds of a time between 2000 and 2106: say with "
        "records.create_time how it is meant"
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{shortened(value)}"'
    return str(value) if isinstance(value, float) else kind_of(value)
