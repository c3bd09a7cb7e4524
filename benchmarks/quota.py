"""`make bench-quota`: how much of a quota is used and how often it is exceeded, on real sockets.

Compares our pipeline with common limiters. All use the same HTTP client and the same simulator in
its own process, which counts every rolling second. A refused call is repeated until it succeeds, by
the peers through their own limiter. Then the whole command, start-up included, is measured against
services that are slow or fail now and then.

Writes the tables into `docs/quota.md`.
"""

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiolimiter import AsyncLimiter

from benchmarks.demo import KEY, LISTENING, PROGRAM
from worker.chat import Endpoint, ImportTopicClient
from worker.credentials import SigningCredentials
from worker.delivery import Carrier
from worker.limits import Limits
from worker.logs import configure
from worker.pipeline import Bounds, Pipeline
from worker.quota.local import LocalQuota
from worker.rules.counts import Counters
from worker.rules.health import Health
from worker.rules.outcome import Delivery, History, Imported, Outcome
from worker.rules.retry import RetryPolicy
from worker.rules.topic.topic import RecordRules, Topic, to_topic
from worker.traffic import Traffic

APP, ADMIN = 1400000000, "administrator"
SECONDS = 10
QUOTAS = (200, 2000)
JITTERS_S = (0.0, 0.05)
LATENCY_S = 0.02
TASKS = 100
TABLE = Path("docs/quota.md")


