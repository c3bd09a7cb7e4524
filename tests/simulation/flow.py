"""One schedule of the whole flow from a seed: faults, outages, stops, crashes and restarts.

Pipeline, delivery, limits, verdicts and credentials are the real ones, the service is the
simulator's pure behaviour, the queue is in memory, the clock is virtual.

    python -m tests.simulation.flow SEED    # repeats one schedule and prints what came of it
"""

import asyncio
import random
import sys
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import orjson
from yarl import URL

from tests.support.memory_queue import MemoryQueue
from tests.support.virtual_clock import VirtualLoop
from worker.chat import Endpoint, ImportTopicClient, read_reply
from worker.credentials import SigningCredentials
from worker.delivery import Carrier
from worker.limits import Limits
from worker.pipeline import Bounds, Pipeline
from worker.quota.local import LocalQuota
from worker.rules.breaker import OUTAGE_RECORDS
from worker.rules.communities import EXHAUSTED_TOGETHER
from worker.rules.counts import Counters
from worker.rules.health import Health
from worker.rules.outcome import Already, DeadLetter, Imported, Reason
from worker.rules.retry import RetryPolicy
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import RecordRules, Topic, to_topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Reply
from worker.simulator.behaviour import Answer, Call, Rules, Service
from worker.traffic import Traffic

