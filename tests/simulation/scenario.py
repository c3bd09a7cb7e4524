"""A service described by data, and what the worker makes of it, on the virtual clock.

Pipeline, delivery, limits, pace and breaker are the real ones; the service is the simulator's
behaviour behind a network that has the troubles that a file names.

    python -m tests.simulation.scenario tests/simulation/scenarios/*.toml    # prints the figures
"""

import asyncio
import random
import sys
import tomllib
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarl import URL

from tests.simulation.flow import ADMIN, APP, KEY, VIRTUAL_DAY_S, WALL_S, reply_to
from tests.support.memory_queue import MemoryQueue
from tests.support.virtual_clock import VirtualLoop
from worker.chat import Endpoint, ImportTopicClient
from worker.credentials import SigningCredentials
from worker.delivery import Carrier
from worker.limits import Limits
from worker.logs import configure
from worker.pipeline import Bounds, Pipeline
from worker.quota.local import LocalQuota
from worker.rules.counts import Counters
from worker.rules.health import Health
from worker.rules.outcome import DeadLetter
from worker.rules.retry import RetryPolicy
from worker.rules.topic.topic import RecordRules, to_topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Reply
from worker.simulator.behaviour import Call, Rules, Service
from worker.traffic import Traffic

ENDPOINT = Endpoint("http://service", "v4/group_open_http_svc/import_topic", APP, ADMIN)
TOTAL_TIMEOUT_S = 10.0
FULL_RATE = 0.9
"""Share of the quota in a second from which it counts as the full rate."""


@dataclass(frozen=True)
class Outage:
    """From when to when the service fails, and how."""

    from_s: float
    to_s: float
    kind: str
    share: float = 1.0
    every_community: int = 1
    from_community: int = 0

    def hits(self, body: bytes, chance: random.Random) -> bool:
        """Return whether it hits a call: a share of those for every so many communities."""
        community = int(body.split(b"@TGS#_g")[1].split(b'"')[0].split(b"@")[0])
        if community < self.from_community or community % self.every_community:
            return False
        return self.share >= 1.0 or chance.random() < self.share


@dataclass(frozen=True)
class Bad:
    """Records that always fail: every so many of a range, and how."""

    from_record: int
    to_record: int
    kind: str
    every: int = 1

    def is_bad(self, body: bytes) -> bool:
        number = int(body.split(b'"topic ')[1].split(b'"')[0])
        return self.from_record <= number < self.to_record and number % self.every == 0


@dataclass(frozen=True)
class Description:
    """A service: times in seconds, shares in [0, 1].

    `jitter_s`: a call arrives later by up to so much. `tail_s`: every hundredth answer takes so
    long. `capacity_per_s`: beyond it answers queue up (the knee). `slow_start_s`: the first answers
    come no sooner. `other_per_s`: calls of another client from `other_from_s` to `other_to_s`.
    `a_day`: topics until the service answers 10006. `counts_refused`: against the quota.
    """

    quota_per_s: int = 200
    latency_s: float = 0.05
    jitter_s: float = 0.0
    tail_s: float = 0.0
    capacity_per_s: float = 0.0
    slow_start_s: float = 0.0
    other_per_s: float = 0.0
    other_from_s: float = 0.0
    other_to_s: float = float("inf")
    a_day: int = 0
    counts_refused: bool = False
    always: int = 0
    faults: dict[str, float] = field(default_factory=dict)
    outages: tuple[Outage, ...] = ()
    bad: Bad | None = None


@dataclass(frozen=True)
class Job:
    """What the worker is given."""

    records: int = 4000
    calls_per_s: float = 200.0
    slots: int = 1000
    max_attempts: int = 8
    stop_after_s: float = float("inf")
    seed: int = 1
    communities: int = 7
    sorted: bool = False

    def record(self, number: int) -> dict[str, Any]:
        """Return a record; sorted as exports are, or one community after the other."""
        if self.sorted:
            community = number * self.communities // self.records
        else:
            community = number % self.communities
        return {"GroupId": f"@TGS#_g{community}", "TopicName": f"topic {number}"}


class CountingService(Service):
    """One that counts the calls which it refuses, too: who goes on calling is let through later."""

    def _refuse_frequency(self, now_s: float) -> tuple[int, str] | None:
        refusal = super()._refuse_frequency(now_s)
        if refusal:
            self._allowed.append(now_s)
        return refusal


