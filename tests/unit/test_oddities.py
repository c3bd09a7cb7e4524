"""Warnings: values that are valid and probably not meant."""

import pytest

from worker.rules.topic.oddities import (
    SENTENCES,
    Oddity,
    create_time_of,
    name_oddity,
    oddities_of,
    time_oddity,
)

NOW_S = 1_600_000_000.5


@pytest.mark.parametrize(
    ("create_time", "oddity"),
    [
        (None, None),
        (0, Oddity.TIME_ZERO),
        (1, Oddity.TIME_EARLY),
        (946_684_799, Oddity.TIME_EARLY),
        (946_684_800, None),
        (1_600_000_000, None),
        (1_600_000_001, Oddity.TIME_FUTURE),
    ],
)
def test_times_that_cannot_be_meant_are_odd(create_time: int | None, oddity: Oddity | None) -> None:
    assert time_oddity(create_time, NOW_S) is oddity


@pytest.mark.parametrize("name", [" general", "general ", "general\u3000", "\u00a0general"])
def test_white_space_around_a_name_is_odd(name: str) -> None:
    assert name_oddity(name) is Oddity.NAME_PADDED
    assert name_oddity("two words") is None


def test_every_oddity_has_a_sentence() -> None:
    assert SENTENCES.keys() == set(Oddity)


def test_a_record_may_be_odd_in_two_ways() -> None:
    assert oddities_of(" a", 0, NOW_S) == (Oddity.NAME_PADDED, Oddity.TIME_ZERO)
    assert oddities_of("a", 1_500_000_000, NOW_S) == ()


def test_the_time_in_a_body_is_found_without_parsing_it() -> None:
    assert create_time_of(b'{"TopicName":"a","CreateTime":17,"TopicId":"x"}') == 17
    assert create_time_of(b'{"TopicName":"\\"CreateTime\\":17"}') is None
