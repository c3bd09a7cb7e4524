"""How exports write times, and which of them can be meant in one way only."""

from typing import Any

import pytest

from worker.rules.topic.times import TimeForm, range_problem, seconds_of

AT_S = 1_632_174_749


@pytest.mark.parametrize(
    ("form", "value", "seconds"),
    [
        ("seconds", AT_S, AT_S),
        ("seconds", float(AT_S), AT_S),
        ("seconds", f" {AT_S} ", AT_S),
        ("seconds", f"{AT_S}.000", AT_S),
        ("seconds", -5, -5),
        ("milliseconds", AT_S * 1000 + 999, AT_S),
        ("milliseconds", f"{AT_S}049", AT_S),
        ("iso8601", "2021-09-20T21:52:29.049+00:00", AT_S),
        ("iso8601", "2021-09-20T23:52:29.999999+02:00", AT_S),
        ("iso8601", "2021-09-20T21:52:29Z", AT_S),
        ("auto", AT_S, AT_S),
        ("auto", AT_S + 0.25, AT_S),
        ("auto", f"{AT_S}.000100", AT_S),
        ("auto", AT_S * 1000 + 1, AT_S),
        ("auto", "2021-09-20T21:52:29Z", AT_S),
        ("auto", 0, 0),
    ],
)
def test_a_time_is_read_in_the_form_that_is_set(form: TimeForm, value: Any, seconds: int) -> None:
    assert seconds_of(value, form) == (seconds, None)


@pytest.mark.parametrize(
    ("form", "value", "problem"),
    [
        ("seconds", AT_S + 0.5, f"must be whole seconds since 1970, not {AT_S + 0.5}"),
        ("seconds", "2021-09-20", 'must be whole seconds since 1970, not "2021-09-20"'),
        ("seconds", True, "must be whole seconds since 1970, not true or false"),
        ("seconds", float("inf"), "must be whole seconds since 1970, not inf"),
        ("milliseconds", [], "must be whole milliseconds since 1970, not a list"),
        ("iso8601", AT_S, "must be a time like 2021-09-20T21:52:29Z, not a number"),
        ("iso8601", "soon", 'must be a time like 2021-09-20T21:52:29Z, not "soon"'),
        ("iso8601", "2021-09-20T21:52:29", "has no time zone"),
        ("auto", "20 Sep 2021", "must be a time like"),
        ("auto", 17, "17 is neither seconds nor milliseconds"),
        ("auto", AT_S * 1_000_000, "is neither seconds nor milliseconds"),
    ],
)
def test_a_time_that_is_something_else_is_refused_and_shown(
    form: TimeForm, value: Any, problem: str
) -> None:
    seconds, found = seconds_of(value, form)
    assert seconds is None
    assert found is not None
    assert problem in found


def test_a_time_out_of_range_is_shown_as_it_was_written() -> None:
    assert range_problem("1632174749049", 1_632_174_749) is None
    assert range_problem(-3_600_000, -3_600) == (
        "-3600000 is no time between 1970 and 2106: is records.create_time right?"
    )
    assert range_problem(1_632_174_749_049_000, 1_632_174_749_049) is not None
    assert range_problem("x", None) is None
