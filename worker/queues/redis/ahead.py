"""Deliveries that are taken before the pipeline asks for them, so that it waits for no round trip.

They are taken like all others: their leases are renewed, and if the process is killed they are in
doubt (R14). So there are no more of them than the pipeline uses while the next ones come.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from worker.queues.contract import QueueError
from worker.rules.outcome import Delivery

FILLS = 3.0
"""As many deliveries as are used while this many fills take place: one is under way, the next one
begins when half of them are used."""
RATE_GAIN = 0.3
IDLE_S = 2.0
"""What nobody asks for so long is handed back for other consumers, because this one may be halted
or may wait for the service."""

Fetch = Callable[[int, frozenset[str]], Awaitable[tuple[list[Delivery], bool]]]
"""Takes up to so many, without some communities; also returns whether there may be more."""


class Ahead:
    """Keeps up to `count_max` deliveries ready.

    `release`: puts deliveries back into the queue as they were; raises QueueError.
    """

    def __init__(
        self,
        count_max: int,
        *,
        fetch: Fetch,
        release: Callable[[list[Delivery]], Awaitable[None]],
    ) -> None:
        self._count_max = count_max
        self._fetch = fetch
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._deliveries: list[Delivery] = []
        self._without: frozenset[str] = frozenset()
        self._fetching: asyncio.Task[None] | None = None
        self._releasing: set[asyncio.Task[None]] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._may_hold_more = True
        self._asked_at_s = float("-inf")
        self._per_s = 0.0
        self._fill_s = 0.0
        self._is_closed = False

    async def take(self, count: int, without: frozenset[str]) -> list[Delivery]:
        """Take up to `count` that are ready, or become ready by a fetch that is under way.

        Those of communities that are held by now are handed back, and passed over the next time.
        """
        self._without = without
        if not self._deliveries and self._fetching:
            await asyncio.shield(self._fetching)
        held = [d for d in self._deliveries if d.topic.group_id in without]
        self._deliveries = [d for d in self._deliveries if d.topic.group_id not in without]
        if held:
            # Before any is taken: if Redis refuses, the others stay ready.
            await self._release(held)
        taken, self._deliveries = self._deliveries[:count], self._deliveries[count:]
        return taken

    def take_of(self, group_id: str, count: int) -> list[Delivery]:
        """Take up to `count` of one community."""
        taken = [d for d in self._deliveries if d.topic.group_id == group_id][:count]
        self._deliveries = [d for d in self._deliveries if d not in taken]
        return taken

    def sort_untried_first(self) -> None:
        """Put those with attempts behind the others (R21)."""
        self._deliveries.sort(key=lambda delivery: delivery.history.attempts > 0)

    def taken(self, count: int, *, may_hold_more: bool | None = None) -> None:
        """Record that a take returned `count`, and fetch more if they are used fast.

        `may_hold_more`: whether the queue does, if that take asked it.
        """
        if not self._count_max or self._is_closed:
            return
        if may_hold_more is not None:
            self._may_hold_more = may_hold_more
        now_s = self._loop.time()
        since_s, self._asked_at_s = now_s - self._asked_at_s, now_s
        if count and since_s > 0:
            self._per_s += RATE_GAIN * (count / since_s - self._per_s)
        self._fetch_more()
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(IDLE_S, self._judge_idleness)

    def filled(self, seconds: float) -> None:
        """Record how long a fill took."""
        self._fill_s = max(seconds, 0.7 * self._fill_s)

    async def close(self) -> None:
        """Wait for the fetch that is under way, and hand back what is ready."""
        self._is_closed = True
        if self._idle_timer:
            self._idle_timer.cancel()
        under_way = [*self._releasing, *([self._fetching] if self._fetching else [])]
        if under_way:
            await asyncio.wait(under_way)
        await self._hand_back()

    def _fetch_more(self) -> None:
        wanted = min(self._count_max, round(self._per_s * FILLS * self._fill_s))
        is_due = len(self._deliveries) <= wanted // 2 and self._may_hold_more
        if is_due and wanted and self._fetching is None:
            missing = wanted - len(self._deliveries)
            self._fetching = self._loop.create_task(self._fetch_some(missing))

    async def _fetch_some(self, count: int) -> None:
        try:
            fetched, self._may_hold_more = await self._fetch(count, self._without)
            self._deliveries += fetched
        except QueueError:
            self._may_hold_more = False  # the next take meets the same trouble, and reports it
        finally:
            self._fetching = None

    def _judge_idleness(self) -> None:
        self._idle_timer = None
        idle_s = self._loop.time() - self._asked_at_s
        if idle_s < IDLE_S:
            self._idle_timer = self._loop.call_later(IDLE_S - idle_s, self._judge_idleness)
        elif self._deliveries:
            task = self._loop.create_task(self._hand_back())
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def _hand_back(self) -> None:
        ready, self._deliveries = self._deliveries, []
        if ready:
            with suppress(QueueError):  # others take them over when the lease has ended
                await self._release(ready)
