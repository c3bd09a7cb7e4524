"""The simulated service on a socket: an aiohttp server around `behaviour`."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import orjson
from aiohttp import web

from worker.simulator.behaviour import Answer, Call, Rules, Service

BODY_BYTES_MAX = 65_536
HANG_S = 3600.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen and how slowly to answer. `port` 0: a free one. Times in seconds.

    `jitter_s`: the longest random delay before a call counts; `latency_s`: the delay of its answer.
    """

    host: str = "127.0.0.1"
    port: int = 0
    latency_s: float = 0.0
    jitter_s: float = 0.0


class Simulator:
    """The simulated service as a server. `GET /ledger` returns what it created.

    `seed`: makes faults and jitter repeatable; None: random.
    """

    def __init__(self, rules: Rules, address: Address, seed: int | None = None) -> None:
        self._address = address
        self._chance = random.Random(seed)
        self.service = Service(rules, self._chance)

    async def serve(self, announce: Callable[[str], Awaitable[None] | None]) -> None:
        """Serve until cancelled; calls `announce` with the URL once the server accepts calls."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/ledger", self._ledger)
        app.router.add_route("*", "/{path:.*}", self._call)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._address.host, self._address.port, backlog=1024)
            await site.start()
            host, port = runner.addresses[0][:2]
            announced = announce(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            if announced is not None:
                await announced
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _ledger(self, _: web.Request) -> web.Response:
        return web.Response(
            body=orjson.dumps(self.service.ledger.as_dict()), content_type="application/json"
        )

    async def _call(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self._address.jitter_s:
            await asyncio.sleep(self._chance.uniform(0, self._address.jitter_s))
        loop = asyncio.get_running_loop()
        call = Call(request.method, request.path, request.query, body)
        answer = self.service.answer(call, loop.time(), time.time())
        if self._address.latency_s:
            await asyncio.sleep(self._address.latency_s)
        return await _send(request, answer)


async def _send(request: web.Request, answer: Answer) -> web.StreamResponse:
    content = orjson.dumps(answer.body)
    match answer.fault:
        case None:
            return web.Response(body=content, content_type="application/json")
        case "502":
            return web.Response(status=502, text="<html>502 Bad Gateway</html>")
        case "html":
            return web.Response(text="<html>maintenance</html>", content_type="text/html")
        case "empty":
            return web.Response()
        case "truncated":
            return await _truncated(request, content)
        case "hang":
            await asyncio.sleep(HANG_S)
            return _reset(request)
        case _:
            return _reset(request)


async def _truncated(request: web.Request, content: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(content))})
    with contextlib.suppress(ConnectionError):  # the client may have closed the connection
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
    return _reset(request)


def _reset(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response()


async def serve(
    rules: Rules, address: Address, announce: Callable[[str], Awaitable[None] | None]
) -> Mapping[str, int]:
    """Serve until cancelled; return how often each code or fault was answered."""
    simulator = Simulator(rules, address)
    with contextlib.suppress(asyncio.CancelledError):
        await simulator.serve(announce)
    return dict(simulator.service.ledger.answers)
