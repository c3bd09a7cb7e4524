"""The entries that a consumer holds, and the renewal of their lease while the process lives."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from typing import Any

from redis.exceptions import RedisError

from worker.queues.redis.connection import Connection
from worker.queues.redis.consumer import Taking
from worker.queues.redis.entries import Entry, HeldEntry, order
from worker.queues.redis.passed_over import PassedOver
from worker.queues.redis.patience import RETRY_S

RENEWED_AT_ONCE = 100
RENEWALS_PER_LEASE = 3
EXTEND_KEYS = ("delivered", "renewed", "uncalled", "held", "topics")
Leased = tuple[bytes, bytes, str]
"""An entry whose lease is renewed: its ID, its ID in the side stream if it came from there, and its
TopicId; each empty for none."""


class Hold:
    """The entries in the hands of a consumer.

    `entries`: those that were taken and have no outcome yet, by the number of each.
    `passed_over`: those of held communities.
    """

    def __init__(self, connection: Connection, taking: Taking) -> None:
        self._connection = connection
        self._taking = taking
        self.entries: dict[int, HeldEntry] = {}
        self.passed_over = PassedOver()
        self.last_delivered = b"0-0"
        """The ID of the last entry that this process knows to have been delivered to anybody."""
        self._next_number = 1
        self._renew_now = asyncio.Event()
        self._is_stopped = False
        self._renewing: asyncio.Task[None] | None = None

    def add(self, entry: Entry) -> HeldEntry:
        """Hold an entry under the next number."""
        held = HeldEntry.of(entry, self._next_number)
        self.entries[held.id] = held
        self._next_number += 1
        return held

    def entry_ids(self) -> set[bytes]:
        """Return the IDs of all entries in the hands of this consumer, also those passed over."""
        return {held.entry_id for held in self.entries.values()} | self.passed_over.entry_ids()

    def note_delivered(self, entry_ids: Iterable[bytes]) -> None:
        """Remember that these entries were delivered."""
        self.last_delivered = max([self.last_delivered, *entry_ids], key=order)

    def start(self) -> None:
        """Begin to renew the lease."""
        self._renewing = asyncio.create_task(self._renew_again_and_again())

    async def stop(self) -> None:
        """Renew no longer; entries that are still held stay pending."""
        # Ended by a flag: redis-py swallows most cancellations that come during a call.
        self._is_stopped = True
        self._renew_now.set()
        if self._renewing:
            await self._renewing

    @property
    def was_started(self) -> bool:
        return self._renewing is not None

    def renew_soon(self) -> None:
        """Renew now, not only when the pause is over."""
        self._renew_now.set()

    async def _renew_again_and_again(self) -> None:
        """Renew the lease every third of its length, and after an outage."""
        usual_s = self._taking.lease_s / RENEWALS_PER_LEASE
        pause_s = usual_s
        while not self._is_stopped:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._renew_now.wait()
            self._renew_now.clear()
            try:
                await self.renew_all()
                pause_s = usual_s
            except (RedisError, OSError):
                pause_s = RETRY_S

    async def renew_all(self) -> None:
        """Renew the lease on all entries in our hands. Raises RedisError, OSError."""
        await self._renew_some([*map(_leased, self.entries.values())], may_call=True)
        passed_over = [(entry_id, b"", "") for entry_id in self.passed_over.entry_ids()]
        await self._renew_some(passed_over, may_call=False)

    async def _renew_some(self, leased: list[Leased], *, may_call: bool) -> None:
        for at in range(0, len(leased), RENEWED_AT_ONCE):
            if not self._is_stopped:
                await self.renew(leased[at : at + RENEWED_AT_ONCE], may_call=may_call)

    async def renew(self, leased: list[Leased], *, may_call: bool) -> None:
        """Renew the lease on entries that are still this consumer's. Raises RedisError, OSError.

        `may_call`: they were delivered, so that this process may have called for them (R22).
        """
        url, taking = self._connection.url, self._taking
        arguments: list[Any] = [
            url.group, taking.consumer, self.last_delivered, int(may_call), *chain(*leased),
        ]  # fmt: skip
        await self._connection.run("extend", EXTEND_KEYS, arguments)


def _leased(held: HeldEntry) -> Leased:
    return held.entry_id, held.aside_id, held.subject.topic_id or ""
