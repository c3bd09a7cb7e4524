"""Halts: reasons that are not error codes of the service, and how a service tries again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, repeat
from typing import TypeVar

Value = TypeVar("Value")


class HaltCode(StrEnum):
    """Why a run halted, where no error code of the service says it.

    The values are written to `report.json`, the log and the summary, so they never change.
    """

    STORAGE = "storage"
    """The queue or a result file cannot be read or written."""
    OUTAGE = "outage"
    """No call succeeded for as long as `retry.patience` allows."""
    INPUT = "input"
    """An input cannot be read to its end."""
    DEFECT = "defect"
    """The program itself failed."""
    REJECTED = "rejected"
    """So many records in a row were refused that the mapping of the fields looks wrong."""


PAUSES_S = (5.0, 10.0, 30.0, 60.0)
"""Pauses of a halted service before it tries again: a person may have acted meanwhile."""
PROBE_RECORDS = (2, 4, 8, 16, 32)
"""How many records it tries with: the first ones of the queue may be those that halt."""
FORGET_AFTER_S = 2 * PAUSES_S[-1]
"""A failure so long after the last one begins again with the shortest pause."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How a halted service tries again: after a pause, with a few records."""

    pause_s: float
    records: int


def pauses_s() -> Iterator[float]:
    """Yield the pauses of a halt; the last one repeats."""
    return _repeating_last(PAUSES_S)


def probes() -> Iterator[Probe]:
    """Yield the probes of a halt; the last pause and the last number of records repeat."""
    return map(Probe, _repeating_last(PAUSES_S), _repeating_last(PROBE_RECORDS))


def _repeating_last(values: Sequence[Value]) -> Iterator[Value]:
    return chain(values, repeat(values[-1]))
