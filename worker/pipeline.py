"""The story of many records: take, carry, settle.

How much can be in memory at once: deliveries that wait for a slot or a turn (a second of quota at
most), those that call (`max_in_flight`), those that back off (`backing_off_max`), and outcomes
that wait to be settled, which still count as the deliveries that they were.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from worker.delivery import Carrier, dead_letter
from worker.line import Line
from worker.rules.outcome import Delivery, Outcome, Released
from worker.traffic import Traffic

SETTLE_WITHIN_S = 0.2
SETTLE_AT = 500
GIVE_UP_AT_ONCE = 500
FRESH_PROBES_MAX = 200
"""Records that probed an outage and back off, beyond which they probe again before new ones."""
POLL_MAX_S = 1.0
POLL_MIN_S = 0.01
"""Bounds of the wait for the next probe of a held community."""


class Queue(Protocol):
    """What the pipeline needs of a queue; the promises stand in `worker.queues.contract`."""

    @property
    def is_drained(self) -> bool: ...

    async def take(
        self, count: int, *, without: frozenset[str] = frozenset()
    ) -> list[Delivery]: ...

    async def take_of(self, group_id: str, count: int) -> list[Delivery]: ...

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many deliveries may be where, and how many this run may take in all."""

    waiting_max: int = 100
    backing_off_max: int = 4000
    unsettled_max: int = 10_000
    take_max: int | None = None