class Network:
    """Carries the worker's calls to the described service."""

    def __init__(self, service: Description, chance: random.Random) -> None:
        self._described = service
        self._chance = chance
        kind = CountingService if service.counts_refused else Service
        self._service = kind(
            Rules(APP, ADMIN, KEY, service.quota_per_s, faults=service.faults), chance
        )
        self._client = ImportTopicClient(ENDPOINT, chance=chance.randint)
        self._free_at_s = 0.0
        self.starts: list[float] = []
        self.accepted: list[float] = []
        self.others = Counter[str]()
        self.in_flight = self.most_in_flight = 0
        self.open_at_outage: dict[Outage, int] = {}
        self.called_in_outage = Counter[Outage]()

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        now_s = asyncio.get_running_loop().time()
        self.starts.append(now_s)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT_S):
                return await self._answer(body, signature, now_s)
        except TimeoutError:
            return Reply(failure="no answer in time", may_have_taken_effect=True)
        finally:
            self.in_flight -= 1

    async def _answer(self, body: bytes, signature: Signature, now_s: float) -> Reply:
        described = self._described
        outage = next(
            (
                o
                for o in described.outages
                if o.from_s <= now_s < o.to_s and o.hits(body, self._chance)
            ),
            None,
        )
        if outage:
            self.open_at_outage.setdefault(outage, self.in_flight - 1)
            self.called_in_outage[outage] += 1
            return await self._fail(outage.kind)
        if described.bad and described.bad.is_bad(body):
            return await self._fail(described.bad.kind)
        if described.jitter_s:
            await asyncio.sleep(self._chance.uniform(0, described.jitter_s))
        loop = asyncio.get_running_loop()
        url = URL(self._client.target(signature), encoded=True)
        call = Call("POST", url.path, url.query, body)
        await asyncio.sleep(described.latency_s / 2)
        if described.always or 0 < described.a_day <= len(self.accepted):
            await asyncio.sleep(described.latency_s / 2)
            return Reply(status=200, code=described.always or 10006)
        arrived_s = loop.time()
        answer = self._service.answer(call, arrived_s, WALL_S + arrived_s)
        if answer.body["ErrorCode"] == 0 and not answer.fault:
            self.accepted.append(arrived_s)
        await asyncio.sleep(self._time_to_answer(arrived_s))
        return await reply_to(answer)

    def _time_to_answer(self, arrived_s: float) -> float:
        described = self._described
        wait_s = described.latency_s / 2
        if described.tail_s and self._chance.random() < 0.01:
            wait_s = described.tail_s
        if described.capacity_per_s:
            self._free_at_s = max(self._free_at_s, arrived_s) + 1 / described.capacity_per_s
            wait_s += self._free_at_s - arrived_s
        return max(wait_s, described.slow_start_s - arrived_s)

    async def _fail(self, kind: str) -> Reply:
        latency_s = self._described.latency_s
        match kind:
            case "refused":
                return Reply(failure="cannot connect")
            case "cut":
                await asyncio.sleep(latency_s)
                return Reply(failure="the connection was cut", may_have_taken_effect=True)
            case "bad gateway":
                await asyncio.sleep(latency_s)
                return Reply(status=502, failure="HTTP 502", may_have_taken_effect=True)
            case "hang":
                await asyncio.sleep(VIRTUAL_DAY_S)
                raise AssertionError
            case code:
                await asyncio.sleep(latency_s)
                return Reply(status=200, code=int(code))

    async def be_another_client(self, credentials: SigningCredentials) -> None:
        """Call evenly, as a client that knows of nobody else."""
        described, loop = self._described, asyncio.get_running_loop()
        if not described.other_per_s:
            return
        await asyncio.sleep(described.other_from_s)
        due_s = loop.time()
        while due_s < described.other_to_s:
            url = URL(self._client.target(credentials.current()), encoded=True)
            call = Call("POST", url.path, url.query, b"{}")
            answer = self._service.answer(call, loop.time(), WALL_S + loop.time())
            if loop.time() >= 20.0:
                self.others["refused" if answer.body["ErrorCode"] == 60007 else "passed"] += 1
            due_s += 1 / described.other_per_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))


