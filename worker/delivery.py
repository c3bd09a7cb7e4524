"""The story of one record: attempt, verdict, wait, again."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from worker.limits import Limits, Turn
from worker.logs import RepeatedEvents, logger
from worker.parking import Parking
from worker.rules import outcome, verdict
from worker.rules.blame import Failures
from worker.rules.comparison import Before, Conflict, Own, Settled, Unproven
from worker.rules.counts import Counters
from worker.rules.health import Health
from worker.rules.outcome import (
    Already,
    DeadLetter,
    Delivery,
    History,
    Outcome,
    Reason,
    Released,
)
from worker.rules.reaction import Attempt, GiveBack, Reaction, Refusal, TryAgain
from worker.rules.retry import RetryPolicy, backoff_s
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import Topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Circumstances, Halt, Reply, Verdict, decide
from worker.traffic import Phase, Traffic

log = logger()

IN_USE_HINT = (
    "a topic with this TopicId existed before the first call: "
    "compare it with get_topic, then choose another TopicId or "
    'set records.on_existing = "skip"'
)
PARKED_TRIES_MIN = 3
"""Records that wait together for the end of a trouble back off as after so many failures, so that
others are answered between them; bad ones in one burst would look like the next trouble."""
PARK_S = 1.0
"""How long a record waits, on average, before it probes a service that is down once more."""


class Chat(Protocol):
    """The service: one attempt, never an exception."""

    async def import_topic(self, body: bytes, signature: Signature) -> Reply: ...


class Credentials(Protocol):
    """The current signature."""

    @property
    def age_s(self) -> float:
        """Seconds since it was made; NaN where that is not known."""
        ...

    def current(self) -> Signature:
        """Return the signature to call with."""
        ...

    def renew(self, stale: Signature) -> bool:
        """Replace `stale`, unless that is done; return False where no new one can be made."""
        ...


class Comparer(Protocol):
    """Finds out whose topic it is that has a TopicId which a record gave."""

    async def compare(self, topic: Topic, *, in_doubt: bool) -> Settled:
        """Compare a topic with the service; `in_doubt`: an earlier attempt may have made it."""
        ...


@dataclass(slots=True, eq=False)
class _Carried:
    """What the carrier knows of a delivery while it carries it."""

    id: int
    topic: Topic
    history: History
    was_imported_into: bool
    is_probe: bool = False
    failures: Failures | None = None
    refused: Refusal | None = None
    was_called: bool = False
    asks_again: bool = False
    """Whether it is the one record that asks for a community that was given up a minute ago."""
    letter: verdict.Reject | None = None
    """What it was dead-lettered with while it waited for its community."""


@dataclass(frozen=True, slots=True)
class _Wait:
    """Wait so many seconds before the next attempt; `is_parked`: from the end of a trouble on."""

    seconds: float = 0.0
    is_parked: bool = False


class Carrier:
    """Carries deliveries to their outcomes; what all of them share.

    `comparer` None: whose a given TopicId is that is in use is not proven. `observe` is called for
    each reply with the name of its verdict, its code and the seconds of its call.
    """

    def __init__(
        self,
        *,
        chat: Chat,
        credentials: Credentials,
        limits: Limits,
        traffic: Traffic,
        health: Health,
        retry: RetryPolicy,
        counters: Counters,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
        skip_existing: bool = False,
        comparer: Comparer | None = None,
        observe: Callable[[str, int | None, float], None] = lambda *_: None,
    ) -> None:
        self._chat = chat
        self._credentials = credentials
        self._limits = limits
        self._traffic = traffic
        self.health = health
        self._retry = retry
        self._counters = counters
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._skip_existing = skip_existing
        self._comparer = comparer
        self._observe = observe
        self._repeated = RepeatedEvents(log, clock)
        self.parking = Parking()
        self._held: frozenset[str] = frozenset()
        self._logged_held: set[str] = set()
        self._logged_stop: Halt | None = None
        self.stopping = asyncio.Event()
        self.halted: Halt | None = None

    def now_s(self) -> float:
        """Return the time of the clock that all machines of the run go by, in seconds."""
        return self._clock()

    def stop(self) -> None:
        """Start no more calls; those under way may finish."""
        self.stopping.set()

    def halt(self, halt: Halt) -> None:
        """Stop because a person must act; the first reason stands."""
        if self.halted is None:
            self.halted = halt
            log.error("halted", code=halt.code, reason=halt.message)
        self.stop()

    async def carry(self, delivery: Delivery, *, is_probe: bool = False) -> Outcome:
        """Take one delivery to its outcome; a stop or a cancellation releases it.

        `is_probe`: it asks for a community whose other records wait.
        """
        carried = _Carried(
            delivery.id,
            delivery.topic,
            delivery.history,
            delivery.was_imported_into,
            is_probe=is_probe,
        )
        self._traffic.enter(carried.id, Phase.WAITING)
        try:
            while not self.stopping.is_set():
                step = self._without_call(carried) or await self._attempt(carried)
                if not isinstance(step, _Wait):
                    return step
                await self._wait(carried, step)
        except asyncio.CancelledError:
            if self._traffic.is_calling(carried.id):
                carried.history = carried.history.cut_off()
        finally:
            self._traffic.leave(carried.id)
            self._end_probe(carried)
        return Released(carried.id, carried.history)

    def wake_parked(self) -> None:
        """Wake the records of all communities that are held no longer."""
        self._log_stop()
        held = self.health.held
        if held is self._held or held == self._held:
            return
        self.parking.release(sorted(self._held - held))
        if not self._limits.is_probing:
            self._log_held()
        self._held = held
        self._traffic.wake()

    def _log_held(self) -> None:
        """Log the communities that came to be held, and the ends of those that were logged.

        Those that failed in an outage of all are not logged one by one.
        """
        troubles = self.health.communities.troubles()
        new = troubles.keys() - self._held
        for group in sorted(new):
            self._repeated.warning(
                "a community is held: its records wait, one of them asks now and then",
                group=group,
                reason=troubles[group].value,
            )
        for group in sorted(self._logged_held - troubles.keys()):
            if self.health.communities.is_given_up(group, self._clock()):
                self._repeated.warning(
                    "a community is given up: its records become dead letters", group=group
                )
            else:
                self._repeated.warning("a community is held no longer", group=group)
        self._logged_held = (self._logged_held & troubles.keys()) | new

    def _log_stop(self) -> None:
        """Log that rejections stopped a service, and that it goes on."""
        stop, before = self.health.stopped_by_rejections, self._logged_stop
        self._logged_stop = stop
        if stop and not before:
            log.error(
                "stopped: single calls find out whether other records are imported",
                code=stop.code,
                reason=stop.message,
            )
        elif before and not stop:
            log.info("records are imported again: calls go on at the full rate")

    # ---- waiting

    async def _wait(self, carried: _Carried, wait: _Wait) -> None:
        """Wait before the next attempt, without a slot; in a trouble until it may be over."""
        if not (wait.is_parked or wait.seconds > 0) or self.stopping.is_set():
            return
        self._traffic.enter(carried.id, Phase.BACKING_OFF)
        if not wait.is_parked or await self._park(carried):
            await asyncio.sleep(wait.seconds)
        self._traffic.enter(carried.id, Phase.WAITING)

    async def _park(self, carried: _Carried) -> bool:
        """Wait for the end of a trouble; return whether to back off once more before the call."""
        while self._is_held(carried) or self._limits.is_probing:
            if self._is_held(carried):
                if await self._wait_for_community(carried):
                    return False
            elif not await self._wait_for_service():
                return False
        return True

    async def _wait_for_community(self, carried: _Carried) -> bool:
        """Wait until the community is held no longer; return True where nothing else is waited for.

        What failed while it was held is forgiven.
        """
        parked = await self.parking.wait(carried.topic.group_id)
        carried.is_probe, carried.letter = parked.is_picked, parked.letter
        if not parked.is_picked:
            carried.failures = None
        return parked.is_picked or parked.letter is not None

    async def _wait_for_service(self) -> bool:
        """Make room for records that were not tried yet, while single probes go out.

        Ten bad records in a row look like an outage; only another record can show that they are
        not. Returns True when the breaker closed, False when no other record is left to probe with.
        """
        if await self._limits.closes_within(PARK_S * (0.5 + self._chance())):
            return True
        return self._traffic.waiting > 0

    def _is_held(self, carried: _Carried) -> bool:
        return not carried.is_probe and self.health.is_held(carried.topic.group_id)

    def _may_call(self, carried: _Carried) -> bool:
        """Return whether nothing became known of the community while the record was in line."""
        if self._is_held(carried):
            return False
        communities, group_id = self.health.communities, carried.topic.group_id
        return carried.asks_again or not communities.is_given_up(group_id, self._clock())

    def _end_probe(self, carried: _Carried) -> None:
        if carried.is_probe:
            carried.is_probe = False
            self.health.communities.probe_ended(carried.topic.group_id)
            self._traffic.wake()

    # ---- calling

    def _without_call(self, carried: _Carried) -> Outcome | _Wait | None:
        """Return what becomes of a record whose community takes no calls; None: call."""
        if carried.letter:
            return dead_letter(carried, carried.letter)
        group_id, now_s = carried.topic.group_id, self._clock()
        answer = self.health.answer_without_call(group_id, now_s)
        if answer:
            letter, halt = answer
            if halt:
                self.halt(halt)
            return dead_letter(carried, letter)
        carried.asks_again = self.health.communities.is_given_up(group_id, now_s)
        if not self._is_held(carried):
            return None
        if carried.was_called:
            return _Wait(is_parked=True)
        return Released(carried.id, carried.history)

    async def _attempt(self, carried: _Carried) -> Outcome | _Wait:
        """Make one call and act on its reply."""
        async with self._limits.slot_and_turn(lambda: self._may_call(carried)) as turn:
            if turn is None:
                return _Wait()
            if self.stopping.is_set():
                return Released(carried.id, carried.history)
            signature = self._credentials.current()
            before, answered_at_start = carried.history, self.health.blame.answered
            reply = await self._call(carried, signature, turn)
        circumstances = Circumstances(self.health.anything_imported, self._skip_existing)
        decided = decide(reply, carried.topic, before, circumstances)
        attempt = Attempt(
            record=carried.id,
            topic=carried.topic,
            history=carried.history,
            failures=carried.failures,
            refused=carried.refused,
            started_s=turn.started_s,
            ended_s=self._clock(),
            answered_at_start=answered_at_start,
            generation=signature.generation,
            current_generation=self._credentials.current().generation,
            status=reply.status,
            code=reply.code,
            has_untried=self._traffic.has_untried,
            was_imported_into=carried.was_imported_into,
        )
        self._observe(type(decided).__name__.lower(), reply.code, attempt.ended_s - turn.started_s)
        self._log(decided, carried.topic)
        try:
            reaction = self.health.react(decided, attempt)
            self._set_pace(decided, reaction, turn)
            step = self._act(reaction, carried, signature)
        finally:
            self._end_probe(carried)
            self._limits.wake_waiters()
            self.wake_parked()
        if isinstance(step, verdict.Compare):
            return await self._compare(carried, step, attempt)
        return step

    async def _call(self, carried: _Carried, signature: Signature, turn: Turn) -> Reply:
        self._traffic.enter(carried.id, Phase.CALLING)
        carried.history = carried.history.attempted(self._wall_clock())
        self._counters.calls += 1
        self._counters.retries += carried.was_called
        carried.was_called = True
        reply = await self._chat.import_topic(carried.topic.body, signature)
        self._limits.call_ended(turn.started_s, answered=reply.status is not None)
        self._traffic.enter(carried.id, Phase.WAITING)
        return reply

    async def _compare(
        self, carried: _Carried, compare: verdict.Compare, attempt: Attempt
    ) -> Outcome:
        """Settle a record whose given TopicId is in use."""
        in_doubt = carried.history.may_exist
        decision: verdict.Imported | verdict.Reject
        if self._comparer is None:
            decision = unproven(compare, in_doubt=in_doubt)
        else:
            self._traffic.enter(carried.id, Phase.COMPARING)
            settled = await self._comparer.compare(carried.topic, in_doubt=in_doubt)
            decision = verdict_of(settled, compare.code)
        reaction = self.health.compared(decision, attempt)
        if reaction.halt:
            self.halt(reaction.halt)
        if isinstance(decision, verdict.Reject):
            return dead_letter(carried, decision)
        return self._imported(carried, decision)

    def _log(self, decided: Verdict, topic: Topic) -> None:
        match decided:
            case verdict.Retry():
                self._repeated.warning("attempt failed", code=decided.code, reason=decided.message)
            case verdict.Throttled():
                self._repeated.warning("throttled", code=decided.code, reason=decided.message)
            case verdict.Imported() if decided.already is Already.BEFORE:
                if topic.origin is Origin.DERIVED:
                    self._repeated.warning(
                        "a derived TopicId existed before: were its keys used before?"
                    )
            case _:
                pass

    def _set_pace(self, decided: Verdict, reaction: Reaction, turn: Turn) -> None:
        if not isinstance(decided, verdict.Throttled):
            self._limits.not_throttled()
            return
        self._counters.throttled += 1
        if reaction.slow_down:
            self._limits.throttled(turn)

    def _act(
        self, reaction: Reaction, carried: _Carried, signature: Signature
    ) -> Outcome | _Wait | verdict.Compare:
        """Do what a reaction asks for."""
        carried.history = reaction.history
        carried.failures = reaction.failures
        carried.refused = reaction.refused
        if reaction.halt:
            self.halt(reaction.halt)
        if reaction.renew:
            self._renew(signature, reaction.renew)
        fate = reaction.fate
        match fate:
            case verdict.Imported():
                return self._imported(carried, fate)
            case verdict.Reject():
                return dead_letter(carried, fate)
            case verdict.Compare():
                return fate
            case TryAgain():
                return self._wait_for(fate, carried)
            case GiveBack():
                return Released(carried.id, carried.history)
            case _:
                assert_never(fate)

    def _wait_for(self, again: TryAgain, carried: _Carried) -> _Wait:
        if not again.tries:
            return _Wait()
        is_held = self.health.is_held(carried.topic.group_id)
        is_parked = is_held or self._limits.is_probing
        tries = max(again.tries, PARKED_TRIES_MIN) if is_parked else again.tries
        seconds = max(again.at_least_s, backoff_s(self._retry, tries, self._chance()))
        return _Wait(seconds, is_parked=is_parked)

    def _imported(self, carried: _Carried, decided: verdict.Imported) -> outcome.Imported:
        return outcome.Imported(
            carried.id, decided.already, carried.history, self._wall_clock(), decided.made_id
        )

    def _renew(self, stale: Signature, refused: verdict.Renew) -> None:
        if self._credentials.renew(stale):
            self._counters.renewals += 1
            return
        sentence = f"{refused.message}: app.usersig cannot be renewed, give a new one"
        self.halt(Halt(refused.code, sentence))


def verdict_of(settled: Settled, code: int) -> verdict.Imported | verdict.Reject:
    """Return what a comparison with the service means for the record."""
    match settled:
        case Own():
            return verdict.Imported(Already.OWN)
        case Before():
            return verdict.Imported(Already.BEFORE)
        case Unproven():
            return verdict.Imported(Already.UNPROVEN)
        case Conflict():
            return verdict.Reject(Reason.CONFLICT, code, settled.message, IN_USE_HINT)
        case _:
            assert_never(settled)


def unproven(compare: verdict.Compare, *, in_doubt: bool) -> verdict.Imported | verdict.Reject:
    """Judge a given TopicId that is in use where it cannot be compared with the service."""
    if in_doubt:
        return verdict.Imported(Already.UNPROVEN)
    return verdict.Reject(Reason.CONFLICT, compare.code, compare.message, IN_USE_HINT)


def dead_letter(of: _Carried | Delivery, letter: verdict.Reject) -> DeadLetter:
    """Return the outcome of a record that is rejected or given up."""
    return DeadLetter(of.id, letter.reason, letter.code, letter.message, letter.hint, of.history)
