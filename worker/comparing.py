"""Compares topics that were found in use with those that the service holds.

Imports never wait for it: it has its own quota, and few calls open at once. Records of one
community that wait are asked for together, so one call answers up to 100 of them.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from worker.logs import RepeatedEvents, logger
from worker.rules.codes import Action, lookup
from worker.rules.comparison import (
    LIST_SIZES,
    Answer,
    AskAgain,
    NotAllowed,
    NotAnswered,
    Settled,
    TopicsReply,
    compare,
    decide,
    next_list_size,
)
from worker.rules.renewals import Renewals
from worker.rules.retry import RetryPolicy, backoff_s
from worker.rules.topic.topic import Topic
from worker.rules.usersig import Signature
from worker.rules.verdict import TOO_MANY_REQUESTS

log = logger()

CALLS_OPEN_MAX = 8
FAILURES_OF_ALL = 3
"""After so many back-offs without an answer for any community, all wait, and one call probes."""
DEFAULT_RETRY = RetryPolicy()


class Chat(Protocol):
    """The service: one call of get_topic, never an exception."""

    async def get_topics(
        self, group_id: str, topic_ids: Sequence[str], signature: Signature
    ) -> TopicsReply: ...


class Credentials(Protocol):
    """The current signature."""

    def current(self) -> Signature:
        """Return the signature to call with."""
        ...

    def renew(self, stale: Signature) -> bool:
        """Replace `stale`, unless that is done; return False where no new one can be made."""
        ...


class Quota(Protocol):
    """Permission to start calls of get_topic."""

    async def acquire(self) -> float:
        """Wait for one turn; it is named to `throttled` by what this returns."""
        ...

    def throttled(self, turn: float) -> None:
        """Slow down: the call that had this turn was refused for its frequency."""
        ...

    def not_throttled(self) -> None:
        """Record a call that was not refused."""
        ...


@dataclass(slots=True)
class _Failures:
    """Failures in a row; times in seconds of the loop's clock.

    `count`: those of calls that started after the back-off of the failure before.
    """

    count: int = 0
    since_s: float = float("inf")
    not_before_s: float = float("-inf")

    def add(self, now_s: float, chance: float, retry: RetryPolicy) -> None:
        self.since_s = min(self.since_s, now_s)
        if now_s < self.not_before_s:
            return
        self.count += 1
        # Never less than half of the back-off: retries must not become quick by chance.
        self.not_before_s = now_s + backoff_s(retry, self.count + 1, 0.5 + chance / 2)

    def end(self) -> None:
        self.count, self.since_s, self.not_before_s = 0, float("inf"), float("-inf")


@dataclass(slots=True, eq=False)
class _Request:
    """A record that waits for its answer; `is_woken`: it has one, or it is to make the call."""

    topic: Topic
    topic_id: str
    answer: Answer | None = None
    is_woken: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Community:
    """The requests for one community, in the order in which they are asked for."""

    group_id: str
    requests: dict[_Request, None] = field(default_factory=dict)
    list_size: int = LIST_SIZES[0]
    has_caller: bool = False
    failures: _Failures = field(default_factory=_Failures)

    def move_to_end(self, request: _Request) -> None:
        """Ask for the others first, so that a topic that always fails does not hold them up."""
        if request in self.requests:  # it may have been cancelled meanwhile
            del self.requests[request]
            self.requests[request] = None

    def unanswered(self) -> list[_Request]:
        return [request for request in self.requests if request.answer is None]


class Comparer:
    """Compares given TopicIds that are in use with what the service holds.

    `is_held`: whether imports, too, are held back at the moment (an outage, a halt); while it
    returns True nothing is given up. `retry`: its delays and its patience; after so long with
    nothing but passing failures a topic cannot be compared. `chance`: uniform in [0, 1).

    Memory: one request for each `compare` that runs; communities without requests are forgotten.
    """

    def __init__(
        self,
        *,
        chat: Chat,
        credentials: Credentials,
        quota: Quota,
        clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
        retry: RetryPolicy = DEFAULT_RETRY,
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        self._chat = chat
        self._credentials = credentials
        self._quota = quota
        self._clock = clock
        self._chance = chance
        self._retry = retry
        self._is_held = is_held
        self._slots = asyncio.Semaphore(CALLS_OPEN_MAX)
        self._probing = asyncio.Lock()
        self._communities: dict[str, _Community] = {}
        self._failures = _Failures()
        self._renewals = Renewals()
        self._repeated = RepeatedEvents(log, clock)
        self.comparing = 0
        """How many records are being compared, those that wait for a minute included."""
        self.calls = 0
        """How many calls of get_topic were made."""

    def __repr__(self) -> str:
        return f"<Comparer {self.comparing} in {len(self._communities)} communities {self.calls}>"

    async def compare(self, topic: Topic, *, in_doubt: bool) -> Settled:
        """Compare a topic whose TopicId is in use. Returns what that means for its record.

        `in_doubt`: an earlier attempt may have made it. Takes seconds, a minute if get_topic does
        not find the topic, longer while get_topic fails. Raises ValueError for a topic without a
        TopicId, otherwise nothing but CancelledError; a cancelled comparison leaves nothing behind.
        """
        if topic.topic_id is None:
            raise ValueError("a topic without a TopicId cannot be compared")
        self.comparing += 1
        try:
            answer = await self._ask(topic, topic.topic_id)
            decision = decide(answer, in_doubt=in_doubt, asked_twice=False)
            while isinstance(decision, AskAgain):
                await asyncio.sleep(decision.after_s)
                answer = await self._ask(topic, topic.topic_id)
                decision = decide(answer, in_doubt=in_doubt, asked_twice=True)
        finally:
            self.comparing -= 1
        if isinstance(answer, NotAllowed):
            self._repeated.warning("no comparison", code=answer.code, reason=answer.message)
        return decision

    async def _ask(self, topic: Topic, topic_id: str) -> Answer:
        """Wait for the answer; one of the requests of a community makes the call for all."""
        community = self._communities.setdefault(topic.group_id, _Community(topic.group_id))
        request = _Request(topic, topic_id)
        community.requests[request] = None
        try:
            while request.answer is None:
                if community.has_caller:
                    await request.is_woken.wait()
                    request.is_woken.clear()
                else:
                    await self._call_for(community)
        finally:
            del community.requests[request]
            if not community.requests:
                del self._communities[community.group_id]
            elif not community.has_caller:
                _wake_next(community)
        return request.answer

    async def _call_for(self, community: _Community) -> None:
        """Make the next call for a community, or give up what waits there."""
        community.has_caller = True
        try:
            if not self._gave_up(community):
                await self._call(community)
        finally:
            community.has_caller = False
            _wake_next(community)

    def _gave_up(self, community: _Community) -> bool:
        """Answer all requests without a call, if nothing but failures came for long enough.

        If all communities fail, calls still go out after each back-off, to find the end of it.
        """
        now_s = self._clock()
        if self._is_held():
            # That time counts against nobody's patience.
            for failures in (community.failures, self._failures):
                failures.since_s = max(failures.since_s, now_s)
            return False
        is_over = self._over_since(self._failures, now_s) and now_s < self._failures.not_before_s
        if not (is_over or self._over_since(community.failures, now_s)):
            return False
        message = f"get_topic failed for {self._retry.patience_s:.0f} s and longer"
        _give(community.unanswered(), NotAllowed(None, message))
        return True

    def _over_since(self, failures: _Failures, now_s: float) -> bool:
        return now_s - failures.since_s >= self._retry.patience_s

    async def _call(self, community: _Community) -> None:
        """Wait until a call may be made, and make it, unless another one has failed meanwhile."""
        await self._wait_for_back_off(community)
        async with self._slots, self._one_by_one():
            if self._back_off_s(community) <= 0:
                await self._call_now(community)

    async def _call_now(self, community: _Community) -> None:
        turn = await self._quota.acquire()
        # Chosen as late as possible: requests that came meanwhile are in it, and those that come in
        # the same moment if the turn did not have to be waited for.
        await asyncio.sleep(0)
        asked = community.unanswered()[: community.list_size]
        topic_ids = list(dict.fromkeys(request.topic_id for request in asked))
        signature = self._credentials.current()
        self.calls += 1
        reply = await self._chat.get_topics(community.group_id, topic_ids, signature)
        smaller = next_list_size(reply.code, len(topic_ids))
        if smaller:
            self._quota.not_throttled()
            community.list_size = smaller
            return
        self._note(reply, signature, turn)
        self._answer(community, asked, reply)

    async def _wait_for_back_off(self, community: _Community) -> None:
        while (wait_s := self._back_off_s(community)) > 0:  # noqa: ASYNC110 - time passes
            await asyncio.sleep(wait_s)

    def _back_off_s(self, community: _Community) -> float:
        """Return the seconds until this community may be called."""
        not_before_s = community.failures.not_before_s
        if self._fails_for_all:
            not_before_s = max(not_before_s, self._failures.not_before_s)
        return not_before_s - self._clock()

    @property
    def _fails_for_all(self) -> bool:
        return self._failures.count >= FAILURES_OF_ALL

    def _one_by_one(self) -> AbstractAsyncContextManager[object]:
        """While all calls fail, let one at a time find out whether that is over."""
        return self._probing if self._fails_for_all else nullcontext()

    def _note(self, reply: TopicsReply, signature: Signature, turn: float) -> None:
        """Adjust the pace, and renew the signature if it was refused."""
        action = lookup(reply.code).action if reply.code else None
        if action is Action.THROTTLED or reply.status == TOO_MANY_REQUESTS:
            self._quota.throttled(turn)
        else:
            self._quota.not_throttled()
        if action is Action.RENEW and reply.code:
            self._renew(reply.code, reply.info, signature)

    def _renew(self, code: int, info: str, stale: Signature) -> None:
        # Where new signatures do not help, imports find that out, too, and halt the run.
        is_current = stale.generation == self._credentials.current().generation
        once = lookup(code).once
        if is_current and not self._renewals.renew(code, info, self._clock(), once=once):
            self._credentials.renew(stale)

    def _answer(self, community: _Community, asked: list[_Request], reply: TopicsReply) -> None:
        failed: NotAnswered | None = None
        is_answered = False
        for request in asked:
            answer = compare(orjson.loads(request.topic.body), request.topic_id, reply)
            if isinstance(answer, NotAnswered):
                failed = answer
                community.move_to_end(request)
            else:
                is_answered = True
                _give([request], answer)
        if is_answered:
            self._failures.end()
            self._renewals.end()
            community.failures.end()
        if failed:
            self._repeated.warning("comparison failed", code=failed.code, reason=failed.message)
            for failures in (community.failures, self._failures):
                failures.add(self._clock(), self._chance(), self._retry)


def _give(requests: list[_Request], answer: Answer) -> None:
    for request in requests:
        request.answer = answer
        request.is_woken.set()


def _wake_next(community: _Community) -> None:
    """Wake the request that is to make the next call."""
    for request in community.requests:
        if request.answer is None:
            request.is_woken.set()
            return
