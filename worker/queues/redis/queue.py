"""The distributed queue: a Redis stream with a consumer group; results in streams beside it.

A producer in any language adds entries with one field, `record`, a JSON object. An entry stays
pending from its delivery to its outcome; what a silent consumer holds is taken over after the
lease. Outcomes go to `<stream>:imported` and `<stream>:dead`, atomically with the acknowledgement.

Who may have called for an entry before it is delivered (the doubt, rule R14):

- a new entry: nobody. The exception is an ID that is not above the last one known to be delivered:
  the group was made anew, or Redis lost its last second. Redis learns the last one again from the
  consumers, within a second or so of its return; a consumer that takes earlier than that has no
  doubt.
- an entry that is pending for this consumer and not held: an earlier process of this name; but
  nobody, if it was delivered to this very process by a reply that never arrived.
- an entry taken over from a silent consumer: that consumer.
- an entry whose topic was lost before: whoever held it then.
- an entry that a consumer passed over because its community is held: nobody since then (R22).

The side stream `<stream>:held` (R23) has no group: an entry that is taken out of it comes to the
end of the stream and is pending for its taker at once.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from worker.queues.contract import JobIdentity
from worker.queues.redis.ahead import Ahead
from worker.queues.redis.connection import Connection, queue_error
from worker.queues.redis.consumer import Taking
from worker.queues.redis.finder import Finder
from worker.queues.redis.group import Group
from worker.queues.redis.hold import Hold
from worker.queues.redis.patience import Patience
from worker.queues.redis.reader import StreamReader
from worker.queues.redis.settling import Copy, NoCopy, Settler
from worker.queues.redis.streams import StreamUrl
from worker.queues.redis.taker import Taker
from worker.rules.counts import CommunityLetters, Counts
from worker.rules.outcome import DeadLetter, Delivery, Outcome, Released

if TYPE_CHECKING:
    from worker.queues.contract import Queue

__all__ = ["Copy", "RedisQueue", "Taking"]

FORGET_S = 600.0
"""Beyond the lease: after this, a silent consumer that holds nothing is removed from the group."""
HELD_IN_MEMORY_MAX = 10_000
"""Records of held communities in the hands of one consumer; the others are in the side stream."""


class _Outages:
    """What failed calls change for a consumer."""

    def __init__(self, finder: Finder, hold: Hold) -> None:
        self._finder = finder
        self._hold = hold

    def call_failed(self) -> None:
        """Expect entries of a delivery whose reply never arrived."""
        self._finder.read_own_again()

    def outage_ended(self) -> None:
        """Renew our lease, and let others renew theirs, before anything is taken over."""
        self._finder.wait_for_others()
        self._hold.renew_soon()


class RedisQueue:
    """One consumer's view of the queue: the half of the contract that is taken from.

    Use `open` first, `close` last. `take` returns nothing while Redis is away; `settle` waits for
    it until `give_up`, so that no outcome is dropped.
    `ahead_max`: how many deliveries it may take before it is asked for them.
    """

    def __init__(
        self,
        url: StreamUrl,
        taking: Taking,
        *,
        copy: Copy | None = None,
        held_in_memory_max: int = HELD_IN_MEMORY_MAX,
        ahead_max: int = 0,
    ) -> None:
        self.found: Counter[str] = Counter()
        """Records that ended as they were taken: `duplicate` (the queue held their topic before),
        `dead` (they cannot be sent), `lost` (trimmed away while no process held them)."""
        self.is_drained = False
        """Whether the last `take` returned all that was ready."""
        self._taking = taking
        self._copy = copy or NoCopy()
        self._connection = Connection(url)
        self._reader = StreamReader(self._connection)
        self._group = Group(self._connection)
        self._hold = Hold(self._connection, taking)
        self._finder = Finder(self._connection, taking, self._hold, self.found)
        self._taker = Taker(
            self._connection,
            taking,
            self._hold,
            self._finder,
            self.found,
            end=self._end,
            held_in_memory_max=held_in_memory_max,
        )
        self._one_take = asyncio.Lock()
        self._clock = asyncio.get_running_loop().time
        self._patience = Patience(
            self._connection, self._group, listener=_Outages(self._finder, self._hold)
        )
        self._settler = Settler(self._connection, self._patience, taking, self._hold, self._copy)
        self._ahead = Ahead(ahead_max, fetch=self._fetch, release=self._release)

    def __repr__(self) -> str:
        held, consumer = len(self._hold.entries), self._taking.consumer
        return f"<RedisQueue {self._connection.url.stream} as {consumer}, {held} held>"

    # ---- the job

    @property
    def name(self) -> str:
        """The queue's name for people; no part of it is secret."""
        return str(self._connection.url)

    @property
    def trouble(self) -> str | None:
        """Why the queue cannot be used now; None while it can."""
        return self._patience.trouble or self._copy.trouble

    async def open(self, identity: JobIdentity) -> None:
        """Join the group, and begin to renew the lease on held entries. Raises as `Group.open`."""
        await self._group.open(identity)
        try:
            await self._forget_consumers(idle_s=self._taking.lease_s + FORGET_S)
            self._finder.wait_for_others(-await self._finder.redis_runs_for_s())
        except (RedisError, OSError) as error:
            raise queue_error(error) from None
        self._hold.start()

    def give_up(self) -> None:
        """End all waiting for Redis; entries without an outcome are taken over by others."""
        self._connection.give_up()

    async def close(self) -> None:
        """Stop renewing the lease, and leave; entries that are still held stay pending.

        What was passed over is left to the other consumers.
        """
        await self._ahead.close()
        await self._hold.stop()
        if self._hold.was_started:
            with suppress(RedisError, OSError):
                await self._taker.leave()
                await self._forget_consumers(self._taking.consumer)
        await self._connection.close()

    async def _forget_consumers(self, name: str = "", *, idle_s: float = 0.0) -> None:
        """Remove consumers that hold nothing from the group: replicas come and go."""
        arguments = [self._connection.url.group, name, int(idle_s * 1000)]
        await self._connection.run("tidy", ("batches", "taken"), arguments)

    # ---- taking

    async def take(
        self,
        count: int,
        *,
        untried_first: bool = False,
        without: frozenset[str] = frozenset(),
    ) -> list[Delivery]:
        """Take up to `count`, first what was passed over before and is not held any more.

        Then come those that this consumer held before, those of silent consumers, and new ones.
        `untried_first`: of these, records with attempts come last (R21). A released record stands
        at the end of the stream in any case.
        `without`: communities whose records are passed over (R22).
        Returns nothing while Redis is away, or while the copy cannot be written.
        """
        self.is_drained = False
        if untried_first:
            self._ahead.sort_untried_first()
        taken = await self._ahead.take(count, without)
        if taken:
            self._ahead.taken(len(taken))
        else:
            taken, may_hold_more = await self._fetch(count, without)
            self.is_drained = not may_hold_more
            self._ahead.taken(len(taken), may_hold_more=may_hold_more)
        if untried_first:
            taken.sort(key=lambda delivery: delivery.history.attempts > 0)
        return taken

    async def take_of(self, group_id: str, count: int) -> list[Delivery]:
        """Take up to `count` of one community: of those passed over, then of the side stream.

        Those that no take has found yet are not among them.
        """
        taken = self._ahead.take_of(group_id, count)
        if len(taken) < count:
            async with self._one_take:
                taken += await self._fill(
                    lambda into: self._taker.take_of(into, group_id, count - len(taken))
                )
        return taken

    async def _fetch(self, count: int, without: frozenset[str]) -> tuple[list[Delivery], bool]:
        """Take up to `count` from Redis; also return whether there may be more."""
        async with self._one_take:
            began_s = self._clock()
            self._taker.is_drained = False
            is_in_trouble = self._patience.trouble is not None
            taken = await self._fill(
                lambda into: self._taker.take(
                    into, count, without=without, is_in_trouble=is_in_trouble
                )
            )
            self._ahead.filled(self._clock() - began_s)
            return taken, not self._taker.is_drained

    async def _release(self, deliveries: list[Delivery]) -> None:
        await self.settle([Released(d.id, d.history) for d in deliveries])

    async def _fill(
        self, take: Callable[[list[Delivery]], Coroutine[Any, Any, None]]
    ) -> list[Delivery]:
        """Let a list be filled with deliveries; return those that came before a failure, too."""
        taken: list[Delivery] = []
        self._copy.flush()
        if self._copy.trouble:
            await self._patience.pause()
            return taken
        try:
            await take(taken)
        except (RedisError, OSError) as error:
            await self._patience.failed("take", error)
        else:
            self._patience.succeeded("take")
        return taken

    async def _end(self, letters: list[DeadLetter]) -> None:
        """Settle entries that cannot be sent."""
        await self.settle([*letters])
        self.found["dead"] += len(letters)

    # ---- settling

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Settle or release a batch, atomic with the counts and the acknowledgements.

        Returns what was settled, now or by an earlier try. Waits while Redis is away; raises
        QueueError after `give_up`.
        """
        return await self._settler.settle(outcomes)

    # ---- reading

    async def counts(self) -> Counts:
        """Return how many records are in which state."""
        return await self._reader.counts()

    async def worst_communities(self, count: int) -> list[CommunityLetters]:
        """Return the communities with the most dead letters, the worst first."""
        return await self._reader.worst_communities(count)

    async def is_empty(self) -> bool:
        """Return whether nothing is ready and no consumer holds anything."""
        return await self._reader.is_empty()

    async def oldest_age_s(self) -> float:
        """Return for how many seconds the oldest entry has been in the stream."""
        return await self._reader.oldest_age_s()


if TYPE_CHECKING:
    _QUEUE: type[Queue] = RedisQueue