@dataclass(frozen=True, slots=True)
class Service:
    """The simulated service of one run."""

    url: str
    key: str

    def ledger(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/ledger", timeout=60) as answer:  # noqa: S310
            ledger: dict[str, Any] = orjson.loads(answer.read())
        return ledger


@contextmanager
def simulator(*options: object) -> Iterator[Service]:
    command = [*PROGRAM, "simulate", "--port", "0", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = LISTENING.search(process.stdout.readline())
            key = KEY.search(process.stdout.readline())
            assert url is not None
            assert key is not None
            yield Service(url[1], key[1])
        finally:
            process.terminate()


Post = Callable[[Topic], Awaitable[bool]]
Contender = Callable[[Service, list[Topic], int], Coroutine[Any, Any, None]]


def _client(service: Service) -> ImportTopicClient:
    return ImportTopicClient(
        Endpoint(service.url, "v4/group_open_http_svc/import_topic", APP, ADMIN)
    )


def _credentials(service: Service) -> SigningCredentials:
    clock = asyncio.get_running_loop().time
    return SigningCredentials(APP, ADMIN, service.key, wall_clock=time.time, clock=clock)


class FleetingQueue:
    """A queue that stores nothing, because the peers store nothing either."""

    def __init__(self, topics: list[Topic]) -> None:
        self._waiting = iter(enumerate(topics))
        self.imported = 0
        self.is_drained = False

    async def take(self, count: int, *, without: frozenset[str] = frozenset()) -> list[Delivery]:
        assert not without, "every community of the simulator is well"
        taken = [Delivery(n, topic, History()) for n, topic in islice(self._waiting, count)]
        self.is_drained = len(taken) < count
        return taken

    async def take_of(self, group_id: str, count: int) -> list[Delivery]:
        raise AssertionError(group_id, count)

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        self.imported += sum(isinstance(outcome, Imported) for outcome in outcomes)
        return outcomes


async def ours(service: Service, topics: list[Topic], quota_per_s: int) -> None:
    clock = asyncio.get_running_loop().time
    queue, retry, traffic = FleetingQueue(topics), RetryPolicy(), Traffic()
    health = Health(retry)
    async with _client(service) as chat:
        carrier = Carrier(
            chat=chat,
            credentials=_credentials(service),
            limits=Limits(LocalQuota(quota_per_s, clock), 1000, clock, health.breaker),
            traffic=traffic,
            health=health,
            retry=retry,
            counters=Counters(),
            clock=clock,
            wall_clock=time.time,
        )
        await Pipeline(queue, carrier, traffic, Bounds(waiting_max=100)).run(lambda: False)
    assert queue.imported == len(topics), carrier.halted


async def _with_tasks(
    service: Service,
    topics: list[Topic],
    tasks: int,
    turn: Callable[[Post, Topic], Awaitable[bool]],
) -> None:
    """Import all topics with so many tasks.

    `turn` waits until it may call, makes one attempt, and returns whether it succeeded.
    """
    waiting = iter(topics)
    async with _client(service) as chat:
        signature = _credentials(service).current()

        async def post(topic: Topic) -> bool:
            return (await chat.import_topic(topic.body, signature)).code == 0

        async def work() -> None:
            for topic in waiting:
                while not await turn(post, topic):
                    pass

        await asyncio.gather(*(work() for _ in range(tasks)))


def limited_by(make: Callable[[int], AsyncLimiter]) -> Contender:
    async def contender(service: Service, topics: list[Topic], quota_per_s: int) -> None:
        limiter = make(quota_per_s)

        async def turn(post: Post, topic: Topic) -> bool:
            async with limiter:
                return await post(topic)

        await _with_tasks(service, topics, TASKS * quota_per_s // 200, turn)

    return contender


async def semaphore_and_sleep(service: Service, topics: list[Topic], quota_per_s: int) -> None:
    async def turn(post: Post, topic: Topic) -> bool:
        succeeded = await post(topic)
        await asyncio.sleep(1.0)
        return succeeded

    await _with_tasks(service, topics, quota_per_s, turn)


CONTENDERS: dict[str, Contender] = {
    "topic-import": ours,
    "`AsyncLimiter(quota, 1)`": limited_by(lambda quota: AsyncLimiter(quota, 1)),
    "`AsyncLimiter(1, 1/quota)`": limited_by(lambda quota: AsyncLimiter(1, 1 / quota)),
    "`Semaphore(quota)` and `sleep(1)`": semaphore_and_sleep,
}


def measure(contender: Contender, quota_per_s: int, jitter_s: float) -> tuple[str, ...]:
    topics = [
        to_topic({"GroupId": f"@TGS#_g{n % 20}", "TopicName": f"topic {n}"}, RecordRules())
        for n in range(quota_per_s * SECONDS)
    ]
    options = ("--quota", quota_per_s, "--latency", LATENCY_S, "--jitter", jitter_s)
    # Collecting the objects of the benchmark itself must not slow a contender down.
    gc.collect()
    gc.freeze()
    with simulator(*options) as service:
        started_s = time.perf_counter()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(contender(service, topics, quota_per_s))
        seconds = time.perf_counter() - started_s
        ledger = service.ledger()
    assert ledger["created"] == len(topics)
    throttled = ledger["answers"].get("60007", 0)
    return (
        f"{len(topics) / ledger['seconds'] / quota_per_s:.3f}",
        f"{throttled / ledger['calls']:.2%}",
        f"{ledger['most_calls_in_a_second']:,}",
        f"{seconds / SECONDS:.3f}",
    )


WHOLE = {
    "answers after 20 ms": (2_000, ("--latency", 0.02)),
    "answers after 3 s": (4_000, ("--latency", 3.0)),
    "2 % 10002, 1 % 80005, 0.5 % resets, 100 ms": (
        8_000,
        ("--latency", 0.1, "--fault", "10002=0.02", "--fault", "80005=0.01",
         "--fault", "reset-after=0.005"),
    ),
    "refuses 2 % at random (60007), 50 ms": (
        8_000, ("--latency", 0.05, "--fault", "60007=0.02"),
    ),
    "refuses 5 % at random (60007), 50 ms": (
        8_000, ("--latency", 0.05, "--fault", "60007=0.05"),
    ),
}  # fmt: skip


def measure_whole(records: int, options: tuple[object, ...]) -> tuple[str, ...]:
    """Measure the command itself, from its start to its end; return the cells of its row."""
    with simulator("--quota", 200, *options) as service, tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "topics.jsonl"
        lines = ({"GroupId": f"@TGS#_g{n % 20}", "TopicName": f"topic {n}"} for n in range(records))
        path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
        command = [*PROGRAM, "backfill", str(path), "--out", f"{directory}/out", "--base-url",
                   service.url, "--no-progress", "--log-level", "error"]  # fmt: skip
        settings = {"TOPIC_IMPORT_APP__SDK_APP_ID": str(APP)}
        settings["TOPIC_IMPORT_APP__SECRET_KEY"] = service.key
        started_s = time.perf_counter()
        subprocess.run(command, env=os.environ | settings, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started_s
        ledger = service.ledger()
    least_s = ledger["calls"] / 200
    return (
        f"{ledger['calls']:,}",
        f"{ledger['answers'].get('60007', 0) + ledger['answers'].get('fault 60007', 0):,}",
        f"{ledger['most_calls_in_a_second']}",
        f"{seconds:.1f} s",
        f"{seconds / least_s:.3f}",
    )


def main() -> int:
    configure(level="error")
    lines = [
        "# The quota, measured",
        "",
        f"Made by `make bench-quota`, {SECONDS} seconds' worth of calls for each line, worker and "
        f"simulator on one machine with {os.cpu_count()} cores, {LATENCY_S * 1000:.0f} ms latency.",
        "*Used* is the share of the quota from the first call to the last, *most* the most "
        "arrivals in any rolling second, both counted by the simulator; *duration* is the time of "
        "the run divided by N / quota.",
        "A refused call is repeated until it succeeds.",
        "(Bursts a second apart show more than 1, because the second of the last one is not over.)",
        "",
        "| quota | jitter | limiter | used | throttled | most | duration |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for quota_per_s in QUOTAS:
        for jitter_s in JITTERS_S:
            for name, contender in CONTENDERS.items():
                figures = measure(contender, quota_per_s, jitter_s)
                cells = (f"{quota_per_s}/s", f"{jitter_s * 1000:.0f} ms", name, *figures)
                lines.append(f"| {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    begin = len(lines)
    lines += [
        "",
        "The whole command, start-up and the last answers included, at 200/s:",
        "",
        "| service | calls | throttled | most | seconds | duration |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines[begin:]), flush=True)
    for name, (records, options) in WHOLE.items():
        lines.append(f"| {' | '.join((name, *measure_whole(records, options)))} |")
        print(lines[-1], flush=True)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
