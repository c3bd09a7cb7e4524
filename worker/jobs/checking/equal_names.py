"""TopicNames that became equal to another one of their community by cutting."""

import heapq
import struct
from collections import defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from worker.jobs.checking.places import Places
from worker.jobs.checking.spool import Spool
from worker.rules.topic.oddities import NO_EQUAL_NAMES, EqualName, EqualNames

EXAMPLES_MAX = 1000
NAMES_KEPT = 50_000
"""Of how many cut names the texts are kept, for the examples."""
FINGERPRINT_BYTES = 12
_ENTRY = struct.Struct(f">{FINGERPRINT_BYTES}s{FINGERPRINT_BYTES}sQ")
"""The fingerprints of community and name, and of the TopicId; the line's number times two, and
whether the name was cut."""


class _Equal(NamedTuple):
    topics: int
    numbers: list[int]
    name: bytes


class CutNames:
    """Remembers the name of every valid record; only for settings by which names are cut."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._new: list[bytes] = []
        self._texts: dict[bytes, tuple[str, str]] = {}
        self._any_cut = False

    def add(
        self, group_id: str, name: str, digest: bytes | None, number: int, *, is_cut: bool = False
    ) -> None:
        """Remember the name of a valid record.

        `digest`: identifies its topic within the community; None: it is a topic of its own.
        """
        fingerprint = _fingerprint(f"{group_id}\0{name}".encode())
        if is_cut:
            self._any_cut = True
            if len(self._texts) < NAMES_KEPT:
                self._texts[fingerprint] = (group_id, name)
        topic = _fingerprint(digest or number.to_bytes(8, "big"))
        self._new.append(_ENTRY.pack(fingerprint, topic, number << 1 | is_cut))

    def flush(self) -> None:
        """Hand what was added over to the spool; call it now and then."""
        self._spool.add(self._new)
        self._new.clear()

    def find(self, places: Places) -> EqualNames:
        """Return which names several topics have, at least one of them by cutting."""
        self.flush()
        if not self._any_cut:
            return NO_EQUAL_NAMES
        names = topics = 0
        largest: list[_Equal] = []
        for equal in self._equal():
            names += 1
            topics += equal.topics
            if equal.name in self._texts:
                largest.append(equal)
            if len(largest) > 2 * EXAMPLES_MAX:
                largest = heapq.nsmallest(EXAMPLES_MAX, largest, key=_order)
        self._spool.close()
        shown = heapq.nsmallest(EXAMPLES_MAX, largest, key=_order)
        examples = tuple(self._example(equal, places) for equal in shown)
        return EqualNames(names, topics, examples)

    def _equal(self) -> Iterator[_Equal]:
        for partition in self._spool.partitions():
            ids: defaultdict[bytes, dict[bytes, int]] = defaultdict(dict)
            cut: set[bytes] = set()
            for name, topic_id, position in _ENTRY.iter_unpack(partition):
                ids[name].setdefault(topic_id, position >> 1)
                if position & 1:
                    cut.add(name)
            for name in cut:
                if len(ids[name]) > 1:
                    yield _Equal(len(ids[name]), list(ids[name].values())[:2], name)

    def _example(self, equal: _Equal, places: Places) -> EqualName:
        group_id, topic_name = self._texts[equal.name]
        sources = tuple(places.name(number) for number in equal.numbers)
        return EqualName(group_id, topic_name, equal.topics, sources)


def _order(equal: _Equal) -> tuple[int, list[int]]:
    """Return the place of a name among the examples: the most topics first, then as read."""
    return -equal.topics, equal.numbers


def _fingerprint(content: bytes) -> bytes:
    return blake2b(content, digest_size=FINGERPRINT_BYTES).digest()
