"""Taking: entries of held communities are passed over, all others become deliveries."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from worker.queues.redis.aside import Aside
from worker.queues.redis.connection import Connection
from worker.queues.redis.consumer import Taking
from worker.queues.redis.entries import Entry, FoundEntry, read_entry
from worker.queues.redis.finder import Finder
from worker.queues.redis.hold import Hold
from worker.queues.redis.registrar import Registrar, Step
from worker.rules.outcome import DeadLetter, Delivery

READ_ON_S = 0.25
READ_ON_AT_ONCE = 500
"""Bounds of reading on past entries that are passed over: begun in one take, and in one call."""


class Taker:
    """Takes for one consumer, with `held_in_memory_max` passed over entries in its hands at most.

    `end`: settles the dead letters of entries that cannot be sent; raises QueueError.
    `found`: the counter of the queue. All methods raise RedisError and OSError, too; what was taken
    until then is in the list that they fill.
    """

    def __init__(
        self,
        connection: Connection,
        taking: Taking,
        hold: Hold,
        finder: Finder,
        found: Counter[str],
        *,
        end: Callable[[list[DeadLetter]], Awaitable[None]],
        held_in_memory_max: int,
    ) -> None:
        self._stream = connection.url.stream
        self._clock = asyncio.get_running_loop().time
        self._taking = taking
        self._hold = hold
        self._passed_over = hold.passed_over
        self._finder = finder
        self._registrar = Registrar(connection, taking, found)
        self._aside = Aside(connection, taking, hold.passed_over)
        self._end = end
        self._held_in_memory_max = held_in_memory_max
        self.is_drained = False

    async def take(
        self,
        taken: list[Delivery],
        count: int,
        *,
        without: frozenset[str],
        is_in_trouble: bool,
    ) -> None:
        """Fill `taken` up to `count`: what was passed over first, then as `Finder.find`."""
        self.is_drained = self._finder.is_drained = False
        await self._aside.finish_moving()
        await self._deliver_later(taken, self._passed_over.ready(without, count))
        found = await self._aside.take(count - len(taken), without)
        await self._deliver(taken, found, count, without)
        await self._read_on(taken, count, without=without, is_in_trouble=is_in_trouble)
        self.is_drained = self._finder.is_drained and not (
            self._aside.may_have_ready or self._passed_over.has_ready(without)
        )

    async def take_of(self, taken: list[Delivery], group_id: str, count: int) -> None:
        """Fill `taken` up to `count` with entries that were passed over, of one community."""
        await self._aside.finish_moving()
        await self._deliver_later(taken, self._passed_over.of(group_id, count))
        if len(taken) < count:
            found = await self._aside.take_of(group_id, count - len(taken))
            await self._deliver(taken, found, count, frozenset())

    async def leave(self) -> None:
        """Leave to other consumers what was passed over."""
        self._passed_over.move_beyond(0)
        await self._aside.finish_moving()

    async def _read_on(
        self, taken: list[Delivery], count: int, *, without: frozenset[str], is_in_trouble: bool
    ) -> None:
        read_at_once = 0
        end_s = self._clock() + READ_ON_S
        while (room := count - len(taken)) > 0:
            found = await self._finder.find(max(room, read_at_once), is_in_trouble=is_in_trouble)
            before = len(self._passed_over)
            await self._deliver(taken, found, count, without)
            has_passed_over = len(self._passed_over) > before
            self._passed_over.move_beyond(self._held_in_memory_max)
            await self._aside.finish_moving()
            if not has_passed_over or self._finder.is_drained or self._clock() >= end_s:
                break
            # What is found beyond `count` is in our hands, and is delivered first the next time.
            read_at_once = READ_ON_AT_ONCE

    async def _deliver(
        self, taken: list[Delivery], found: list[FoundEntry], count: int, without: frozenset[str]
    ) -> None:
        """Deliver entries, up to `count` in all; pass over the others."""
        taking = self._taking
        entries = [read_entry(self._stream, e, taking.rules) for e in found]
        valid = [entry for entry in entries if entry.is_valid]
        steps: list[Step] = []
        room = count - len(taken)
        for entry in valid:
            is_next = entry.group_id not in without and room > 0
            room -= is_next
            steps.append(Step.DELIVER if is_next else _pass_over(entry))
        ours = await self._registrar.register(valid, steps)
        self._hold.note_delivered(entry.id for entry in found if entry.was_read)
        ended = [entry for entry in entries if not entry.is_valid]
        for entry, step, is_ours in zip(valid, steps, ours, strict=True):
            if is_ours and entry.conflict_with is not None:
                ended.append(entry)
            elif is_ours and step is Step.DELIVER:
                self._hand_out(taken, entry)
            elif is_ours:
                self._passed_over.add(entry)
        await self._end_of(ended)

    async def _deliver_later(self, taken: list[Delivery], entries: list[Entry]) -> None:
        """Deliver entries that were passed over until now."""
        # Until they are registered they stay where they are: a lost reply must cause no doubt.
        steps = [Step.DELIVER_LATER] * len(entries)
        ours = await self._registrar.register(entries, steps)
        self._passed_over.remove(entries)
        ended: list[Entry] = []
        for entry, is_ours in zip(entries, ours, strict=True):
            if is_ours and entry.conflict_with is not None:
                ended.append(entry)
            elif is_ours:
                self._hand_out(taken, entry)
        await self._end_of(ended)

    def _hand_out(self, taken: list[Delivery], entry: Entry) -> None:
        held = self._hold.add(entry)
        if held.delivery:
            taken.append(held.delivery)

    async def _end_of(self, entries: list[Entry]) -> None:
        letters = [held.letter for held in map(self._hold.add, entries) if held.letter]
        if letters:
            await self._end(letters)


def _pass_over(entry: Entry) -> Step:
    return Step.SKIP if entry.is_uncalled else Step.SKIP_IN_DOUBT