@dataclass
class Result:
    """What came of a scenario."""

    service: Description
    job: Job
    network: Network
    queue: MemoryQueue
    counters: Counters
    seconds: float
    halted: int | str | None

    def figures(self) -> dict[str, float]:
        """All that a file may set ranges for."""
        dead = [o for o in self.queue.outcomes.values() if isinstance(o, DeadLetter)]
        calls = self.counters.calls
        least_s = calls / self.service.quota_per_s
        others = self.network.others
        figures = {
            "seconds": self.seconds,
            "calls": calls,
            "imported": len(self.queue.outcomes) - len(dead),
            "dead": len(dead),
            "queued": self.queue.unsettled,
            "throttled": self.counters.throttled / calls,
            "wasted_calls": calls - len(self.queue.outcomes),
            "most_in_flight": self.network.most_in_flight,
            "most_in_a_second": _most_in_a_second(self.network.starts),
            "duration_over_least": self.seconds / least_s,
            "quota_used": self._used(0.0, self.seconds, 0.0),
            "quota_used_50": self._used(1.0, 50.0, 0.0),
            "first_import_s": self.network.accepted[0] if self.network.accepted else self.seconds,
            "rest_used": self._used(20.0, self.seconds, self.service.other_per_s),
            "others_lost": others["refused"] / max(1, others.total()),
            "halted": self.halted if isinstance(self.halted, int) else int(self.halted is not None),
        }
        for outage in self.service.outages:
            figures["wasted_in_outage"] = max(
                figures.get("wasted_in_outage", 0.0), self._wasted_in(outage)
            )
            figures["back_after_s"] = max(
                figures.get("back_after_s", 0.0), self._back_after(outage)
            )
        return figures

    def _used(self, from_s: float, to_s: float, others_per_s: float) -> float:
        accepted = sum(from_s <= at < to_s for at in self.network.accepted)
        return accepted / max(1e-9, (to_s - from_s) * (self.service.quota_per_s - others_per_s))

    def _wasted_in(self, outage: Outage) -> float:
        """Calls in an outage beyond one a second and what was in flight when it began."""
        called = self.network.called_in_outage[outage]
        return called - (outage.to_s - outage.from_s) - self.network.open_at_outage.get(outage, 0)

    def _back_after(self, outage: Outage) -> float:
        """Seconds from the end of an outage to the begin of the first second at full rate."""
        starts = [at for at in self.network.starts if at >= outage.to_s]
        enough = int(FULL_RATE * self.service.quota_per_s)
        for first, last in zip(starts, starts[enough - 1 :], strict=False):
            if last - first <= 1.0:
                return first - outage.to_s
        return 0.0 if len(starts) < enough else float("inf")


def _most_in_a_second(starts: list[float]) -> int:
    window: deque[float] = deque()
    most = 0
    for at in starts:
        window.append(at)
        while window[0] <= at - 1.0:
            window.popleft()
        most = max(most, len(window))
    return most


def play(service: Description, job: Job) -> Result:
    """Play a scenario to its end."""
    loop = VirtualLoop()
    chance = random.Random(job.seed)
    network, queue, counters = Network(service, chance), MemoryQueue(), Counters()
    for number in range(job.records):
        queue.put(to_topic(job.record(number), RecordRules()))
    credentials = SigningCredentials(
        APP, ADMIN, KEY, wall_clock=lambda: WALL_S + loop.time(), clock=loop.time
    )
    retry = RetryPolicy(max_attempts=job.max_attempts)
    health, traffic = Health(retry, same_rejection=1000), Traffic()
    carrier = Carrier(
        chat=network,
        credentials=credentials,
        limits=Limits(LocalQuota(job.calls_per_s, loop.time), job.slots, loop.time, health.breaker),
        traffic=traffic,
        health=health,
        retry=retry,
        counters=counters,
        clock=loop.time,
        wall_clock=lambda: WALL_S + loop.time(),
        chance=chance.random,
    )

    async def story() -> float:
        other = asyncio.ensure_future(network.be_another_client(credentials))
        if job.stop_after_s < float("inf"):
            loop.call_later(job.stop_after_s, carrier.stop)
        await Pipeline(queue, carrier, traffic, Bounds(waiting_max=20)).run(lambda: False)
        other.cancel()
        await asyncio.wait([other])
        return loop.time()

    try:
        seconds = loop.run_until_complete(story())
    finally:
        loop.close()
    halted = carrier.halted.code if carrier.halted else None
    return Result(service, job, network, queue, counters, seconds, halted)


@dataclass(frozen=True)
class Scenario:
    """A file: its title, the service, the job, and the ranges of what must come of it."""

    title: str
    service: Description
    job: Job
    expect: dict[str, tuple[float, float]]


def read(path: Path) -> Scenario:
    """Read a file; a name that does not exist is an error."""
    content: dict[str, Any] = tomllib.loads(path.read_text())
    described = content.pop("service", {})
    outages = tuple(Outage(**outage) for outage in described.pop("outages", []))
    bad = Bad(**described.pop("bad")) if "bad" in described else None
    return Scenario(
        title=content.pop("title"),
        service=Description(**described, outages=outages, bad=bad),
        job=Job(**content.pop("job", {})),
        expect={name: (low, high) for name, (low, high) in content.pop("expect").items()},
    )


def misses(scenario: Scenario, figures: dict[str, float]) -> list[str]:
    """Say which figures lie outside their ranges."""
    return [
        f"{name} is {figures[name]:.4g}, not in [{low:g}, {high:g}]"
        for name, (low, high) in scenario.expect.items()
        if not low <= figures[name] <= high
    ]


def main() -> None:
    configure(level="error")
    for name in sys.argv[1:]:
        scenario = read(Path(name))
        figures = play(scenario.service, scenario.job).figures()
        print(f"{Path(name).stem}: {scenario.title}")  # noqa: T201
        shown = ", ".join(f"{key} {figures[key]:.4g}" for key in scenario.expect)
        print(f"    {shown}")  # noqa: T201
        for miss in misses(scenario, figures):
            print(f"    MISSED: {miss}")  # noqa: T201


if __name__ == "__main__":
    main()
