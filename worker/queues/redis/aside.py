"""The side stream: entries of held communities beyond what a consumer keeps in its hands (R23)."""

import asyncio
from itertools import islice

from worker.queues.redis.arguments import entry_to_set_aside
from worker.queues.redis.connection import Connection, in_parts, text
from worker.queues.redis.consumer import Taking
from worker.queues.redis.entries import FoundEntry
from worker.queues.redis.finder import fields_of
from worker.queues.redis.passed_over import PassedOver

SET_ASIDE_KEYS = (
    "held", "held_by_community", "topics", "lost", "renewed", "uncalled", "claimed",
)  # fmt: skip
TAKE_ASIDE_KEYS = ("held", "held_by_community", "topics", "uncalled", "claimed")
EXAMINED_AT_ONCE = 500
PAGES_PER_TAKE = 20
PAGES_PER_COMMUNITY = 200
"""Bounds of one search: for all communities that are not held, and for one that is asked for."""
SEARCH_EVERY_S = 2.0
"""How often other consumers' entries in the side stream are searched."""
_FROM_THE_START = b"-"


class Aside:
    """Moves entries to the side stream, and takes them out of it.

    All methods raise RedisError and OSError as `Connection.once`.
    """

    def __init__(self, connection: Connection, taking: Taking, passed_over: PassedOver) -> None:
        self._connection = connection
        self._url = connection.url
        self._taking = taking
        self._passed_over = passed_over
        self._clock = asyncio.get_running_loop().time
        self._search_again_at_s = 0.0
        self._held: frozenset[str] = frozenset()
        self._ready: set[str] = set()
        self._after = _FROM_THE_START
        self._asked = ("", _FROM_THE_START)

    @property
    def may_have_ready(self) -> bool:
        """Whether the side stream may hold entries of communities that are not held."""
        return bool(self._ready)

    # ---- moving there

    async def finish_moving(self) -> None:
        """Move the entries that are on their way, also those of calls that failed."""
        moving = self._passed_over.moving
        rest = iter([*moving])
        for part in in_parts([entry_to_set_aside(entry) for entry in moving]):
            arguments = [self._url.group, self._taking.consumer, *part]
            await self._connection.run("set_aside", SET_ASIDE_KEYS, arguments)
            # Those that were not moved are others' by now, or were moved by an earlier call.
            moved = [*islice(rest, len(part))]
            gone = {entry.id for entry in moved}
            self._passed_over.moving = [e for e in self._passed_over.moving if e.id not in gone]
            self._note_ready({entry.group_id for entry in moved} - self._held)

    # ---- coming back

    async def take(self, count: int, without: frozenset[str]) -> list[FoundEntry]:
        """Take up to `count` entries of communities that are not held, the oldest first."""
        await self._search(without)
        found: list[FoundEntry] = []
        for _ in range(PAGES_PER_TAKE):
            if not self._ready or len(found) >= count:
                break
            self._after, page = await self._take(self._after, count - len(found), self._ready)
            found += page
            if self._after == _FROM_THE_START:
                self._ready = set()
        return found

    async def _search(self, without: frozenset[str]) -> None:
        """Find out which communities in the side stream are not held: now and then, or by need."""
        self._ready -= without
        is_due = self._clock() >= self._search_again_at_s
        if not is_due and self._held <= without:
            self._held = without
            return
        names = await self._connection.once(
            self._connection.redis.hkeys(self._url.key("held_by_community"))
        )
        self._held = without
        self._note_ready({text(name) for name in names} - without)
        self._search_again_at_s = self._clock() + SEARCH_EVERY_S

    def _note_ready(self, communities: set[str]) -> None:
        if communities - self._ready:
            self._after = _FROM_THE_START
        self._ready |= communities

    async def take_of(self, group_id: str, count: int) -> list[FoundEntry]:
        """Take up to `count` entries of one community; the search is bounded and goes on later."""
        by_community = self._url.key("held_by_community")
        if not await self._connection.once(self._connection.redis.hget(by_community, group_id)):
            return []
        asked, after = self._asked
        after = after if asked == group_id else _FROM_THE_START
        found: list[FoundEntry] = []
        for _ in range(PAGES_PER_COMMUNITY):
            after, page = await self._take(after, count - len(found), {group_id})
            found += page
            if after == _FROM_THE_START or len(found) >= count:
                break
        self._asked = (group_id, after)
        return found

    async def _take(
        self, after: bytes, count: int, wanted: set[str]
    ) -> tuple[bytes, list[FoundEntry]]:
        arguments = [
            self._url.group, self._taking.consumer, after, EXAMINED_AT_ONCE, count, *wanted,
        ]  # fmt: skip
        after, entries = await self._connection.run("take_aside", TAKE_ASIDE_KEYS, arguments)
        return after, [
            FoundEntry(entry_id, fields_of(flat), may_have_called=False, aside_id=aside_id)
            for entry_id, flat, aside_id in entries
        ]
