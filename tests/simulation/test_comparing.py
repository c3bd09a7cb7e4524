"""Comparisons of topics in use, on a virtual clock, with a service that a test describes."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson
import pytest

from tests.support.rolling_second import most_in_a_second
from tests.support.virtual_clock import VirtualLoop
from worker.comparing import CALLS_OPEN_MAX, Comparer
from worker.quota.local import LocalQuota
from worker.rules.comparison import Before, Conflict, Own, Settled, TopicsReply, Unproven
from worker.rules.renewals import RENEWALS_MAX
from worker.rules.retry import RetryPolicy
from worker.rules.topic.topic import RecordRules, Topic, to_topic
from worker.rules.usersig import Signature

GROUP = "@TGS#_g"
NOT_ALLOWED = TopicsReply(200, 10007, "no permission")
FAILED = TopicsReply(200, 10002, "internal error")
DOWN = TopicsReply(failure="no answer in time")


def topic(number: int, group: str = GROUP, **changes: Any) -> Topic:
    record = {
        "GroupId": group,
        "TopicName": f"topic {number}",
        "TopicId": f"{group}@TOPIC#_t{number}",
        "CreateTime": 1_500_000_000 + number,
    }
    return to_topic(record | changes, RecordRules())


@dataclass
class Question:
    """One call of get_topic."""

    at_s: float
    group_id: str
    topic_ids: list[str]
    signature: Signature


@dataclass
class FakeChat:
    """A service that holds `topics`; `script` may answer in its place, with None: it does not."""

    clock: Callable[[], float]
    script: Callable[[Question], TopicsReply | None] = lambda _: None
    latency_s: float = 0.05
    topics: dict[str, dict[str, Any]] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    def hold(self, *held: Topic, **changes: Any) -> None:
        for one in held:
            assert one.topic_id
            self.topics[one.topic_id] = orjson.loads(one.body) | changes

    async def get_topics(
        self, group_id: str, topic_ids: Sequence[str], signature: Signature
    ) -> TopicsReply:
        question = Question(self.clock(), group_id, [*topic_ids], signature)
        self.questions.append(question)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(self.latency_s)
        finally:
            self.open -= 1
        scripted = self.script(question)
        found = {name: self.topics[name] for name in topic_ids if name in self.topics}
        return scripted or TopicsReply(200, 0, topics=found)


@dataclass
class FakeCredentials:
    """Signatures by their generation; `can_renew` as for a key."""

    generation: int = 1
    can_renew: bool = True

    def current(self) -> Signature:
        return Signature("sig", self.generation)

    def renew(self, stale: Signature) -> bool:
        if self.can_renew and stale.generation == self.generation:
            self.generation += 1
        return self.can_renew


class Bench:
    """A comparer with all that it needs, on a virtual clock."""

    def __init__(
        self, *, calls_per_s: float = 50.0, held_until_s: float = 0.0, **more: Any
    ) -> None:
        self.loop = VirtualLoop()
        self.chat = FakeChat(self.loop.time)
        self.credentials = FakeCredentials()
        self.comparer = Comparer(
            chat=self.chat,
            credentials=self.credentials,
            quota=LocalQuota(calls_per_s, self.loop.time),
            clock=self.loop.time,
            chance=lambda: 0.5,
            is_held=lambda: self.loop.time() < held_until_s,
            **more,
        )

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self.loop.run_until_complete(work)
        finally:
            self.loop.close()

    def settle(self, *topics: Topic, in_doubt: bool = False) -> list[Settled]:
        """Compare all at once."""
        settled: list[Settled] = []

        async def work() -> None:
            compared = [self.comparer.compare(one, in_doubt=in_doubt) for one in topics]
            settled.extend(await asyncio.gather(*compared))

        self.run(work())
        assert self.comparer.comparing == 0
        assert "0 in 0 communities" in repr(self.comparer), "nothing is kept"
        return settled

    @property
    def asked_at_s(self) -> list[float]:
        return [question.at_s for question in self.chat.questions]


def test_a_topic_with_the_same_content_is_imported() -> None:
    bench = Bench()
    bench.chat.hold(topic(1))
    assert bench.settle(topic(1)) == [Before()]
    bench = Bench()
    bench.chat.hold(topic(1))
    assert bench.settle(topic(1), in_doubt=True) == [Own()]


def test_a_topic_with_other_content_is_a_conflict() -> None:
    bench = Bench()
    bench.chat.hold(topic(1), CreateTime=7)
    (conflict,) = bench.settle(topic(1), in_doubt=True)
    assert isinstance(conflict, Conflict)
    assert conflict.fields == ("CreateTime",)


def test_other_texts_with_the_same_time_are_unproven_after_a_doubt() -> None:
    bench = Bench()
    bench.chat.hold(topic(1), TopicName="renamed")
    (unproven,) = bench.settle(topic(1), in_doubt=True)
    assert isinstance(unproven, Unproven)
    assert "renamed" in unproven.reason


def test_a_topic_without_an_id_cannot_be_compared() -> None:
    bench = Bench()
    nameless = to_topic({"GroupId": GROUP, "TopicName": "n"}, RecordRules(derive_ids=False))
    with pytest.raises(ValueError, match="without a TopicId"):
        bench.settle(nameless)


def test_one_call_answers_the_records_of_a_community() -> None:
    bench = Bench()
    topics = [topic(number) for number in range(250)]
    bench.chat.hold(*topics)
    assert bench.settle(*topics) == [Before()] * 250
    assert [len(question.topic_ids) for question in bench.chat.questions] == [100, 100, 50]
    assert bench.comparer.calls == 3


def test_equal_ids_are_asked_for_once() -> None:
    bench = Bench()
    bench.chat.hold(topic(1))
    assert bench.settle(topic(1), topic(1)) == [Before(), Before()]
    assert [question.topic_ids for question in bench.chat.questions] == [[topic(1).topic_id]]


def test_calls_keep_their_budget_and_few_are_open() -> None:
    bench = Bench(calls_per_s=50)
    bench.chat.latency_s = 0.5
    topics = [topic(1, f"{GROUP}{number}") for number in range(200)]
    bench.chat.hold(*topics)
    assert bench.settle(*topics) == [Before()] * 200
    assert bench.chat.most_open == CALLS_OPEN_MAX
    assert most_in_a_second(bench.asked_at_s) <= 50


def test_requests_that_come_while_a_call_waits_for_its_turn_are_in_it() -> None:
    bench = Bench(calls_per_s=1)
    topics = [topic(1, "@TGS#_h"), *(topic(number) for number in range(10))]
    bench.chat.hold(*topics)

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for one in topics:
                group.create_task(bench.comparer.compare(one, in_doubt=False))
                await asyncio.sleep(0.05)

    bench.run(work())
    assert [len(question.topic_ids) for question in bench.chat.questions] == [1, 10]


def test_a_missing_topic_is_asked_for_again_after_a_minute() -> None:
    bench = Bench()

    def appear(question: Question) -> None:
        if question.at_s >= 60:
            bench.chat.hold(topic(1))

    bench.chat.script = appear
    assert bench.settle(topic(1), topic(2)) == [Before(), Conflict(MISSING)]
    assert all(at_s < 1 or at_s >= 60 for at_s in bench.asked_at_s)
    assert bench.loop.time() < 61
    bench = Bench()
    assert bench.settle(topic(1), in_doubt=True) == [Unproven(MISSING)]


MISSING = "the TopicId is in use, but get_topic does not find it"


def test_a_refused_comparison_is_settled_at_once() -> None:
    for in_doubt, kind in ((True, Unproven), (False, Conflict)):
        bench = Bench()
        bench.chat.script = lambda _: NOT_ALLOWED
        (settled,) = bench.settle(topic(1), in_doubt=in_doubt)
        assert isinstance(settled, kind)
        assert len(bench.chat.questions) == 1


@pytest.mark.parametrize("code", [10018, 10010])
def test_a_list_that_is_refused_is_made_smaller(code: int) -> None:
    bench = Bench()
    topics = [topic(number) for number in range(23)]
    bench.chat.hold(*topics)
    bench.chat.script = lambda asked: TopicsReply(200, code) if len(asked.topic_ids) > 10 else None
    assert bench.settle(*topics) == [Before()] * 23
    assert [len(question.topic_ids) for question in bench.chat.questions] == [23, 10, 10, 3]


def test_a_single_topic_that_is_too_large_cannot_be_compared() -> None:
    bench = Bench()
    bench.chat.script = lambda _: TopicsReply(200, 10018, "too large")
    settled = bench.settle(topic(1), topic(2), in_doubt=True)
    assert all(isinstance(one, Unproven) and "too large" in one.reason for one in settled)
    assert [len(question.topic_ids) for question in bench.chat.questions] == [2, 1, 1]


@pytest.mark.parametrize("failure", [FAILED, DOWN, TopicsReply(502, failure="HTTP 502")])
def test_a_passing_failure_is_tried_again_with_growing_pauses(failure: TopicsReply) -> None:
    bench = Bench()
    bench.chat.hold(topic(1))
    bench.chat.script = lambda question: failure if question.at_s < 200 else None
    assert bench.settle(topic(1)) == [Before()]
    pauses = [round(later - sooner, 3) for sooner, later in pairwise(bench.asked_at_s)]
    assert pauses == sorted(pauses)
    assert 0.5 <= pauses[0] <= 1.0
    assert RetryPolicy().max_delay_s / 2 <= pauses[-1] <= RetryPolicy().max_delay_s


def test_a_failing_item_is_tried_again_and_holds_up_no_other() -> None:
    bench = Bench()
    topics = [topic(number) for number in range(3)]
    bench.chat.hold(*topics)
    sick = topics[0].topic_id
    assert sick

    def fail_one(question: Question) -> TopicsReply | None:
        if len(question.topic_ids) > 1:
            return TopicsReply(200, 10018)
        is_sick = question.topic_ids == [sick] and question.at_s < 20
        return TopicsReply(200, 0, item_codes={sick: 10002}) if is_sick else None

    bench.chat.script = fail_one
    assert bench.settle(*topics) == [Before()] * 3
    asked = [question.topic_ids[0] for question in bench.chat.questions[1:]]
    assert asked[:3] == [one.topic_id for one in topics]
    assert len(asked) < 12, "with growing pauses"


def test_a_throttled_call_slows_down_and_is_made_again() -> None:
    bench = Bench(calls_per_s=50)
    bench.chat.hold(topic(1))
    throttled = iter([TopicsReply(200, 60007), TopicsReply(429, failure="HTTP 429")])
    bench.chat.script = lambda _: next(throttled, None)
    assert bench.settle(topic(1)) == [Before()]
    assert len(bench.chat.questions) == 3
    assert min(bench.asked_at_s[1:]) >= 0.5


def test_a_community_that_fails_for_long_cannot_be_compared() -> None:
    bench = Bench(retry=RetryPolicy(patience_s=100.0))
    healthy = topic(1, "@TGS#_healthy")
    bench.chat.hold(healthy)
    bench.chat.script = lambda asked: FAILED if asked.group_id == GROUP else None

    async def work() -> None:
        sick = asyncio.ensure_future(bench.comparer.compare(topic(1), in_doubt=True))
        while not sick.done():
            assert await bench.comparer.compare(healthy, in_doubt=False) == Before()
            await asyncio.sleep(1.0)
        assert isinstance(sick.result(), Unproven)
        assert "failed for 100 s" in str(sick.result())
        assert 100 <= bench.loop.time() <= 100 + RetryPolicy().max_delay_s + 2

    bench.run(work())
    assert len([asked for asked in bench.chat.questions if asked.group_id == GROUP]) <= 12


def test_a_service_that_fails_for_all_gets_few_calls() -> None:
    bench = Bench()
    topics = [topic(1, f"{GROUP}{number}") for number in range(100)]
    bench.chat.hold(*topics)
    bench.chat.script = lambda question: DOWN if question.at_s < 300 else None
    assert bench.settle(*topics) == [Before()] * 100
    failed = [at_s for at_s in bench.asked_at_s if at_s < 300]
    assert len([at_s for at_s in failed if at_s > 10]) <= 20
    assert len(failed) <= 250
    assert bench.asked_at_s[-1] <= 300 + 2 * RetryPolicy().max_delay_s


def test_after_long_failures_of_all_records_are_given_up_soon() -> None:
    bench = Bench(retry=RetryPolicy(patience_s=100.0))
    bench.chat.script = lambda _: FAILED

    async def work() -> None:
        for number in range(50):
            settled = await bench.comparer.compare(topic(1, f"{GROUP}{number}"), in_doubt=False)
            assert isinstance(settled, Conflict)
        assert bench.loop.time() <= 50 * RetryPolicy().max_delay_s

    bench.run(work())


def test_records_of_many_communities_are_given_up_together() -> None:
    bench = Bench(retry=RetryPolicy(patience_s=100.0))
    bench.chat.script = lambda _: DOWN
    topics = [topic(1, f"{GROUP}{number}") for number in range(100)]
    settled = bench.settle(*topics, in_doubt=True)
    assert all(isinstance(one, Unproven) for one in settled)
    assert bench.asked_at_s[-1] <= 100 + 2 * RetryPolicy().max_delay_s


def test_nothing_is_given_up_while_imports_are_held_back() -> None:
    held_until_s = 3600.0
    bench = Bench(retry=RetryPolicy(patience_s=100.0), held_until_s=held_until_s)
    bench.chat.hold(topic(1), topic(2, "@TGS#_h"))
    end_s = held_until_s + 60
    bench.chat.script = lambda question: DOWN if question.at_s < end_s else None
    assert bench.settle(topic(1), topic(2, "@TGS#_h")) == [Before(), Before()]
    assert len(bench.chat.questions) <= 2 * (end_s / (RetryPolicy().max_delay_s / 2) + 10)


@pytest.mark.parametrize("code", [70001, 70003])
def test_a_refused_signature_is_renewed(code: int) -> None:
    bench = Bench()
    bench.chat.hold(topic(1), topic(2, "@TGS#_h"))
    bench.chat.script = lambda question: (
        TopicsReply(200, code) if question.signature.generation == 1 else None
    )
    assert bench.settle(topic(1), topic(2, "@TGS#_h")) == [Before(), Before()]
    assert bench.credentials.generation == 2, "once for both"


def test_a_signature_that_stays_refused_is_not_renewed_for_ever() -> None:
    bench = Bench(retry=RetryPolicy(patience_s=50.0))
    bench.chat.script = lambda _: TopicsReply(200, 70001)
    (settled,) = bench.settle(topic(1))
    assert isinstance(settled, Conflict)
    assert bench.credentials.generation <= 1 + 2 * RENEWALS_MAX, "in little more than a minute"


def test_a_signature_that_cannot_be_renewed_is_waited_for() -> None:
    bench = Bench()
    bench.credentials.can_renew = False
    bench.chat.hold(topic(1))
    bench.chat.script = lambda question: TopicsReply(200, 70001) if question.at_s < 30 else None
    assert bench.settle(topic(1)) == [Before()]


def test_a_cancelled_call_is_made_by_the_next_record() -> None:
    bench = Bench()
    topics = [topic(number) for number in range(4)]
    bench.chat.hold(*topics)
    bench.chat.latency_s = 1.0

    async def work() -> None:
        tasks = [
            asyncio.ensure_future(bench.comparer.compare(one, in_doubt=False)) for one in topics
        ]
        await asyncio.sleep(0.5)
        tasks[0].cancel()
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results[:2]] == [asyncio.CancelledError] * 2
        assert results[2:] == [Before(), Before()]

    bench.run(work())
    assert [len(question.topic_ids) for question in bench.chat.questions] == [4, 2]


@pytest.mark.parametrize("cancel_at_s", [0.0, 0.01, 0.06, 1.0, 30.0, 60.01])
def test_a_cancelled_comparison_leaves_nothing_behind(cancel_at_s: float) -> None:
    bench = Bench(calls_per_s=10)
    groups = [f"{GROUP}{number}" for number in range(5)]
    bench.chat.script = lambda question: DOWN if question.group_id == groups[0] else None

    async def work() -> None:
        tasks = [
            asyncio.ensure_future(bench.comparer.compare(topic(number, group), in_doubt=True))
            for group in groups
            for number in range(20)
        ]
        await asyncio.sleep(cancel_at_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)

    bench.run(work())
    assert bench.comparer.comparing == 0
    assert "0 in 0 communities" in repr(bench.comparer)


def test_random_cancellations_hold_up_no_other_record() -> None:
    for seed in range(30):
        _random_cancellations(seed)


def _random_cancellations(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench(calls_per_s=chance.choice([0, 5, 50]))
    topics = [topic(number, f"{GROUP}{number % 4}") for number in range(120)]
    bench.chat.hold(*topics)
    bench.chat.script = lambda _: chance.choice([None, None, FAILED, TopicsReply(200, 10018)])

    async def work() -> None:
        tasks = []
        for one in topics:
            tasks.append(asyncio.ensure_future(bench.comparer.compare(one, in_doubt=True)))
            await asyncio.sleep(chance.choice([0, 0, 0.02]))
            if chance.random() < 0.3:
                chance.choice(tasks).cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            assert isinstance(result, Own | Unproven | asyncio.CancelledError)

    bench.run(work())
    assert "0 in 0 communities" in repr(bench.comparer)
