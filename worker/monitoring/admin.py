"""The HTTP endpoint of a running service for monitors and people: alive, ready, status, metrics."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import Any, Self

from aiohttp import web

from worker.logs import logger
from worker.monitoring.metrics import CONTENT_TYPE, Metrics
from worker.redaction import redact
from worker.rules.visible_text import visible
from worker.settings.addresses import host_and_port

log = logger()

CONNECTIONS_MAX = 64
"""Connections use the open files that the calls need, so a monitor must not open too many."""
REQUEST_S = 5.0
"""How long a request may take to arrive."""
KEEP_ALIVE_S = 75.0
LINGER_S = 1.0
SHUTDOWN_S = 0.1
METHODS = ("GET", "HEAD")
HEADERS = {
    "Server": "topic-import",  # in place of the header of the library, which shows versions
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}
STYLE = "body{font:16px sans-serif;margin:2em}th{text-align:left;padding-right:2em}"
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="5">
<title>topic-import: {state}</title>
<style>{style}</style>
</head>
<body>
<h1>topic-import: {state}</h1>
<p>{reason}</p>
<table>
{rows}
</table>
<p><a href="healthz">healthz</a> <a href="readyz">readyz</a> <a href="metrics">metrics</a></p>
</body>
</html>
"""

_silent = logging.getLogger("worker.admin")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class AdminError(Exception):
    """The endpoint cannot listen. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the service is ready, the reason if it is not, and facts for people by label."""

    ready: bool
    reason: str
    facts: Mapping[str, str]


class AdminServer:
    """The admin endpoint on `host:port`; port 0 takes a free one. An async context manager.

    Raises AdminError for an address that is wrong, or that cannot be listened on.
    """

    def __init__(self, listen: str, status: Callable[[], Status], metrics: Metrics) -> None:
        self._listen = listen
        try:
            self._host, self._port = host_and_port(listen)
        except ValueError as error:
            raise AdminError(f"admin.listen: {error}") from None
        self._pages: Mapping[str, tuple[str, Callable[[], web.Response]]] = {
            "/": ("status", lambda: _page(status())),
            "/healthz": ("health", lambda: _plain("ok")),
            "/readyz": ("status", lambda: _readiness(status())),
            "/metrics": ("metrics", lambda: _metrics(metrics)),
        }
        self._failing: set[str] = set()
        self._runner: web.ServerRunner
        self.url = ""

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(_Server(self._answer), shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except (OSError, ValueError) as error:
            await self._runner.cleanup()
            raise AdminError(_sentence(self._listen, error)) from None
        except BaseException:
            await self._runner.cleanup()
            raise
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if request.path not in self._pages:
            return _plain("not found: there are /, /healthz, /readyz and /metrics", 404)
        if request.method not in METHODS:
            response = _plain("method not allowed: only GET and HEAD", 405)
            response.headers["Allow"] = ", ".join(METHODS)
            return response
        source, page = self._pages[request.path]
        try:
            response = page()
        except Exception as error:
            if source not in self._failing:
                # Only once: a monitor that asks every few seconds would fill the log.
                self._failing.add(source)
                log.error("the admin endpoint failed", what=source, exc_info=error)
            return _plain(f"the {source} cannot be shown; the log says why", 500)
        self._failing.discard(source)
        return response


class _Server(web.Server):
    """Accepts connections, at most `CONNECTIONS_MAX` at once.

    A newcomer takes the place of the connection that was idle for longest: if all places were
    filled with connections that ask nothing, nobody would learn that the process is alive.
    """

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGER_S,
            access_log=_silent,
            logger=_silent,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        open_ones = [c for c in self.connections if isinstance(c, _Connection) and not c.is_ending]
        if len(open_ones) > CONNECTIONS_MAX:
            min(open_ones, key=lambda connection: connection.active_at_s).end()


class _Connection(web.RequestHandler):
    """Answers a broken request like any other: without versions, and without a log line.

    - `active_at_s`: when it was made, or when its last request was complete; monotonic clock.
    - `is_ending`: it was ended, and will be gone in a moment.
    """

    __slots__ = ("_ends", "_requests", "active_at_s", "is_ending")

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.active_at_s = self._loop.time()
        self.is_ending = False
        self._requests = 0
        self._ends: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wait_for_request()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._request_count > self._requests:
            self._requests = self._request_count
            self.active_at_s = self._loop.time()
            self._stop_waiting()
        elif self._ends is None:
            self._wait_for_request()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def end(self) -> None:
        """Cut the connection, once the library has started to serve it."""
        self.is_ending = True
        # A connection that is lost before that fails with a traceback of asyncio.
        self._loop.call_soon(self._abort)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _wait_for_request(self) -> None:
        """Give the other side REQUEST_S for the rest of a request that has begun, or is due."""
        self._ends = self._loop.call_later(REQUEST_S, self.end)

    def _stop_waiting(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - the library's signature
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        response = _plain(HTTPStatus(status).phrase.lower(), status)
        response.force_close()
        return response


def _plain(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, headers=HEADERS)


def _readiness(status: Status) -> web.Response:
    if status.ready:
        return _plain("ready")
    return _plain(_one_line(status.reason) or "not ready", 503)


def _metrics(metrics: Metrics) -> web.Response:
    """Answer with the metrics. Their labels hold no user data, so none needs redacting."""
    return web.Response(body=metrics.render(), headers=HEADERS | {"Content-Type": CONTENT_TYPE})


def _page(status: Status) -> web.Response:
    rows = (
        f'<tr><th scope="row">{_html(what)}</th><td>{_html(shows)}</td></tr>'
        for what, shows in status.facts.items()
    )
    page = PAGE.format(
        state="ready" if status.ready else "not ready",
        style=STYLE,
        reason=_html(status.reason),
        rows="\n".join(rows),
    )
    return web.Response(text=page, content_type="text/html", headers=HEADERS)


def _html(text: str) -> str:
    # Redacted before it is escaped: an escaped secret would not be recognised.
    return escape(_one_line(text))


def _one_line(text: str) -> str:
    return visible(redact(text))


def _sentence(listen: str, error: OSError | ValueError) -> str:
    """Return why the endpoint cannot listen on the address, and what to do."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror | ValueError):
        trouble = "the host cannot be resolved: name an address of this machine"
    elif number == errno.EADDRINUSE:
        trouble = "another process listens there: choose another port, or 0 for a free one"
    elif number == errno.EACCES:
        trouble = "this user may not listen there: choose a port from 1024 on"
    elif number == errno.EADDRNOTAVAIL:
        trouble = "this machine has no such address: name one that it has, such as 127.0.0.1"
    else:
        reason = os.strerror(number) if number else type(error).__name__
        trouble = f"cannot listen there ({reason}): choose another address"
    return _one_line(f"admin.listen: {listen}: {trouble}")
