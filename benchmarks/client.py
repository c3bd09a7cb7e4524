"""CPU of this process for one call, on each transport and with a bare `session.post`.

    python -m benchmarks.client [CALLS]

A server in a process of its own answers at once, as fast as it can. The clients take turns, because
the speed of a machine changes from one minute to the next; the medians are printed.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import cast

import aiohttp
import orjson
import uvloop

from worker.chat import Endpoint, ImportTopicClient
from worker.rules.usersig import Signature
from worker.transport.contract import Destination, Transport
from worker.transport.direct import DirectTransport
from worker.transport.session import SessionTransport

CALLS = 60_000
IN_FLIGHT = 64
ROUNDS = 3
WARM_UP = 20
"""Calls on each connection before the measurement."""
PATH = "v4/group_open_http_svc/import_topic"
APP, ADMIN = 1400000000, "administrator"
SIGNATURE = Signature("eJ" + "x" * 200, 1)
BODY = orjson.dumps(
    {
        "GroupId": "@TGS#_@TGS#cBENCH",
        "TopicName": "x" * 30,
        "From_Account": ADMIN,
        "CustomString": "y" * 200,
        "CreateTime": 1_500_000_000,
        "TopicId": "@TGS#_@TGS#cBENCH@TOPIC#_0123456789abcdef0123456789abcdef",
    }
)
CONTENT = (
    b'{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,'
    b'"TopicId":"@TGS#_@TGS#cBENCH@TOPIC#_0123456789abcdef0123456789abcdef"}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
    b"Content-Type: application/json;charset=utf-8\r\nContent-Length: %d\r\n"
    b"Connection: keep-alive\r\n\r\n%b" % (len(CONTENT), CONTENT)
)

Call = Callable[[], Awaitable[object]]


class Answering(asyncio.Protocol):
    """Answers each complete request with the same bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        while (end := received.find(b"\r\n\r\n")) >= 0:
            length = received[:end].lower().split(b"content-length: ")[1].split(b"\r\n")[0]
            end += 4 + int(length)
            if len(received) < end:
                break
            received = received[end:]
            self._transport.write(ANSWER)
        self._received = received


async def serve() -> None:
    """Serve until standard input ends; the first line of output is the port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


async def cpu_of_a_call_us(call: Call, calls: int) -> float:
    """Make `calls` calls, IN_FLIGHT at once; return the CPU time of one in microseconds."""

    async def repeat(numbers: range) -> None:
        for _ in numbers:
            await call()

    each = range(calls // IN_FLIGHT)
    await asyncio.gather(*(repeat(range(WARM_UP)) for _ in range(IN_FLIGHT)))
    started_s = time.process_time()
    await asyncio.gather(*(repeat(each) for _ in range(IN_FLIGHT)))
    return (time.process_time() - started_s) / (len(each) * IN_FLIGHT) * 1e6


async def bare(url: str, calls: int) -> float:
    """Measure `session.post` with nothing around it."""
    target = (
        f"{url}/{PATH}?sdkappid={APP}&identifier={ADMIN}&usersig={SIGNATURE.value}"
        "&contenttype=json&random=1"
    )
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call() -> None:
            async with session.post(target, data=BODY) as response:
                assert orjson.loads(await response.read())["ErrorCode"] == 0

        return await cpu_of_a_call_us(call, calls)


async def client(url: str, calls: int, transport: Callable[[Destination], Transport]) -> float:
    """Measure the client on one transport."""
    endpoint = Endpoint(url, PATH, APP, ADMIN)
    async with ImportTopicClient(endpoint, transport=transport) as chat:

        async def call() -> None:
            assert (await chat.import_topic(BODY, SIGNATURE)).code == 0

        return await cpu_of_a_call_us(call, calls)


def measure(url: str, calls: int) -> None:
    """Print a line for each client."""
    clients: dict[str, Callable[[], Awaitable[float]]] = {
        "bare session.post": lambda: bare(url, calls),
        "client, session": lambda: client(url, calls, SessionTransport),
        "client, direct": lambda: client(url, calls, DirectTransport),
    }
    measured: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(ROUNDS):
        for name, run in clients.items():
            measured[name].append(uvloop.run(run()))  # type: ignore[arg-type]
    reference_us = statistics.median(measured["bare session.post"])
    for name, times_us in measured.items():
        time_us = statistics.median(times_us)
        print(
            f"{name:20}{time_us:6.1f} µs CPU a call, {time_us / reference_us:.2f} of the bare loop"
        )


def main() -> None:
    """Start the server and measure."""
    if sys.argv[1:] == ["serve"]:
        uvloop.run(serve())
        return
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    words = [sys.executable, "-m", "benchmarks.client", "serve"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdin
        try:
            measure(f"http://127.0.0.1:{int(server.stdout.readline())}", calls)
        finally:
            server.stdin.close()


if __name__ == "__main__":
    main()
