"""One line of a diagnosis."""

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How a thing is found; only `fail` changes the exit code. The values never change."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing. `advice`: what to do, empty where nothing is to be done."""

    name: str
    grade: Grade
    message: str
    advice: str = ""


def passed(name: str, message: str) -> Finding:
    """Return a finding that needs nobody."""
    return Finding(name, Grade.PASS, message)


def warned(name: str, message: str, advice: str) -> Finding:
    """Return a finding of what works and may do harm."""
    return Finding(name, Grade.WARN, message, advice)


def failed(name: str, message: str, advice: str) -> Finding:
    """Return a finding of what would keep an import from working."""
    return Finding(name, Grade.FAIL, message, advice)
