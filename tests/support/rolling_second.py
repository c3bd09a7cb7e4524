"""Counts the calls in any rolling second, as a quota does."""

from bisect import bisect_left
from collections.abc import Sequence


def most_in_a_second(times_s: Sequence[float]) -> int:
    """Return the largest number of these ascending times in any half-open second."""
    return max(
        (index + 1 - bisect_left(times_s, at - 1.0 + 1e-7) for index, at in enumerate(times_s)),
        default=0,
    )
