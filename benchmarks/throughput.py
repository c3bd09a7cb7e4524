"""`make bench`: the speed of the program on real sockets, as ratios to peers in the same run.

The whole program is compared with a bare loop of `session.post`, which has no queue, checks nothing
and keeps no outcome, as a script would. The queue is compared with itself without forced commits.
The service is the simulator in its own process, without faults and without a quota.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import orjson

from benchmarks.demo import KEY, LISTENING, PROGRAM
from worker.queues.sqlite.store import SqliteStore
from worker.rules.outcome import Already, History, Imported
from worker.rules.record import Record, content_hash
from worker.rules.topic.topic import RecordRules, to_topic

RECORDS = 8_000
IN_FLIGHT = 64
ROUNDS = 3
BATCH = 50
QUEUE_RECORDS = 10_000


def record(number: int) -> dict[str, object]:
    """Return a record that differs from those with other numbers."""
    group = f"@TGS#_@TGS#cBENCH{number % 20:02d}"
    return {"GroupId": group, "TopicName": f"话题 {number}", "CustomString": f"old-{number}"}


def bare_loop(url: str) -> float:
    """Post every record and ignore the replies; return calls a second."""

    async def post_all() -> float:
        bodies = iter([orjson.dumps(record(number)) for number in range(RECORDS)])
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def post_some() -> None:
                for body in bodies:
                    async with session.post(f"{url}/v4/bench", data=body) as response:
                        await response.read()

            started_s = time.perf_counter()
            await asyncio.gather(*(post_some() for _ in range(IN_FLIGHT)))
            return RECORDS / (time.perf_counter() - started_s)

    return asyncio.run(post_all())


def whole_program(url: str, key: str) -> float:
    """Run `topic-import backfill` from its start to its end; return records a second."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "topics.jsonl"
        # Each round needs other topics, because the simulator keeps those of earlier rounds.
        salt = time.time_ns()
        lines = (orjson.dumps(record(n) | {"Introduction": f"{salt}"}) for n in range(RECORDS))
        path.write_bytes(b"\n".join(lines))
        settings = {
            "TOPIC_IMPORT_APP__SDK_APP_ID": "1400000000",
            "TOPIC_IMPORT_APP__SECRET_KEY": key,
            "TOPIC_IMPORT_HTTP__MAX_IN_FLIGHT": str(IN_FLIGHT),
        }
        command = ["backfill", str(path), "--out", f"{directory}/out", "--base-url", url,
                   "--rate", "0", "--no-progress", "--log-level", "error"]  # fmt: skip
        started_s = time.perf_counter()
        subprocess.run(
            [*PROGRAM, *command],
            env=os.environ | settings,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return RECORDS / (time.perf_counter() - started_s)


def queue_alone(synchronous: str) -> float:
    """Put, take and settle in batches as a run at full quota does; return records a second."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        store = SqliteStore(Path(directory) / "queue.sqlite3", synchronous=synchronous)
        started_s = time.perf_counter()
        for start in range(0, QUEUE_RECORDS, BATCH):
            store.put([_read(number) for number in range(start, start + BATCH)])
            taken = store.take(BATCH)
            store.settle([Imported(row.id, Already.NO, History(), 0.0) for row in taken])
        seconds = time.perf_counter() - started_s
        store.close()
        return QUEUE_RECORDS / seconds


def _read(number: int) -> Record:
    raw = orjson.dumps(record(number))
    topic = to_topic(record(number), RecordRules())
    return Record("a", number + 1, content_hash(raw), raw, topic)


def measure(name: str, peer: Callable[[], float], ours: Callable[[], float]) -> None:
    """Run the two by turns, so that both meet the same load; print medians and their ratio."""
    pairs = [(peer(), ours()) for _ in range(ROUNDS)]
    peer_rate, our_rate = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratio = statistics.median(o / p for p, o in pairs)
    print(f"{name}: {our_rate:,.0f}/s against {peer_rate:,.0f}/s, ratio {ratio:.2f}", flush=True)


def main() -> int:
    measure(
        "queue with synchronous=FULL against NORMAL",
        lambda: queue_alone("NORMAL"),
        lambda: queue_alone("FULL"),
    )
    with subprocess.Popen(
        [*PROGRAM, "simulate", "--port", "0", "--quota", "0"], stdout=subprocess.PIPE, text=True
    ) as simulator:
        try:
            assert simulator.stdout is not None
            url = LISTENING.search(simulator.stdout.readline())
            key = KEY.search(simulator.stdout.readline())
            assert url is not None
            assert key is not None
            measure(
                "whole program, start to end, against a bare loop of posts",
                lambda: bare_loop(url[1]),
                lambda: whole_program(url[1], key[1]),
            )
        finally:
            simulator.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
