"""The story of one record: attempt, verdict, wait, again."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from worker.limits import Limits, Turn
from worker.logs import RepeatedEvents, logger
from worker.rules import outcome, verdict
from worker.rules.blame import Failures
from worker.rules.counts import Counters
from worker.rules.health import Health
from worker.rules.outcome import Already, DeadLetter, Delivery, History, Outcome, Released
from worker.rules.reaction import Attempt, Dead, GiveBack, Reaction, TryAgain
from worker.rules.retry import RetryPolicy, backoff_s
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import Topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Circumstances, Halt, Reply, Verdict, decide
from worker.traffic import Phase, Traffic

log = logger()

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


@dataclass(slots=True, eq=False)
class _Carried:
    """What the carrier knows of a delivery while it carries it."""

    id: int
    topic: Topic
    history: History
    failures: Failures | None = None
    refused_generation: int | None = None
    was_called: bool = False


@dataclass(frozen=True, slots=True)
class _Wait:
    """Wait so many seconds before the next attempt; `is_parked`: from the end of an outage on."""

    seconds: float = 0.0
    is_parked: bool = False


class Carrier:
    """Carries deliveries to their outcomes; what all of them share.

    `observe` is called for each reply with the name of its verdict, its code and the seconds of its
    call.
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
        observe: Callable[[str, int | None, float], None] = lambda *_: None,
    ) -> None:
        self._chat = chat
        self._credentials = credentials
        self._limits = limits
        self._traffic = traffic
        self._health = health
        self._retry = retry
        self._counters = counters
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._skip_existing = skip_existing
        self._observe = observe
        self._repeated = RepeatedEvents(log, clock)
        self.stopping = asyncio.Event()
        self.halted: Halt | None = None

    def stop(self) -> None:
        """Start no more calls; those under way may finish."""
        self.stopping.set()

    def halt(self, halt: Halt) -> None:
        """Stop because a person must act; the first reason stands."""
        if self.halted is None:
            self.halted = halt
            log.error("halted", code=halt.code, reason=halt.message)
        self.stop()

    async def carry(self, delivery: Delivery) -> Outcome:
        """Take one delivery to its outcome; a stop or a cancellation releases it."""
        carried = _Carried(delivery.id, delivery.topic, delivery.history)
        self._traffic.enter(carried.id, Phase.WAITING)
        try:
            while not self.stopping.is_set():
                step = await self._attempt(carried)
                if not isinstance(step, _Wait):
                    return step
                await self._wait(carried, step)
        except asyncio.CancelledError:
            if self._traffic.is_calling(carried.id):
                carried.history = carried.history.cut_off()
        finally:
            self._traffic.leave(carried.id)
        return Released(carried.id, carried.history)

    async def _wait(self, carried: _Carried, wait: _Wait) -> None:
        """Wait before the next attempt, without a slot; in an outage until it may be over."""
        if not (wait.is_parked or wait.seconds > 0) or self.stopping.is_set():
            return
        self._traffic.enter(carried.id, Phase.BACKING_OFF)
        if not wait.is_parked or await self._park():
            await asyncio.sleep(wait.seconds)
        self._traffic.enter(carried.id, Phase.WAITING)

    async def _park(self) -> bool:
        """Make room for records that were not tried yet, while single probes go out.

        Ten bad records in a row look like an outage; only another record can show that they are
        not. Returns True when the breaker closed, False when no other record is left to probe with.
        """
        while self._limits.is_probing:
            if not await self._limits.closes_within(PARK_S * (0.5 + self._chance())):
                nobody_else_waits = not self._traffic.waiting
                if nobody_else_waits:
                    return False
        return True

    async def _attempt(self, carried: _Carried) -> Outcome | _Wait:
        """Make one call and act on its reply."""
        async with self._limits.slot_and_turn() as turn:
            if self.stopping.is_set():
                return Released(carried.id, carried.history)
            signature = self._credentials.current()
            before, answered_at_start = carried.history, self._health.blame.answered
            reply = await self._call(carried, signature, turn)
        circumstances = Circumstances(self._health.anything_imported, self._skip_existing)
        decided = decide(reply, carried.topic, before, circumstances)
        attempt = Attempt(
            record=carried.id,
            topic=carried.topic,
            history=carried.history,
            failures=carried.failures,
            refused_generation=carried.refused_generation,
            started_s=turn.started_s,
            ended_s=self._clock(),
            answered_at_start=answered_at_start,
            generation=signature.generation,
            current_generation=self._credentials.current().generation,
            status=reply.status,
            code=reply.code,
            has_untried=self._traffic.has_untried,
        )
        self._observe(type(decided).__name__.lower(), reply.code, attempt.ended_s - turn.started_s)
        self._log(decided, carried.topic)
        try:
            reaction = self._health.react(decided, attempt)
            self._set_pace(decided, reaction, turn)
            return self._act(reaction, carried, signature)
        finally:
            self._limits.wake_waiters()

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

    def _act(self, reaction: Reaction, carried: _Carried, signature: Signature) -> Outcome | _Wait:
        """Do what a reaction asks for."""
        carried.history = reaction.history
        carried.failures = reaction.failures
        carried.refused_generation = reaction.refused_generation
        if reaction.halt:
            self.halt(reaction.halt)
        if reaction.renew:
            self._renew(signature, reaction.renew)
        match reaction.fate:
            case verdict.Imported():
                already, made_id = reaction.fate.already, reaction.fate.made_id
                return outcome.Imported(
                    carried.id, already, carried.history, self._wall_clock(), made_id
                )
            case Dead(reason, code, message, hint):
                return DeadLetter(carried.id, reason, code, message, hint, carried.history)
            case TryAgain(tries):
                if not tries:
                    return _Wait()
                seconds = backoff_s(self._retry, tries, self._chance())
                return _Wait(seconds, is_parked=self._limits.is_probing)
            case GiveBack():
                return Released(carried.id, carried.history)
            case _:
                assert_never(reaction.fate)

    def _renew(self, stale: Signature, refused: verdict.Renew) -> None:
        if self._credentials.renew(stale):
            self._counters.renewals += 1
            return
        sentence = f"{refused.message}: app.usersig cannot be renewed, give a new one"
        self.halt(Halt(refused.code, sentence))