class Pipeline:
    """Takes deliveries, has them carried, settles what became of them."""

    def __init__(
        self,
        queue: Queue,
        carrier: Carrier,
        traffic: Traffic,
        bounds: Bounds,
        *,
        after_settling: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._queue = queue
        self._carrier = carrier
        self._health = carrier.health
        self._traffic = traffic
        self._bounds = bounds
        self._after_settling = after_settling
        self._line = Line(carrier, traffic, self._add_outcome, low_at=bounds.waiting_max // 2)
        self._outcomes: list[Outcome] = []
        self._settling = 0
        self._outcome_came = asyncio.Event()
        self._batch_is_full = asyncio.Event()
        self._taken = 0
        self._all_carried = False
        self._may_hold_more = True
        self._held: frozenset[str] = frozenset()
        traffic.has_untried = True

    def __repr__(self) -> str:
        return f"<Pipeline {self._line!r}, {self.unsettled} unsettled>"

    @property
    def unsettled(self) -> int:
        """Deliveries that were taken and are not settled."""
        return self._traffic.carried + len(self._outcomes) + self._settling

    @property
    def outcomes_waiting(self) -> int:
        """Outcomes that the queue has not stored yet."""
        return len(self._outcomes) + self._settling

    def queue_was_fed(self) -> None:
        """Take again: the queue may hold more, or nothing feeds it any longer."""
        self._may_hold_more = True
        self._traffic.changed.set()

    async def run(self, is_feeding: Callable[[], bool]) -> None:
        """Work until the queue is empty and nothing feeds it, or until the carrier stops.

        Raises what the queue raises when it cannot settle or take.
        """
        settler = asyncio.create_task(self._settle_in_batches())
        stopper = asyncio.create_task(self._release_waiting_at_stop())
        settler.add_done_callback(lambda _: self._traffic.wake())
        try:
            await self._take_and_carry(settler, is_feeding)
        finally:
            stopper.cancel()
            await self._finish(settler)

    def abandon(self) -> None:
        """Stop without waiting for replies: open calls may have taken effect, and count so."""
        self._carrier.stop()
        self._line.abandon()

    # ---- taking

    async def _take_and_carry(
        self, settler: asyncio.Task[None], is_feeding: Callable[[], bool]
    ) -> None:
        while not self._carrier.stopping.is_set() and not settler.done():
            self._traffic.changed.clear()
            feeding = is_feeding()
            await self._ask_held_communities()
            room = self._room() if self._is_worth_taking() else 0
            self._may_hold_more = self._may_hold_more and not room
            await self._take(room)
            if room and not self._queue.is_drained:
                self._may_hold_more = True
                await asyncio.sleep(0)  # a queue that is away returns none, and need not wait
                continue
            found_none = room > 0 and not feeding
            if self._is_done(found_none=found_none):
                return
            if not (self._may_hold_more or feeding):
                self._judge_what_is_left()
            await self._wait_for_change()

    def _is_worth_taking(self) -> bool:
        if self._health.held != self._held:
            # What was held may be taken now.
            self._may_hold_more = True
        return self._may_hold_more or not self.unsettled

    async def _take(self, room: int) -> None:
        if not room:
            return
        self._held = self._health.held
        taken = await self._queue.take(room, without=self._held)
        self._taken += len(taken)
        self._traffic.has_untried = not (self._queue.is_drained or self._all_taken())
        for delivery in taken:
            self._line.enter(delivery)

    def _room(self) -> int:
        """Return how many deliveries to take now; 0 while it is not worth a transaction."""
        bounds = self._bounds
        waiting = self._traffic.waiting
        if self._traffic.backing_off >= bounds.backing_off_max or waiting > bounds.waiting_max // 2:
            return 0
        room = min(bounds.waiting_max - waiting, bounds.unsettled_max - self.unsettled)
        if bounds.take_max is not None:
            room = min(room, bounds.take_max - self._taken)
        return max(0, room)

    def _all_taken(self) -> bool:
        return self._bounds.take_max is not None and self._taken >= self._bounds.take_max

    def _is_done(self, *, found_none: bool) -> bool:
        if self.unsettled:
            return False
        return self._all_taken() or (found_none and not self._health.held)

    async def _wait_for_change(self) -> None:
        """Wait until something happens, or until a held community is to be asked."""
        due_s = self._health.communities.next_due_s(self._carrier.now_s())
        if due_s is None:
            await self._traffic.changed.wait()
            return
        # While the breaker is open no held community is asked by its own time.
        soon_s = POLL_MAX_S if self._health.breaker.is_open else max(POLL_MIN_S, due_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(POLL_MAX_S, soon_s)):
                await self._traffic.changed.wait()

    # ---- held communities

    async def _ask_held_communities(self) -> None:
        """Let one record of each held community ask that is due, and give up the others."""
        if not self._health.held:
            return
        communities, now_s = self._health.communities, self._carrier.now_s()
        for group_id in communities.expired(now_s):
            await self._exhaust(group_id)
        if self._health.breaker.is_outage:
            await self._ask_in_outage()
            return
        if self._health.breaker.is_stopped_by_rejections:
            await self._ask_in_streak()
        for group_id in communities.due(now_s):
            if self._health.breaker.is_open and (self._traffic.waiting or self._traffic.calling):
                # Whoever is in line finds out when calls may flow again.
                return
            await self._probe(group_id)

    async def _ask_in_outage(self) -> None:
        """Keep one record in line to probe with, of the community that was asked longest ago."""
        group_id = self._health.communities.asked_longest_ago()
        untried_may_come = self._traffic.has_untried and self._room() > 0
        if group_id is not None and not (self._traffic.waiting or untried_may_come):
            await self._probe(group_id)

    async def _ask_in_streak(self) -> None:
        """Probe with a community of the streak where no other one is left."""
        if self._traffic.waiting or self._traffic.calling or self._all_taken():
            return
        taken = await self._queue.take(1, without=self._health.held)
        is_probe = not taken
        if not taken:
            taken = await self._queue.take(1, without=self._health.communities.held)
        for delivery in taken:
            self._taken += 1
            self._line.enter(delivery, is_probe=is_probe)
        if not taken:
            any(map(self._carrier.parking.pick, self._health.rejections.groups))

    async def _probe(self, group_id: str) -> None:
        communities = self._health.communities
        communities.probe_started(group_id, self._carrier.now_s())
        has_room = self._traffic.backing_off < FRESH_PROBES_MAX and not self._all_taken()
        taken = await self._queue.take_of(group_id, 1) if has_room else []
        if taken:
            self._taken += 1
            self._line.enter(taken[0], is_probe=True)
        elif not self._carrier.parking.pick(group_id):
            communities.probe_ended(group_id)
            if not self.unsettled:
                # Nobody is left who could ask.
                communities.open(group_id)

    async def _exhaust(self, group_id: str) -> None:
        """Dead-letter what is queued of a community whose patience ended."""
        communities = self._health.communities
        letter = communities.answer_without_call(group_id, self._carrier.now_s())
        if letter:
            self._carrier.parking.give_up(group_id, letter)
        self._carrier.wake_parked()
        while letter and not self._carrier.stopping.is_set():
            taken = await self._queue.take_of(group_id, GIVE_UP_AT_ONCE)
            for delivery in taken:
                self._add_outcome(dead_letter(delivery, letter))
            await self._settle()
            if len(taken) < GIVE_UP_AT_ONCE:
                break
        communities.open(group_id)

    def _judge_what_is_left(self) -> None:
        """Judge held communities where no record of another one is left to compare with."""
        if not self._health.held or self._traffic.waiting or self._traffic.calling:
            return
        halt = self._health.communities.nothing_left_to_compare()
        if halt:
            self._carrier.halt(halt)
        elif self._health.communities.has_unconfirmed and not self._health.breaker.is_open:
            self._health.breaker.fail_for_all(self._carrier.now_s())
            self._traffic.wake()

    # ---- settling

    def _add_outcome(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._outcome_came.set()
        if len(self._outcomes) >= SETTLE_AT or not self._traffic.carried:
            self._batch_is_full.set()

    async def _settle_in_batches(self) -> None:
        # Ended by a flag, not by a cancellation: one that hits a commit would lose its outcomes.
        while not self._all_carried:
            await self._outcome_came.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_WITHIN_S):
                    await self._batch_is_full.wait()
            self._outcome_came.clear()
            self._batch_is_full.clear()
            await self._settle()

    async def _settle(self) -> None:
        outcomes, self._outcomes = self._outcomes, []
        if not outcomes:
            return
        self._settling += len(outcomes)
        try:
            await self._queue.settle(outcomes)
        except BaseException:
            self._outcomes[:0] = outcomes
            raise
        finally:
            self._settling -= len(outcomes)
        if released := sum(isinstance(outcome, Released) for outcome in outcomes):
            self._taken -= released
            self._may_hold_more = True
        self._traffic.changed.set()
        if self._after_settling:
            await self._after_settling()

    # ---- stopping

    async def _release_waiting_at_stop(self) -> None:
        await self._carrier.stopping.wait()
        self._line.release_waiting()
        self._traffic.wake()

    async def _finish(self, settler: asyncio.Task[None]) -> None:
        """Let open calls end, settle what came of them, and raise what ended the settler."""
        self._carrier.stop()
        await self._line.finish()
        self._all_carried = True
        self._outcome_came.set()
        self._batch_is_full.set()
        try:
            await settler
        finally:
            await self._settle()
