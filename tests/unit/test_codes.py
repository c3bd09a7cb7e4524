"""The table of codes, and the families of those in no table."""

import pytest

from worker.rules.codes import (
    ACCOUNT_OR_SIGNATURE,
    ADMIN_WITHOUT_ACCOUNT,
    CODES,
    FULL,
    NO_TOPICS,
    Action,
    lookup,
)


@pytest.mark.parametrize("code", [60000, 60500, 60999])
def test_an_unknown_code_of_the_access_layer_is_never_ambiguous(code: int) -> None:
    assert (lookup(code).action, lookup(code).ambiguous) == (Action.UNKNOWN, False)


@pytest.mark.parametrize("code", [70346, 71234, 72999])
def test_an_unknown_code_of_the_account_service_renews_once(code: int) -> None:
    assert (lookup(code).action, lookup(code).once) == (Action.RENEW, True)


@pytest.mark.parametrize("code", [-1, 1, 10999, 59999, 61000, 69999, 73000, 110099])
def test_any_other_unknown_code_is_ambiguous(code: int) -> None:
    assert (lookup(code).action, lookup(code).ambiguous) == (Action.UNKNOWN, True)


def test_each_code_of_the_table_is_looked_up_as_itself() -> None:
    assert all(lookup(code) is entry and entry.code == code for code, entry in CODES.items())


def test_the_named_codes_are_in_the_table() -> None:
    assert {FULL, NO_TOPICS} | ACCOUNT_OR_SIGNATURE | ADMIN_WITHOUT_ACCOUNT <= CODES.keys()
    assert {code for code, entry in CODES.items() if entry.action is Action.HOLD} == {
        FULL,
        NO_TOPICS,
    }


def test_pauses_of_a_refused_account_last_half_a_minute() -> None:
    for code in ACCOUNT_OR_SIGNATURE:
        assert sum(CODES[code].pauses_s) == 30.0
        assert CODES[code].once


def test_a_code_that_may_mean_two_things_names_both() -> None:
    assert "timed out" in CODES[80005].meaning
    assert "deactivated" in CODES[80005].meaning
    assert "arrears" in CODES[80005].hint
