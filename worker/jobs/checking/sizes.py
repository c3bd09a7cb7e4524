"""How many topics are meant for each community."""

import struct
from collections.abc import Iterator

from worker.jobs.checking.spool import Spool
from worker.rules.record import content_hash

COMMUNITIES_IN_MEMORY = 50_000
_HEADER = struct.Struct(">BBI")
"""The partition, the length of the GroupId in bytes, and how many topics."""


class Sizes:
    """Counts topics by community; a spool keeps what COMMUNITIES_IN_MEMORY outgrows."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._spool = Spool()

    def add(self, group_id: str) -> None:
        """Count one more topic of a community."""
        counts = self._counts
        if group_id in counts:
            counts[group_id] += 1
            return
        if len(counts) >= COMMUNITIES_IN_MEMORY:
            self._spill()
        counts[group_id] = 1

    def all(self) -> Iterator[tuple[str, int]]:
        """Yield every community with how many topics are meant for it, each once."""
        self._spill()
        for partition in self._spool.partitions():
            yield from _merged(partition).items()
        self._spool.close()

    def _spill(self) -> None:
        self._spool.add(_entry(group_id, topics) for group_id, topics in self._counts.items())
        self._counts.clear()


def _entry(group_id: str, topics: int) -> bytes:
    name = group_id.encode()
    return _HEADER.pack(content_hash(name)[0], len(name), topics) + name


def _merged(partition: bytes) -> dict[str, int]:
    counts: dict[str, int] = {}
    at = 0
    while at < len(partition):
        _, length, topics = _HEADER.unpack_from(partition, at)
        at += _HEADER.size
        group_id = partition[at : at + length].decode()
        at += length
        counts[group_id] = counts.get(group_id, 0) + topics
    return counts
