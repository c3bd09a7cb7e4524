"""Serves a stand-in of the service whose every answer a test decides."""

import asyncio
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

SELF_SIGNED = Path(__file__).with_name("self_signed.pem")
"""A certificate of 127.0.0.1 and localhost with its key, signed by itself, valid until 2126."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of import_topic. `number`: 1 for the first; `at_s`: seconds since the first."""

    number: int
    at_s: float
    topic: Mapping[str, Any]

    @property
    def group_id(self) -> str:
        group_id: str = self.topic["GroupId"]
        return group_id


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that imports nothing: an error code, or an HTTP status other than 200."""

    code: int = 0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Callable[[Call], Refusal | None]


class StandIn:
    """What the stand-in was asked and what it holds. `answer`: None imports the topic."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._first_s: float | None = None
        self.url = ""
        self.calls: list[Call] = []
        self.refused: list[Call] = []
        self.topics: dict[str, Mapping[str, Any]] = {}

    def calls_to(self, group_id: str) -> int:
        return sum(call.group_id == group_id for call in self.calls)

    def topics_in(self) -> Counter[str]:
        """Return how many topics each community holds."""
        return Counter(topic["GroupId"] for topic in self.topics.values())

    async def reply(self, request: web.Request) -> web.Response:
        topic = orjson.loads(await request.read())
        now_s = time.monotonic()
        if self._first_s is None:
            self._first_s = now_s
        call = Call(len(self.calls) + 1, now_s - self._first_s, topic)
        self.calls.append(call)
        refusal = self._answer(call)
        if refusal is None and topic["TopicId"] in self.topics:
            refusal = Refusal(10021)
        if refusal is None:
            self.topics[topic["TopicId"]] = topic
            return web.json_response(
                {"ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "", "TopicId": topic["TopicId"]}
            )
        self.refused.append(call)
        if refusal.status != 200:
            return web.Response(status=refusal.status, headers=refusal.headers, text="no")
        return web.json_response(
            {"ActionStatus": "FAIL", "ErrorCode": refusal.code, "ErrorInfo": "refused"}
        )


@contextmanager
def stand_in(answer: Answer, *, is_tls: bool = False) -> Iterator[StandIn]:
    """Run a stand-in on a free loopback port, and stop it on leaving the context."""
    service = StandIn(answer)
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.reply)
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_tls() if is_tls else None)
    loop.run_until_complete(site.start())
    service.url = f"http{'s' * is_tls}://127.0.0.1:{runner.addresses[0][1]}"
    serving = threading.Thread(target=loop.run_forever)
    serving.start()
    try:
        yield service
    finally:
        loop.call_soon_threadsafe(loop.stop)
        serving.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(SELF_SIGNED)
    return context
