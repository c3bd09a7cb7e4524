"""Cutting a text that is too long, where people see the end of a character."""

from functools import cache
from typing import Any

from worker.rules.topic.characters import is_blank

_ZERO_WIDTH_JOINER = "\u200d"


def cut(text: str, bytes_max: int) -> str:
    """Return the longest beginning of a text that fits and ends well, "" if there is none.

    `bytes_max`: of UTF-8. The beginning ends between two grapheme clusters (UAX 29), and its last
    cluster is visible and ends neither in a joiner nor in white space.
    """
    clusters: list[str] = []
    size_bytes = 0
    # Whether a cluster ends depends on one character after it, and each has a byte at least.
    for found in _cluster_pattern().finditer(text[: bytes_max + 1]):
        size_bytes += len(found[0].encode())
        if size_bytes > bytes_max:
            break
        clusters.append(found[0])
    while clusters and not _ends_well(clusters[-1]):
        clusters.pop()
    return "".join(clusters)


def _ends_well(cluster: str) -> bool:
    last = cluster[-1]
    return last != _ZERO_WIDTH_JOINER and not last.isspace() and not is_blank(cluster)


@cache
def _cluster_pattern() -> Any:
    # Its import takes 70 ms: only a run that cuts something pays for it.
    import regex  # noqa: PLC0415

    return regex.compile(r"\X")
