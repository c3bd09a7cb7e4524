"""Records that wait for the end of their community's trouble, without a slot."""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from worker.rules.verdict import Reject


@dataclass(slots=True, eq=False)
class Parked:
    """A record that waits.

    `is_picked`: it is to ask for its community now. `letter`: its dead letter, if patience with the
    community ended. Neither: the community is held no longer.
    """

    ended: asyncio.Event
    is_picked: bool = False
    letter: Reject | None = None


class Parking:
    """The waiting records of a process, by community, in the order in which they came."""

    def __init__(self) -> None:
        self._by_community: dict[str, deque[Parked]] = {}

    def __repr__(self) -> str:
        return f"<Parking {sum(map(len, self._by_community.values()))} records>"

    async def wait(self, group_id: str) -> Parked:
        """Wait until the trouble of a community ends, or until this record is to ask."""
        parked = Parked(asyncio.Event())
        waiting = self._by_community.setdefault(group_id, deque())
        waiting.append(parked)
        try:
            await parked.ended.wait()
        finally:
            if parked in waiting:
                waiting.remove(parked)
        return parked

    def pick(self, group_id: str) -> bool:
        """Let the record ask that has waited longest; return whether there is one."""
        waiting = self._by_community.get(group_id)
        if not waiting:
            return False
        picked = waiting.popleft()
        picked.is_picked = True
        picked.ended.set()
        return True

    def give_up(self, group_id: str, letter: Reject) -> None:
        """Dead-letter the records that wait for a community."""
        for parked in self._by_community.pop(group_id, ()):
            parked.letter = letter
            parked.ended.set()

    def release(self, group_ids: Iterable[str]) -> None:
        """Let the records of communities go on."""
        for group_id in group_ids:
            for parked in self._by_community.pop(group_id, ()):
                parked.ended.set()
