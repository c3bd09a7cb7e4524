"""Finding entries to take: our own from before, those of silent consumers, new ones."""

import asyncio
import uuid
from collections import Counter
from typing import Any

import orjson
from redis.exceptions import ResponseError

from worker.logs import logger
from worker.queues.redis.connection import Connection
from worker.queues.redis.consumer import Taking
from worker.queues.redis.entries import FoundEntry, order
from worker.queues.redis.hold import Hold

log = logger()

SEARCH_SHARE_OF_LEASE = 0.25
SEARCH_EVERY_MAX_S = 2.0
"""How often entries of silent consumers are searched: a share of the lease, at most this long."""
REUNION_S = 10.0
"""After an outage of Redis, the time within which all replicas have noticed that it is over."""
CLAIMED_AT_ONCE = 100
LOST_SHOWN = 10
LOSE_KEYS = ("lost", "renewed", "uncalled", "claimed")
TAKE_OVER_KEYS = ("lost", "renewed", "taken", "uncalled", "claimed")
_FROM_THE_START = b"0"
_NO_CURSOR = b"-"


class Finder:
    """Finds entries for one consumer, in the order in which they are to be taken.

    `found`: the counter of the queue, to which lost entries are added.
    All methods raise RedisError and OSError as `Connection.once`.
    """

    def __init__(
        self, connection: Connection, taking: Taking, hold: Hold, found: Counter[str]
    ) -> None:
        self._connection = connection
        self._url = connection.url
        self._taking = taking
        self._hold = hold
        self._found = found
        self._clock = asyncio.get_running_loop().time
        self._process = uuid.uuid4().hex
        self.own_unread_after: bytes | None = _FROM_THE_START
        """After which entry our own pending ones are still to be read; None: all were read."""
        self._delivery_was_lost: set[bytes] = set()
        self._search_again_at_s = 0.0
        self._claim_cursor = _NO_CURSOR
        self.is_drained = False

    async def find(self, count: int, *, is_in_trouble: bool) -> list[FoundEntry]:
        """Find up to `count` entries. `is_in_trouble`: take nothing over from others now."""
        self.is_drained = False
        # Before all reading: entries that are settled meanwhile must not come back with it.
        held = self._hold.entry_ids()
        found = await self._find_own(count, held) if self.own_unread_after else []
        may_search = self._clock() >= self._search_again_at_s and not is_in_trouble
        if len(found) < count and may_search:
            found += await self._find_silent(count - len(found), held)
        if len(found) < count:
            found += await self._find_new(count - len(found), held)
        return found

    def read_own_again(self) -> None:
        """Read our own pending entries again: a failed call may have delivered some."""
        self.own_unread_after = _FROM_THE_START

    def wait_for_others(self, outage_ended_s: float = 0.0) -> None:
        """Take over nothing until others had the time to renew their leases after an outage.

        `outage_ended_s`: when the outage ended, in seconds from now (negative: in the past).
        """
        reunion_s = outage_ended_s + min(self._taking.lease_s, REUNION_S)
        self._search_again_at_s = self._clock() + max(0.0, reunion_s)

    async def redis_runs_for_s(self) -> float:
        """Return for how many seconds this server has been running."""
        try:
            info = await self._connection.once(self._connection.redis.info("server"))
        except ResponseError:  # this user of Redis may lack the right to ask
            return REUNION_S
        return float(info["uptime_in_seconds"])

    # ---- our own

    async def _find_own(self, count: int, held: set[bytes]) -> list[FoundEntry]:
        """Find entries that are pending for this consumer and not held: a crash, a lost reply.

        An earlier process of this consumer may have called for them (R14).
        """
        if self.own_unread_after == _FROM_THE_START:
            self._delivery_was_lost = await self._taken_by_a_lost_reply()
        found: list[FoundEntry] = []
        while len(found) < count and self.own_unread_after:
            page = await self._own_pending(self.own_unread_after, count - len(found))
            self.own_unread_after = page[-1][0] if page else None
            others = [entry for entry in page if entry[0] not in held]
            await self._lose([entry_id for entry_id, *content in others if not content])
            uncalled = await self._uncalled([entry[0] for entry in others])
            nobody_called = self._delivery_was_lost | uncalled
            found += [
                FoundEntry(
                    entry_id,
                    fields_of(content[0]),
                    may_have_called=entry_id not in nobody_called,
                    cut_bytes=content[1],
                    was_read=entry_id in self._delivery_was_lost,
                )
                for entry_id, *content in others
                if content
            ]
        return found

    async def _uncalled(self, entry_ids: list[bytes]) -> set[bytes]:
        """Return those for which no process called since they were delivered (R22)."""
        if not entry_ids:
            return set()
        key, redis = self._url.key("uncalled"), self._connection.redis
        answers: list[int] = await self._connection.once(redis.smismember(key, entry_ids))
        return {i for i, answer in zip(entry_ids, answers, strict=True) if answer}

    async def _taken_by_a_lost_reply(self) -> set[bytes]:
        """Return the entries that were delivered to this process by replies that never arrived."""
        key, consumer = self._url.key("taken"), self._taking.consumer
        kept = await self._connection.once(self._connection.redis.hget(key, consumer))
        taken = orjson.loads(kept) if kept else {}
        if taken.get("process") != self._process:
            # If another process of this name still lives, it must not believe that nobody called.
            await self._connection.once(self._connection.redis.hdel(key, consumer))
            return set()
        last = order(self._hold.last_delivered)
        return {i for i in map(str.encode, taken["new"]) if order(i) > last}

    async def _own_pending(self, after: bytes, count: int) -> list[list[Any]]:
        taking = self._taking
        arguments = [self._url.group, taking.consumer, after, count, taking.line_bytes_max]
        page: list[list[Any]] = await self._connection.run("take_own", (), arguments)
        return page

    async def _lose(self, entry_ids: list[bytes]) -> None:
        """Count our own entries as lost that were trimmed while no process held them (R16)."""
        if entry_ids:
            await self._connection.run("lose", LOSE_KEYS, [self._url.group, *entry_ids])
            self._report_lost(entry_ids)

    def _report_lost(self, entry_ids: list[bytes]) -> None:
        if entry_ids:
            self._found["lost"] += len(entry_ids)
            log.error(
                "LOST: Redis no longer holds records that were taken; find out who trims or "
                "deletes entries of the stream, and enqueue again what is missing",
                records=len(entry_ids),
                entries=[entry_id.decode() for entry_id in entry_ids[:LOST_SHOWN]],
            )

    # ---- those of silent consumers

    async def _find_silent(self, count: int, held: set[bytes]) -> list[FoundEntry]:
        """Take over entries whose consumer was silent for the whole lease (R15)."""
        taking = self._taking
        arguments = [
            self._url.group, taking.consumer, int(taking.lease_s * 1000), self._claim_cursor,
            min(count, CLAIMED_AT_ONCE), taking.line_bytes_max,
        ]  # fmt: skip
        answer = await self._connection.run("take_over", TAKE_OVER_KEYS, arguments)
        self._claim_cursor, claimed, gone = answer
        if self._claim_cursor == _NO_CURSOR:
            self._search_again_at_s = self._clock() + min(
                taking.lease_s * SEARCH_SHARE_OF_LEASE, SEARCH_EVERY_MAX_S
            )
        # Our own entries appear here too if we renewed their lease too late.
        self._report_lost([entry_id for entry_id in gone if entry_id not in held])
        found = [
            FoundEntry(
                entry_id, fields_of(flat), may_have_called=not is_uncalled, cut_bytes=cut_bytes
            )
            for entry_id, flat, cut_bytes, is_uncalled in claimed
            if entry_id not in held
        ]
        if found:
            log.warning("taken over from a consumer that fell silent", records=len(found))
        return found

    # ---- new ones

    async def _find_new(self, count: int, held: set[bytes]) -> list[FoundEntry]:
        arguments: list[Any] = [
            self._url.group, self._taking.consumer, self._process, count,
            self._hold.last_delivered, self._taking.line_bytes_max,
        ]  # fmt: skip
        keys = ("delivered", "taken", "claimed")
        n_read, entries = await self._connection.run("take_new", keys, arguments)
        self.is_drained = n_read < count and not self.own_unread_after
        return [
            FoundEntry(
                entry_id,
                fields_of(flat),
                may_have_called=bool(had_before),
                cut_bytes=cut_bytes,
                was_read=True,
            )
            for entry_id, flat, had_before, cut_bytes in entries
            if entry_id not in held
        ]


def fields_of(flat: list[bytes]) -> dict[bytes, bytes]:
    """Return the fields of an entry as a script returns them."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
