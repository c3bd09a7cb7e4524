"""The entries of held communities that a consumer keeps in its hands, without calls (R22)."""

import heapq
from collections.abc import Container, Iterable

from worker.queues.redis.entries import Entry, order


class PassedOver:
    """Entries that were passed over, by community, in the order of the stream.

    `moving`: those that are on their way to the side stream. They may be there already, so they are
    not delivered from here any more.
    """

    def __init__(self) -> None:
        self._entries: dict[str, dict[bytes, Entry]] = {}
        self._count = 0
        self.moving: list[Entry] = []

    def __len__(self) -> int:
        return self._count

    def entry_ids(self) -> set[bytes]:
        """Return the IDs of all entries here, with those on their way to the side stream."""
        ids = {entry_id for entries in self._entries.values() for entry_id in entries}
        return ids.union(entry.id for entry in self.moving)

    def add(self, entry: Entry) -> None:
        entries = self._entries.setdefault(entry.group_id, {})
        self._count += entry.id not in entries
        entries[entry.id] = entry

    def remove(self, entries: Iterable[Entry]) -> None:
        """Remove entries; those that are not here are ignored."""
        for entry in entries:
            known = self._entries.get(entry.group_id, {})
            if known.pop(entry.id, None):
                self._count -= 1
            if not known:
                self._entries.pop(entry.group_id, None)

    def has_ready(self, without: Container[str]) -> bool:
        """Return whether there are entries of a community that is not held."""
        return any(group_id not in without for group_id in self._entries)

    def ready(self, without: Container[str], count: int) -> list[Entry]:
        """Return up to `count` entries of communities that are not held, the oldest first."""
        ready = (
            entry
            for group_id, entries in self._entries.items()
            if group_id not in without
            for entry in entries.values()
        )
        return heapq.nsmallest(count, ready, key=lambda entry: order(entry.id))

    def of(self, group_id: str, count: int) -> list[Entry]:
        """Return up to `count` entries of a community, those with the fewest attempts first."""
        entries = self._entries.get(group_id, {}).values()
        return sorted(entries, key=lambda e: (e.history.attempts, order(e.id)))[:count]

    def move_beyond(self, count_max: int) -> None:
        """Put entries beyond `count_max` on their way to the side stream.

        They are the newest ones of the communities with the most entries, so that each community
        keeps its first ones to be asked with.
        """
        largest = [(-len(entries), group_id) for group_id, entries in self._entries.items()]
        heapq.heapify(largest)
        surplus: list[Entry] = []
        while self._count > count_max:
            negative_size, group_id = largest[0]
            surplus.append(self._entries[group_id].popitem()[1])
            self._count -= 1
            heapq.heapreplace(largest, (negative_size + 1, group_id))
        self._entries = {group_id: kept for group_id, kept in self._entries.items() if kept}
        self.moving += sorted(surplus, key=lambda entry: order(entry.id))
