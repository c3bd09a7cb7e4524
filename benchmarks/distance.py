"""`make bench-distance`: how much of a shared quota is used by replicas that are far from Redis.

Real processes of `topic-import serve` with the queue and the quota in one Redis, behind a proxy
that delays each direction by half a round trip. The service refuses what exceeds the quota in a
rolling second, and answers after 100 ms. Counted are the calls that arrive there in SECONDS (of the
environment) after a warm-up. Writes `docs/redis-distance.md`.
"""

import asyncio
import itertools
import os
import signal
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import orjson
import uvloop
from aiohttp import web

from benchmarks.demo import PROGRAM
from benchmarks.page import machine, table
from benchmarks.processes import redis_server, run_until_stopped
from benchmarks.work import SETTINGS, calling, number, workplace, write_records
from tests.support.distance import distant
from tests.support.redis_server import RedisServer
from tests.support.rolling_second import most_in_a_second
from tests.support.waiting import free_port

SECONDS, WARM_UP_S, LATENCY_S = 15, 3.0, 0.1
START_LIMIT_S = 60.0
ROUND_TRIPS_MS = (0, 1, 5, 20, 50)
REPLICAS = (1, 3)
QUOTAS_PER_S = (200, 1000)
PAGE = Path("docs/redis-distance.md")
REFUSED = orjson.dumps({"ActionStatus": "FAIL", "ErrorCode": 60007, "ErrorInfo": "too often"})


class Counting:
    """A service that counts each call at its arrival, and keeps a quota in every rolling second."""

    def __init__(self, quota_per_s: int) -> None:
        self._quota_per_s = quota_per_s
        self._last_second: deque[float] = deque()
        self._topic_numbers = itertools.count()
        self.arrivals_s: list[float] = []
        self.refusals_s: list[float] = []

    async def call(self, request: web.Request) -> web.Response:
        now_s = asyncio.get_running_loop().time()
        self.arrivals_s.append(now_s)
        while self._last_second and self._last_second[0] <= now_s - 1.0:
            self._last_second.popleft()
        is_refused = len(self._last_second) >= self._quota_per_s
        if is_refused:
            self.refusals_s.append(now_s)
        else:
            self._last_second.append(now_s)
        body = orjson.loads(await request.read())
        await asyncio.sleep(LATENCY_S)
        if is_refused:
            return web.Response(body=REFUSED, content_type="application/json")
        answer = {"ActionStatus": "OK", "ErrorCode": 0, "TopicId": body.get("TopicId")}
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def first_call_s(self) -> float:
        async with asyncio.timeout(START_LIMIT_S):
            while not self.arrivals_s:  # noqa: ASYNC110 - calls come from other processes
                await asyncio.sleep(0.05)
        return self.arrivals_s[0]


@asynccontextmanager
async def listening(service: Counting) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", service.call)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(*words: object, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command of the program; it is stopped in the end, as a service is."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TOPIC_IMPORT_")}
    process = await asyncio.create_subprocess_exec(
        *map(str, [*PROGRAM, *words, "--log-level", "error"]),
        env=kept | settings, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def measure(
    server: RedisServer, directory: Path, quota_per_s: int, replicas: int, round_trip_s: float
) -> list[str]:
    """Return the cells of one row."""
    seconds = number("SECONDS", SECONDS)
    source = write_records(directory / "topics.jsonl", int(quota_per_s * (seconds + WARM_UP_S + 6)))
    service = Counting(quota_per_s)
    outs = [directory / f"replica-{n}" for n in range(replicas)]
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(service))
        near = f"{server.url}?stream=topics&group=importers"
        settings = (
            SETTINGS | calling(url, quota_per_s) | {"TOPIC_IMPORT_HTTP__MAX_IN_FLIGHT": "400"}
        )
        async with running("enqueue", source, "--out", directory / "put",
                           **settings | {"TOPIC_IMPORT_QUEUE__URL": near}) as putting:  # fmt: skip
            await putting.wait()
        distance = await stack.enter_async_context(distant(server.port, round_trip_s))
        far = {
            "TOPIC_IMPORT_QUEUE__URL": f"{distance.url}?stream=topics&group=importers",
            "TOPIC_IMPORT_RATE__SHARED": distance.url,
        }
        for out in outs:
            admin = {"TOPIC_IMPORT_ADMIN__LISTEN": f"127.0.0.1:{free_port()}"}
            await stack.enter_async_context(
                running("serve", "--out", out, **settings | far | admin)
            )
        from_s = await service.first_call_s() + WARM_UP_S
        until_s = from_s + seconds
        await asyncio.sleep(until_s - asyncio.get_running_loop().time())
    counted = [at for at in service.arrivals_s if from_s <= at < until_s]
    refused = sum(from_s <= at < until_s for at in service.refusals_s)
    calls = [orjson.loads((out / "report.json").read_bytes())["calls"] for out in outs]
    return [
        f"{quota_per_s:,}/s",
        str(replicas),
        f"{round_trip_s * 1000:.0f} ms",
        f"{(len(counted) - refused) / seconds / quota_per_s:.3f}",
        f"{refused / len(counted):.2%}",
        f"{most_in_a_second(service.arrivals_s):,}",
        f"{min(calls) / max(calls):.2f}",
    ]


HEAD = ["quota", "replicas", "round trip", "used", "refused", "most", "fewest / most"]
TEXT = """# Distance to Redis, measured

Made by `make bench-distance`: replicas of `serve` whose queue and shared quota are in one Redis, behind a proxy that delays each direction by half of the round trip.
The service answers after 100 ms and refuses what exceeds the quota in a rolling second.
*Used* is the share of the quota that succeeded in {seconds} s after a warm-up of 3 s, *refused* the share of calls then, *most* the most arrivals in any rolling second of the whole run, start-up included; *fewest / most* compares the calls of the replicas.
"""  # noqa: E501 - one sentence a line


async def measure_all() -> list[list[str]]:
    rows: list[list[str]] = []
    for quota_per_s, replicas, ms in itertools.product(QUOTAS_PER_S, REPLICAS, ROUND_TRIPS_MS):
        with workplace() as directory, redis_server(directory) as server:
            rows.append(await measure(server, directory, quota_per_s, replicas, ms / 1000))
        print(" | ".join(rows[-1]), flush=True)
    return rows


def main() -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(measure_all())
    text = TEXT.format(seconds=number("SECONDS", SECONDS))
    PAGE.write_text("\n".join([text, machine(), "", *table(HEAD, rows)]) + "\n")
    return 0


if __name__ == "__main__":
    run_until_stopped(main)
