"""Refusals in a row that show that the run is at fault."""

import pytest

from worker.rules.streaks import (
    STREAK_COMMUNITIES_MAX,
    UNKNOWN_MAX,
    UNKNOWN_WITHIN_S,
    GatewayRefusals,
    RejectionStreak,
    UnknownCodes,
)
from worker.rules.verdict import Halt

AT_THE_DOOR = 60999
ELSEWHERE = 12345


def count(
    unknown: UnknownCodes, code: int, at_s: float = 0.0, *, anything_imported: bool = False
) -> Halt | None:
    return unknown.count(code, "nobody knows", at_s, anything_imported=anything_imported)


@pytest.mark.parametrize("code", [AT_THE_DOOR, ELSEWHERE])
def test_ten_unknown_codes_in_a_row_halt(code: int) -> None:
    unknown = UnknownCodes()
    halts = [count(unknown, code) for _ in range(UNKNOWN_MAX)]
    assert halts[:-1] == [None] * (UNKNOWN_MAX - 1)
    assert isinstance(halts[-1], Halt)
    assert halts[-1].code == code


@pytest.mark.parametrize("code", [AT_THE_DOOR, ELSEWHERE])
def test_an_answer_between_begins_the_count_anew(code: int) -> None:
    unknown = UnknownCodes()
    for _ in range(5 * UNKNOWN_MAX):
        assert count(unknown, code) is None
        unknown.end()


def test_few_unknown_codes_of_the_access_layer_halt_after_a_while() -> None:
    unknown = UnknownCodes()
    assert count(unknown, AT_THE_DOOR, 100.0) is None
    assert count(unknown, AT_THE_DOOR, 99.9 + UNKNOWN_WITHIN_S) is None
    assert count(unknown, AT_THE_DOOR, 100.0 + UNKNOWN_WITHIN_S) is not None


def test_different_codes_of_the_access_layer_count_together() -> None:
    unknown = UnknownCodes()
    assert [count(unknown, 60900 + n) for n in range(UNKNOWN_MAX)][-1] is not None


def test_different_unknown_codes_elsewhere_do_not_count_together() -> None:
    unknown = UnknownCodes()
    assert not any(count(unknown, ELSEWHERE + n % 2) for n in range(5 * UNKNOWN_MAX))


def test_unknown_codes_halt_only_a_job_that_imported_nothing() -> None:
    unknown = UnknownCodes()
    assert not any(
        count(unknown, ELSEWHERE, anything_imported=True) for _ in range(5 * UNKNOWN_MAX)
    )
    assert count(UnknownCodes(), AT_THE_DOOR, anything_imported=True) is None


def test_a_streak_names_its_communities_within_a_bound() -> None:
    streak = RejectionStreak(0)
    for number in range(STREAK_COMMUNITIES_MAX + 10):
        assert streak.count(10004, f"g{number}") is None
    assert len(streak.groups) == STREAK_COMMUNITIES_MAX
    streak.end()
    streak.count(10004, "a")
    assert streak.groups == {"a"}, "it began anew"


def test_a_streak_without_a_code_halts_by_its_message() -> None:
    streak = RejectionStreak(2)
    streak.count(None, "a")
    halt = streak.count(None, "b")
    assert halt is not None
    assert halt.code == "rejected"


def test_an_answer_of_the_service_ends_the_refusals_of_a_gateway() -> None:
    gateway = GatewayRefusals()
    for _ in range(50):
        assert gateway.count(404, "HTTP 404") is None
        gateway.end()
