"""The story of one record: attempt, verdict, wait, again."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never, get_args

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
from worker.traffic import Traffic

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

NAMES = {kind: kind.__name__.lower() for kind in get_args(Verdict)}
"""The names of the verdicts in the metrics."""


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
class Carried:
    """What is known of a delivery while it is carried."""

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

    def released(self) -> Released:
        """Return the outcome of a record that goes back to the queue."""
        return Released(self.id, self.history)


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait so many seconds before the next attempt; `is_parked`: from the end of a trouble on."""

    seconds: float = 0.0
    is_parked: bool = False

    @property
    def is_pause(self) -> bool:
        """Whether there is anything to wait for."""
        return self.is_parked or self.seconds > 0


@dataclass(frozen=True, slots=True)
class Comparing:
    """Compare the topic with what the service holds, after an attempt that found its ID in use."""

    compare: verdict.Compare
    attempt: Attempt


Step = Outcome | Wait | Comparing
"""What comes next for a record."""


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
        self.limits = limits
        self._traffic = traffic
        self.health = health
        self._retry = retry
        self._counters = counters
        self._clock = clock
        self._wall_clock = wall_clock
        self._chance = chance
        self._circumstances = (
            Circumstances(anything_imported=False, skip_existing=skip_existing),
            Circumstances(anything_imported=True, skip_existing=skip_existing),
        )
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

    def carried(self, delivery: Delivery, *, is_probe: bool = False) -> Carried:
        """Begin to carry a delivery.

        `is_probe`: it asks for a community whose other records wait.
        """
        return Carried(
            delivery.id,
            delivery.topic,
            delivery.history,
            delivery.was_imported_into,
            is_probe,
        )

    def wake_parked(self) -> None:
        """Wake the records of all communities that are held no longer."""
        if self.health.stopped_by_rejections is not self._logged_stop:
            self._log_stop()
        held = self.health.held
        if held is self._held or held == self._held:
            return
        self.parking.release(sorted(self._held - held))
        if not self.limits.is_probing:
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

    # ---- without a slot

    async def stand_apart(self, carried: Carried, step: Wait | Comparing) -> Outcome | None:
        """Do what is done without a slot; return the outcome, or None to call again."""
        if isinstance(step, Comparing):
            return await self._compare(carried, step)
        if not step.is_parked or await self._park(carried):
            await asyncio.sleep(step.seconds)
        return None

    async def _park(self, carried: Carried) -> bool:
        """Wait for the end of a trouble; return whether to back off once more before the call."""
        while self._is_held(carried) or self.limits.is_probing:
            if self._is_held(carried):
                if await self._wait_for_community(carried):
                    return False
            elif not await self._wait_for_service():
                return False
        return True

    async def _wait_for_community(self, carried: Carried) -> bool:
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
        if await self.limits.closes_within(PARK_S * (0.5 + self._chance())):
            return True
        return self._traffic.waiting > 0

    def _is_held(self, carried: Carried) -> bool:
        return not carried.is_probe and self.health.is_held(carried.topic.group_id)

    def end_probe(self, carried: Carried) -> None:
        """Let another record ask for the community, if this one did."""
        if carried.is_probe:
            carried.is_probe = False
            self.health.communities.probe_ended(carried.topic.group_id)
            self._traffic.wake()

    # ---- calling

    def without_call(self, carried: Carried) -> Step | None:
        """Return what becomes of a record whose community takes no calls; None: call."""
        if carried.letter:
            return dead_letter(carried, carried.letter)
        carried.asks_again = False
        if self.health.is_well(carried.topic.group_id):
            return None
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
            return Wait(is_parked=True)
        return carried.released()

    def may_call(self, carried: Carried) -> bool:
        """Return whether nothing became known of the community while the record was in line."""
        group_id = carried.topic.group_id
        if self.health.is_well(group_id):
            return True
        if self._is_held(carried):
            return False
        return carried.asks_again or not self.health.communities.is_given_up(
            group_id, self._clock()
        )

    async def call(self, carried: Carried, turn: Turn) -> Step:
        """Make one call and act on its reply.

        A call that is cancelled leaves its record in doubt.
        """
        signature, before = self._credentials.current(), carried.history
        answered_at_start = self.health.blame.answered
        carried.history = before.attempted(self._wall_clock())
        self._counters.calls += 1
        self._counters.retries += carried.was_called
        carried.was_called = True
        self.limits.call_started(turn)
        self._traffic.calling += 1
        try:
            reply = await self._chat.import_topic(carried.topic.body, signature)
        except asyncio.CancelledError:
            carried.history = carried.history.cut_off()
            raise
        finally:
            self._traffic.calling -= 1
        ended_s = self._clock()
        self.limits.call_ended(turn, ended_s, answered=reply.status is not None)
        circumstances = self._circumstances[self.health.anything_imported]
        decided = decide(reply, carried.topic, before, circumstances)
        generation = signature.generation
        if isinstance(decided, verdict.Renew):
            # Another call may have had the signature renewed meanwhile.
            generation = self._credentials.current().generation
        attempt = Attempt(
            carried.id,
            carried.topic,
            carried.history,
            carried.failures,
            carried.refused,
            turn.started_s,
            ended_s,
            answered_at_start,
            signature.generation,
            generation,
            reply.status,
            reply.code,
            self._traffic.has_untried,
            carried.was_imported_into,
        )
        return self._react(carried, decided, attempt, turn, signature)

    def _react(
        self,
        carried: Carried,
        decided: Verdict,
        attempt: Attempt,
        turn: Turn,
        signature: Signature,
    ) -> Step:
        """Do what follows from a verdict, and wake all who may go on because of it."""
        self._observe(NAMES[type(decided)], attempt.code, attempt.ended_s - attempt.started_s)
        self._log(decided, carried.topic)
        try:
            reaction = self.health.react(decided, attempt)
            if isinstance(decided, verdict.Throttled):
                self._throttled(reaction, turn)
            else:
                self.limits.not_throttled()
            return self._act(reaction, carried, attempt, signature)
        finally:
            self.end_probe(carried)
            self.limits.wake_waiters()
            self.wake_parked()

    async def _compare(self, carried: Carried, comparing: Comparing) -> Outcome:
        """Settle a record whose given TopicId is in use."""
        compare, in_doubt = comparing.compare, carried.history.may_exist
        decision: verdict.Imported | verdict.Reject
        if self._comparer is None:
            decision = unproven(compare, in_doubt=in_doubt)
        else:
            settled = await self._comparer.compare(carried.topic, in_doubt=in_doubt)
            decision = verdict_of(settled, compare.code)
        reaction = self.health.compared(decision, comparing.attempt)
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

    def _throttled(self, reaction: Reaction, turn: Turn) -> None:
        self._counters.throttled += 1
        if reaction.slow_down:
            self.limits.throttled(turn)

    def _act(
        self, reaction: Reaction, carried: Carried, attempt: Attempt, signature: Signature
    ) -> Step:
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
                return Comparing(fate, attempt)
            case TryAgain():
                return self._wait_for(fate, carried)
            case GiveBack():
                return carried.released()
            case _:
                assert_never(fate)

    def _wait_for(self, again: TryAgain, carried: Carried) -> Wait:
        if not again.tries:
            return Wait()
        is_held = self.health.is_held(carried.topic.group_id)
        is_parked = is_held or self.limits.is_probing
        tries = max(again.tries, PARKED_TRIES_MIN) if is_parked else again.tries
        seconds = max(again.at_least_s, backoff_s(self._retry, tries, self._chance()))
        return Wait(seconds, is_parked=is_parked)

    def _imported(self, carried: Carried, decided: verdict.Imported) -> outcome.Imported:
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


def dead_letter(of: Carried | Delivery, letter: verdict.Reject) -> DeadLetter:
    """Return the outcome of a record that is rejected or given up."""
    return DeadLetter(of.id, letter.reason, letter.code, letter.message, letter.hint, of.history)
