"""The story of one record: attempt, verdict, wait, again."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

from worker.limits import Limits, Turn
from worker.logs import RepeatedEvents, logger
from worker.rules import outcome, verdict
from worker.rules.counts import Counters
from worker.rules.health import Failures, Health
from worker.rules.outcome import Already, DeadLetter, Delivery, History, Outcome, Reason, Released
from worker.rules.retry import RetryPolicy, backoff_s
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import Topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Circumstances, Halt, Reply, decide
from worker.traffic import Phase, Traffic

log = logger()


class Chat(Protocol):
    """The service: one attempt, never an exception."""

    async def import_topic(self, body: bytes, signature: Signature) -> Reply: ...


class Credentials(Protocol):
    """The current signature."""

    @property
    def age_s(self) -> float:
        """Seconds since it was made; NaN where nobody here knows."""
        ...

    def current(self) -> Signature: ...

    def renew(self, stale: Signature) -> bool:
        """Replace `stale`, unless that is done; False where no new one can be made."""
        ...


PARK_S = 1.0
ACCOUNT_OR_SIGNATURE = frozenset({60004, 60005})
"""Codes that both a bad signature and a bad account in the body give."""


@dataclass(slots=True, eq=False)
class _Carried:
    """What the carrier knows of a delivery while it carries it."""

    id: int
    topic: Topic
    history: History
    failures: Failures | None = None
    was_called: bool = False
    answered_at_start: int = 0
    """Proper answers of the whole run when its last call began."""
    refused_generation: int | None = None
    """Of the signature with which its account, or that signature, was refused first."""


@dataclass(frozen=True, slots=True)
class _Wait:
    """Try again after so many seconds; `parked`: counted from when the breaker closes."""

    seconds: float = 0.0
    parked: bool = False


class Carrier:
    """Carries deliveries to their outcomes; what all of them share.

    `observe` is told of each reply: the name of its verdict, its code, the seconds of its call.
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
        anything_imported: bool = False,
        observe: Callable[[str, int | None, float], None] = lambda *_: None,
    ) -> None:
        self._chat = chat
        self._credentials = credentials
        self._limits = limits
        self.traffic = traffic
        self._health = health
        self._retry = retry
        self._counters = counters
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._skip_existing = skip_existing
        self._anything_imported = anything_imported
        self._observe = observe
        self._repeated = RepeatedEvents(log, clock)
        self._proven_generation = -1
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

    async def carry(self, taken: Delivery) -> Outcome:
        """Take one delivery to its outcome; a stop or a cancellation releases it."""
        delivery = _Carried(taken.id, taken.topic, taken.history)
        self.traffic.enter(delivery.id, Phase.WAITING)
        try:
            while not self.stopping.is_set():
                step = await self._attempt(delivery)
                if not isinstance(step, _Wait):
                    return step
                if (step.parked or step.seconds > 0) and not self.stopping.is_set():
                    self.traffic.enter(delivery.id, Phase.BACKING_OFF)
                    if not step.parked or await self._park():
                        await asyncio.sleep(step.seconds)
                    self.traffic.enter(delivery.id, Phase.WAITING)
        except asyncio.CancelledError:
            if self.traffic.is_calling(delivery.id):
                delivery.history = delivery.history.cut_off()
        finally:
            self.traffic.leave(delivery.id)
        return Released(delivery.id, delivery.history)

    async def _park(self) -> bool:
        """Make room for records that were not tried yet, while single probes go out.

        Ten bad records in a row look like an outage; only another record can tell. True when the
        breaker closed, False when nobody else is left to probe with.
        """
        while self._limits.is_open:
            if not await self._limits.closes_within(PARK_S * (0.5 + self._chance())):
                nobody_else_waits = not self.traffic.waiting
                if nobody_else_waits:
                    return False
        return True

    async def _attempt(self, delivery: _Carried) -> Outcome | _Wait:
        async with self._limits.slot_and_turn() as turn:
            if self.stopping.is_set():
                return Released(delivery.id, delivery.history)
            self.traffic.enter(delivery.id, Phase.CALLING)
            signature = self._credentials.current()
            before = delivery.history
            delivery.history = before.attempted(self._wall_clock())
            self._counters.calls += 1
            self._counters.retries += delivery.was_called
            delivery.was_called = True
            delivery.answered_at_start = self._health.answered
            reply = await self._chat.import_topic(delivery.topic.body, signature)
            self._limits.heard(turn.started_s, answered=reply.status is not None)
            self.traffic.enter(delivery.id, Phase.WAITING)
        circumstances = Circumstances(self._anything_imported, self._skip_existing)
        decided = decide(reply, delivery.topic, before, circumstances)
        self._observe(type(decided).__name__.lower(), reply.code, self._clock() - turn.started_s)
        try:
            return self._react(delivery, decided, reply, signature, turn)
        finally:
            self._limits.look_again()

    def _react(
        self,
        delivery: _Carried,
        decided: verdict.Verdict,
        reply: Reply,
        signature: Signature,
        turn: Turn,
    ) -> Outcome | _Wait:
        """Settle all state for a verdict; what is left to do comes back."""
        self._learn(decided, signature)
        match decided:
            case verdict.Imported():
                return self._imported(delivery, decided, turn.started_s)
            case verdict.Reject():
                return self._rejected(delivery, decided, turn.started_s)
            case verdict.Retry():
                return self._retried(delivery, decided, reply, turn.started_s)
            case verdict.Throttled():
                return self._throttled(delivery, decided, turn)
            case verdict.Renew():
                return self._renewed(delivery, decided, signature, turn.started_s)
            case Halt():
                return self._halted(delivery, decided)
            case _:
                assert_never(decided)

    def _learn(self, decided: verdict.Verdict, signature: Signature) -> None:
        """Note what a verdict says beyond its record: of the pace and of the signature."""
        if not isinstance(decided, verdict.Throttled):
            self._limits.not_throttled()
        if isinstance(decided, verdict.Imported | verdict.Reject):
            self._proven_generation = max(self._proven_generation, signature.generation)

    def _imported(self, delivery: _Carried, decided: verdict.Imported, started_s: float) -> Outcome:
        already = decided.already
        self._health.imported(self._clock(), started_s=started_s)
        self._anything_imported = True
        if already is Already.BEFORE and delivery.topic.origin is Origin.DERIVED:
            self._repeated.warning("a derived TopicId existed before: were its keys used before?")
        return outcome.Imported(
            delivery.id, already, delivery.history, self._wall_clock(), decided.made_id
        )

    def _rejected(self, delivery: _Carried, reject: verdict.Reject, started_s: float) -> Outcome:
        halt = self._health.rejected(
            reject.code, delivery.topic.group_id, self._clock(), started_s=started_s
        )
        if halt:
            self.halt(halt)
        return DeadLetter(
            delivery.id,
            reject.reason,
            reject.code,
            reject.message,
            reject.hint,
            delivery.history,
        )

    def _retried(
        self, delivery: _Carried, retry: verdict.Retry, reply: Reply, started_s: float
    ) -> Outcome | _Wait:
        now_s = self._clock()
        delivery.history = delivery.history.failed(ambiguous=retry.ambiguous)
        delivery.failures = self._health.failed(
            delivery.id,
            delivery.failures,
            now_s,
            started_s=started_s,
            answered_at_start=delivery.answered_at_start,
            code=reply.code,
            status=reply.status,
            reached=retry.reached,
            no_record_s_fault=retry.no_record_s_fault,
        )
        self._repeated.warning("attempt failed", code=retry.code, reason=retry.message)
        halt = self._health.gateway_halt(retry.message)
        if halt:
            return self._halted(delivery, halt)
        if retry.tries is not None and delivery.failures.count >= retry.tries:
            rejection = verdict.Reject(Reason.REJECTED, retry.code, retry.message, retry.hint)
            return self._rejected(delivery, rejection, started_s)
        chances_are_over = self._health.is_exhausted(
            delivery.id,
            delivery.failures,
            now_s,
            is_coded=reply.code is not None,
            fresh_waiting=self.traffic.has_untried,
        )
        if isinstance(chances_are_over, Halt):
            return self._halted(delivery, chances_are_over)
        if chances_are_over:
            return self._exhausted(delivery, retry)
        seconds = backoff_s(self._retry, delivery.failures.tries, self._chance())
        return _Wait(seconds, parked=self._limits.is_open)

    def _exhausted(self, delivery: _Carried, retry: verdict.Retry) -> Outcome:
        halt = self._health.exhausted(retry.code or retry.message, delivery.topic.group_id)
        if halt:
            self.halt(halt)
        hint = f"{retry.hint}; try the dead letter again when the service is well"
        return DeadLetter(
            delivery.id, Reason.EXHAUSTED, retry.code, retry.message, hint, delivery.history
        )

    def _throttled(
        self, delivery: _Carried, throttled: verdict.Throttled, turn: Turn
    ) -> Outcome | _Wait:
        self._counters.throttled += 1
        self._repeated.warning("throttled", code=throttled.code, reason=throttled.message)
        if not self._limits.is_open:
            # What a probe meets, and what was under way before it, says nothing of the rate.
            self._limits.throttled(turn)
        if throttled.pauses_s:
            halt = self._health.throttled(throttled, self._clock(), started_s=turn.started_s)
            if halt:
                return self._halted(delivery, halt)
        return _Wait(0.0)

    def _renewed(
        self,
        delivery: _Carried,
        renew: verdict.Renew,
        signature: Signature,
        started_s: float,
    ) -> Outcome | _Wait:
        if delivery.refused_generation is None:
            delivery.refused_generation = signature.generation
        if self._account_is_at_fault(delivery, renew, delivery.refused_generation):
            hint = "others succeed with the same signature: check From_Account"
            return self._rejected(
                delivery,
                verdict.Reject(Reason.REJECTED, renew.code, renew.message, hint),
                started_s,
            )
        if signature.generation != self._credentials.current().generation:
            return _Wait(0.0)
        halt = self._health.renewal(renew.code, renew.message, self._clock(), once=renew.once)
        if halt is None and not self._credentials.renew(signature):
            halt = Halt(
                renew.code, f"{renew.message}: app.usersig cannot be renewed, give a new one"
            )
        if halt:
            return self._halted(delivery, halt)
        self._counters.renewals += 1
        return _Wait(0.0)

    def _account_is_at_fault(
        self, delivery: _Carried, renew: verdict.Renew, refused_generation: int
    ) -> bool:
        return (
            renew.code in ACCOUNT_OR_SIGNATURE
            and delivery.topic.has_account
            and refused_generation <= self._proven_generation
        )

    def _halted(self, delivery: _Carried, halt: Halt) -> Outcome:
        self.halt(halt)
        return Released(delivery.id, delivery.history)