APP, ADMIN, KEY = 1400000000, "administrator", "k" * 64
WALL_S = 1_700_000_000.0
VIRTUAL_DAY_S = 86_400.0
PROCESSES_MAX = 50
OUTAGE_KINDS = ("refused", "bad gateway", "cut", "internal error")
FAULTS = (
    "10002", "80005", "60008", "60014", "60007", "60011", "70001", "70003", "502", "html",
    "empty", "truncated", "reset-before", "reset-after", "hang",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All that a seed decides."""

    records: list[dict[str, Any]]
    existing: frozenset[int]
    faults: dict[str, float]
    quota_per_s: int
    slots: int
    latency_s: float
    timeout_s: float
    outages: list[tuple[float, float, str]]
    ends: list[tuple[float, str]]
    retry: RetryPolicy
    bounds: Bounds
    clock_jumps: list[tuple[float, float]]


def plan(seed: int) -> Plan:
    """Draw a schedule."""
    chance = random.Random(seed)
    count = chance.choice([1, 2, 10, 40, 80])
    kinds = chance.sample(FAULTS, chance.randint(0, 4))
    quota = chance.choice([0, 3, 20, 60, 200])
    span_s = count / (quota or 200) + 2.0
    waiting = chance.choice([1, 4, 100])
    return Plan(
        records=[_record(number, chance) for number in range(count)],
        existing=frozenset(n for n in range(count) if chance.random() < 0.05),
        faults={kind: chance.uniform(0, 0.4 / max(1, len(kinds))) for kind in kinds},
        quota_per_s=quota,
        slots=chance.choice([1, 3, 50]),
        latency_s=chance.choice([0.0, 0.01, 0.5]),
        timeout_s=chance.choice([1.0, 10.0]),
        outages=[
            (begin, begin + chance.choice([1.0, 40.0, 1000.0]), chance.choice(OUTAGE_KINDS))
            for begin in [chance.uniform(0, span_s) for _ in range(chance.choice([0, 0, 1, 2]))]
        ],
        ends=sorted(
            (chance.uniform(0, 2 * span_s), chance.choice(["crash", "stop", "stop now"]))
            for _ in range(chance.choice([0, 1, 1, 3]))
        ),
        retry=RetryPolicy(max_attempts=chance.choice([3, 8])),
        bounds=Bounds(waiting_max=waiting, backing_off_max=chance.choice([2, 1000])),
        clock_jumps=[
            (chance.uniform(0, span_s), chance.choice([-3600.0, 3600.0]))
            for _ in range(chance.choice([0, 0, 1]))
        ],
    )


def _record(number: int, chance: random.Random) -> dict[str, Any]:
    group = f"@TGS#_g{chance.randint(0, 3)}"
    if chance.random() < 0.05:
        group = "@TGS#_missing"
    record: dict[str, Any] = {"GroupId": group, "TopicName": f"topic {number}"}
    if chance.random() < 0.5:
        record["TopicId"] = f"{group}@TOPIC#_own-{number}"
    return record


OUTAGES = {
    "refused": Reply(failure="cannot connect"),
    "bad gateway": Reply(status=502, failure="HTTP 502", may_have_taken_effect=True),
    "cut": Reply(failure="the connection was cut", may_have_taken_effect=True),
    "internal error": Reply(status=200, code=10002),
}


class Network:
    """Carries calls to the service, with latency, outages and faults; outlives its callers."""

    def __init__(self, schedule: Plan, chance: random.Random) -> None:
        self._schedule = schedule
        self._chance = chance
        self._on_the_way: list[Call] = []
        self.service = Service(
            Rules(APP, ADMIN, KEY, quota_per_s=0, faults=schedule.faults), chance
        )
        self.starts: deque[float] = deque()
        self.most_in_a_second = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self._client = ImportTopicClient(
            Endpoint("http://service", "v4/group_open_http_svc/import_topic", APP, ADMIN),
            chance=chance.randint,
        )

    def wall(self) -> float:
        return self.wall_at(asyncio.get_running_loop().time())

    def wall_at(self, now_s: float) -> float:
        jumps = sum(by_s for at_s, by_s in self._schedule.clock_jumps if now_s >= at_s)
        return WALL_S + now_s + jumps

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        now_s = asyncio.get_running_loop().time()
        self._count_start(now_s)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            for begin, end, kind in self._schedule.outages:
                if begin <= now_s < end:
                    await asyncio.sleep(self._chance.uniform(0, self._schedule.latency_s))
                    return OUTAGES[kind]
            async with asyncio.timeout(self._schedule.timeout_s):
                return await self._carry(body, signature)
        except TimeoutError:
            return Reply(failure="no answer in time", may_have_taken_effect=True)
        finally:
            self.in_flight -= 1

    async def _carry(self, body: bytes, signature: Signature) -> Reply:
        url = URL(self._client.target(signature), encoded=True)
        call = Call("POST", url.path, url.query, body)
        self._on_the_way.append(call)
        await asyncio.sleep(self._chance.uniform(0, self._schedule.latency_s))
        self._on_the_way.remove(call)
        now_s = asyncio.get_running_loop().time()
        answer = self.service.answer(call, now_s, WALL_S + now_s)
        await asyncio.sleep(self._chance.uniform(0, self._schedule.latency_s))
        return await reply_to(answer)

    def crash(self) -> None:
        """Let calls arrive whose caller is dead, or get lost."""
        for call in self._on_the_way:
            if self._chance.random() < 0.5:
                self.service.answer(call, 0.0, WALL_S)
        self._on_the_way.clear()
        self.in_flight = 0

    def _count_start(self, now_s: float) -> None:
        self.starts.append(now_s)
        while self.starts[0] <= now_s - 1.0:
            self.starts.popleft()
        self.most_in_a_second = max(self.most_in_a_second, len(self.starts))


async def reply_to(answer: Answer) -> Reply:
    content = orjson.dumps(answer.body)
    match answer.fault:
        case None:
            return read_reply(200, content)
        case "502":
            return read_reply(502, b"<html>")
        case "html":
            return read_reply(200, b"<html>")
        case "empty":
            return read_reply(200, b"")
        case "hang":
            await asyncio.sleep(VIRTUAL_DAY_S)
        case _:
            pass
    return Reply(failure="the connection was cut", may_have_taken_effect=True)


@dataclass
class Story:
    """What came of a schedule."""

    seed: int
    queue: MemoryQueue
    network: Network
    schedule: Plan
    counters: list[Counters] = field(default_factory=list)
    halts: list[str] = field(default_factory=list)
    ended_s: float = 0.0

    @property
    def trace(self) -> tuple[Any, ...]:
        """Everything that equal seeds must have in common."""
        return (self.ended_s, self.queue.outcomes, self.network.service.ledger.as_dict())


def play(seed: int) -> Story:
    """Play a schedule to its end, through all its processes."""
    schedule = plan(seed)
    chance = random.Random(seed + 1)
    queue = MemoryQueue()
    network = Network(schedule, chance)
    story = Story(seed, queue, network, schedule)
    topics = [to_topic(record, RecordRules()) for record in schedule.records]
    for number in sorted(schedule.existing):
        topic_id = topics[number].topic_id
        if topic_id and "missing" not in topic_id:
            network.service.ledger.topics[topic_id] = {"TopicId": topic_id, "before": True}
    ends = [*schedule.ends]
    feed = deque(topics)
    for number in range(len(schedule.ends) + PROCESSES_MAX):
        end = ends.pop(0) if ends else (float("inf"), "")
        process = Process(story, feed, end, chance, is_first=number == 0)
        process.run()
        story.ended_s = process.loop.time() + 0.5
        if not queue.unsettled and not feed:
            return story
    raise AssertionError(f"not done after many processes: {story.halts}")


class Process:
    """One process of the worker, from its start to its end or its crash."""

    def __init__(
        self,
        story: Story,
        feed: deque[Topic],
        end: tuple[float, str],
        chance: random.Random,
        *,
        is_first: bool,
    ) -> None:
        self.loop = VirtualLoop(story.ended_s)
        self._story = story
        self._feed = feed
        self._end_s, self._end = end
        self._chance = chance
        schedule, network, queue = story.schedule, story.network, story.queue
        queue.recover()
        clock = self.loop.time
        quota = LocalQuota(schedule.quota_per_s, clock, closed_for_s=0.0 if is_first else 1.0)
        self._counters = Counters()
        self._traffic = Traffic()
        health = Health(
            schedule.retry,
            same_rejection=1000,
            anything_imported=any(isinstance(o, Imported) for o in queue.outcomes.values()),
        )
        self._carrier = Carrier(
            chat=network,
            credentials=SigningCredentials(
                APP, ADMIN, KEY, wall_clock=lambda: network.wall_at(clock()), clock=clock
            ),
            limits=Limits(quota, schedule.slots, clock, health.breaker),
            traffic=self._traffic,
            health=health,
            retry=schedule.retry,
            counters=self._counters,
            clock=clock,
            wall_clock=network.wall,
            chance=chance.random,
        )

    def run(self) -> None:
        finished = self.loop.run_until_complete(self._live())
        if not finished:
            assert self._end == "crash", f"still running: {self._story.queue.unsettled} unsettled"
            self._kill()
        self.loop.close()
        self._story.counters.append(self._counters)
        if self._carrier.halted:
            halted = self._carrier.halted
            self._story.halts.append(f"{halted.code}: {halted.message}")

    async def _live(self) -> bool:
        task = asyncio.ensure_future(self._work())
        left_s = self._end_s - self.loop.time() if self._end == "crash" else VIRTUAL_DAY_S
        done, _ = await asyncio.wait([task], timeout=max(0.0, left_s))
        if done:
            task.result()
        return bool(done)

    async def _work(self) -> None:
        pipeline = Pipeline(
            self._story.queue, self._carrier, self._traffic, self._story.schedule.bounds
        )
        feeder = asyncio.ensure_future(self._feed_all(pipeline))
        if self._end == "stop":
            self.loop.call_at(self._end_s, self._carrier.stop)
        elif self._end == "stop now":
            self.loop.call_at(self._end_s, pipeline.abandon)
        await pipeline.run(lambda: not feeder.done())
        feeder.cancel()

    async def _feed_all(self, pipeline: Pipeline) -> None:
        while self._feed:
            await asyncio.sleep(self._chance.choice([0.0, 0.001, 0.1]))
            for _ in range(min(len(self._feed), self._chance.randint(1, 30))):
                self._story.queue.put(self._feed.popleft())
            pipeline.queue_was_fed()
        self.loop.call_soon(pipeline.queue_was_fed)

    def _kill(self) -> None:
        """End all tasks where they stand; nothing that they still want to commit is committed."""
        self._story.network.crash()
        self._story.queue.is_dead = True
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._story.queue.is_dead = False


def check(story: Story) -> None:
    """Hold a story against the promises."""
    queue, network, schedule = story.queue, story.network, story.schedule
    ledger = network.service.ledger
    assert queue.outcomes.keys() == queue.topics.keys(), "every record has one outcome"
    made = {t for t, topic in ledger.topics.items() if "before" not in topic}
    imported = {
        queue.topics[record].topic_id
        for record, outcome in queue.outcomes.items()
        if isinstance(outcome, Imported)
    }
    assert imported <= ledger.topics.keys(), "what is said to be imported exists"
    for record, outcome in queue.outcomes.items():
        topic = queue.topics[record]
        if isinstance(outcome, DeadLetter):
            _check_dead(outcome, topic.topic_id, made, schedule)
        elif outcome.already is Already.UNPROVEN:
            assert topic.origin is Origin.GIVEN, "a derived TopicId proves whose topic it is"
            assert outcome.history.may_exist, "nothing hints at its own doing"
        elif outcome.already is Already.BEFORE:
            assert topic.origin is Origin.DERIVED
            assert topic.topic_id not in made, "its own doing was taken for another's"
        elif outcome.already is Already.OWN:
            assert topic.origin is Origin.DERIVED, "a given TopicId proves nothing"
            assert outcome.history.may_exist
        elif topic.topic_id not in made:
            assert outcome.history.may_exist, "another's doing was taken for its own"
    _check_outages(story)
    if schedule.quota_per_s:
        assert network.most_in_a_second <= schedule.quota_per_s
    assert network.most_in_flight <= schedule.slots
    calls = sum(counters.calls for counters in story.counters)
    assert calls >= ledger.calls - sum(end == "crash" for _, end in schedule.ends)


def _check_outages(story: Story) -> None:
    """In an outage nobody's attempts run out; so few that it cannot be told may be given up.

    One in which no call arrives anywhere speaks against no record at all.
    """
    if story.schedule.faults:
        return
    exhausted = sum(
        isinstance(o, DeadLetter) and o.reason is Reason.EXHAUSTED
        for o in story.queue.outcomes.values()
    )
    could_arrive = any(kind != "refused" for _, _, kind in story.schedule.outages)
    assert exhausted < (OUTAGE_RECORDS if could_arrive else 1), "an outage dead-lettered records"


def _check_dead(letter: DeadLetter, topic_id: str | None, made: set[str], schedule: Plan) -> None:
    if topic_id in made:
        assert letter.history.may_exist, "a dead letter exists and does not say so"
    if letter.reason is Reason.EXHAUSTED and EXHAUSTED_TOGETHER not in letter.message:
        assert letter.history.attempts >= schedule.retry.max_attempts
    if letter.reason is Reason.CONFLICT:
        assert topic_id not in made, "a topic of its own was taken for a conflict"


def main() -> None:
    for seed in map(int, sys.argv[1:]):
        story = play(seed)
        outcomes = Counter(
            outcome.reason.value if isinstance(outcome, DeadLetter) else outcome.already.value
            for outcome in story.queue.outcomes.values()
        )
        print(story.schedule)  # noqa: T201
        print(f"seed {seed}: {dict(outcomes)}, {story.counters}, {story.halts}")  # noqa: T201
        check(story)


if __name__ == "__main__":
    main()
