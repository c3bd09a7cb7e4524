"""What is valid in a record, and probably not meant: warnings, which change no exit code."""

import re
from dataclasses import dataclass
from enum import StrEnum

YEAR_2000_S = 946_684_800
"""2000-01-01 in UTC, in Unix seconds; nobody had a chat with topics before."""

_CREATE_TIME = re.compile(rb'"CreateTime":([0-9]+)')


class Oddity(StrEnum):
    """A kind of warning; its value is its name in `report.json` and in kept counts."""

    NAME_PADDED = "topic_name_white_space"
    TIME_ZERO = "create_time_zero"
    TIME_EARLY = "create_time_before_2000"
    TIME_FUTURE = "create_time_in_future"
    NAMES_EQUAL = "topic_names_equal_by_cutting"


SENTENCES = {
    Oddity.NAME_PADDED: "TopicName begins or ends with white space, which is sent",
    Oddity.TIME_ZERO: "CreateTime is 0, which is the year 1970: leave it out if it is not known",
    Oddity.TIME_EARLY: "CreateTime is before the year 2000",
    Oddity.TIME_FUTURE: "CreateTime is in the future",
    Oddity.NAMES_EQUAL: "TopicName became equal to another one of its community by cutting",
}


def oddities_of(name: str, create_time: int | None, now_s: float) -> tuple[Oddity, ...]:
    """Return what is odd about a valid record; times in Unix seconds."""
    if name == name.strip() and (create_time is None or YEAR_2000_S <= create_time <= now_s):
        return ()  # as most are; the calls below take three times as long
    found = (name_oddity(name), time_oddity(create_time, now_s))
    return tuple(oddity for oddity in found if oddity)


def name_oddity(name: str) -> Oddity | None:
    """Return what is odd about a valid TopicName, if anything."""
    return Oddity.NAME_PADDED if name != name.strip() else None


def create_time_of(body: bytes) -> int | None:
    """Return the CreateTime in the body of a call, None if it has none; without parsing it."""
    # Inside a text a quote is escaped, so this can only be the name.
    found = _CREATE_TIME.search(body)
    return int(found[1]) if found else None


def time_oddity(create_time: int | None, now_s: float) -> Oddity | None:
    """Return what is odd about a valid CreateTime, if anything. Both in Unix seconds."""
    if create_time is None:
        return None
    if create_time == 0:
        return Oddity.TIME_ZERO
    if create_time < YEAR_2000_S:
        return Oddity.TIME_EARLY
    return Oddity.TIME_FUTURE if create_time > now_s else None


@dataclass(frozen=True, slots=True)
class EqualName:
    """One TopicName that several topics of a community have, at least one of them by cutting.

    `sources`: where two of them were read, as `path:line`.
    """

    group_id: str
    topic_name: str
    topics: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EqualNames:
    """How many TopicNames became equal by cutting, how many topics have them, and the first."""

    names: int = 0
    topics: int = 0
    examples: tuple[EqualName, ...] = ()


NO_EQUAL_NAMES = EqualNames()
