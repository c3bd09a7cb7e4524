"""The fast transport: aiohttp's connector and parser without its session, requests and responses.

`session.post` makes a URL, headers, a timer, a request, a task that writes it and a response for
each call. Here all of that is made once for each destination or connection. The connector still
opens the connections (names, TLS, time-outs), and aiohttp's parser reads the answers. This is the
only module that depends on more of aiohttp than its public interface and `connections`; the reasons
are in docs/decisions/0006-direct-transport.md.
"""

import asyncio
from collections import deque
from typing import Self, cast

import aiohttp
from aiohttp import hdrs
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from yarl import URL

from worker.transport.connections import BoundedHandler, Connector, beginning
from worker.transport.contract import HEADERS, KEEP_ALIVE_S, Answer, Destination

TIMER_SLACK_S = 0.001
"""Event loops round the time of a timer, and may call it so much too early."""


def is_served_directly(destination: Destination) -> bool:
    """Return whether this transport can post there: no proxy, and a URL without peculiarities."""
    try:
        url = URL(destination.origin, encoded=True)
        is_plain = url.scheme in {"http", "https"} and bool(url.raw_host) and url.user is None
    except ValueError:
        return False
    return is_plain and destination.proxy is None and destination.origin.isprintable()


class DirectTransport:
    """Posts over connections of its own; see `contract.Transport`.

    A connection that is free is used again before others that are free for longer, so those that
    are not needed reach the end of KEEP_ALIVE_S.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._timeout = aiohttp.ClientTimeout(
            connect=destination.connect_timeout_s, sock_connect=destination.connect_timeout_s
        )
        self._total_timeout_s = destination.total_timeout_s
        self._idle: deque[_Line] = deque()
        self._deadlines: dict[BoundedHandler, float] = {}
        """The open calls on connections that were used before, by their ends: the first in the
        first place, as all calls may take equally long."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._closer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._connector = Connector(self._destination.ca_file)
        origin = URL(self._destination.origin, encoded=True)
        self._request = ClientRequest("POST", origin, headers=HEADERS, loop=self._loop)
        lines = [
            f"{name}: {value}\r\n"
            for name, value in self._request.headers.items()
            if name != hdrs.CONTENT_LENGTH
        ]
        self._head = f" HTTP/1.1\r\n{''.join(lines)}{hdrs.CONTENT_LENGTH}: "
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in (self._sweeper, self._closer):
            if timer is not None:
                timer.cancel()
        try:
            await self._connector.close()
        finally:
            while self._idle:
                self._idle.pop().connection.close()

    async def post(self, target: str, body: bytes, bytes_max: int) -> Answer:
        request = f"POST {target}{self._head}{len(body)}\r\n\r\n".encode() + body
        now_s = self._loop.time()
        line = self._take_idle(now_s)
        if line is None:
            async with asyncio.timeout(self._total_timeout_s):
                return await self._exchange(await self._connect(), request, bytes_max)
        self._deadlines[line.handler] = deadline_s = now_s + self._total_timeout_s
        if self._sweeper is None:
            self._sweeper = self._loop.call_at(deadline_s, self._sweep)
        try:
            return await self._exchange(line, request, bytes_max)
        finally:
            del self._deadlines[line.handler]

    async def _connect(self) -> "_Line":
        try:
            connection = await self._connector.connect(self._request, [], self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError from error
        return _Line(connection, cast("BoundedHandler", connection.protocol))

    async def _exchange(self, line: "_Line", request: bytes, bytes_max: int) -> Answer:
        """Send a request and read its answer; keep the connection, or close it."""
        handler = line.handler
        try:
            # Some gateways answer before they are asked, and hang up: that counts as the answer.
            handler.begin_call()
            transport = handler.transport
            if transport is not None and not transport.is_closing():
                transport.write(request)
            message, payload = await handler.read()
            content = await beginning(payload, bytes_max)
        except HttpProcessingError as error:
            line.close()
            info = self._request.request_info
            raise aiohttp.ClientResponseError(info, (), status=error.code) from error
        except BaseException:
            line.close()
            raise
        if handler.is_reusable():
            self._keep(line)
        else:
            line.close()
        return Answer(message.code, content, message.headers.get(hdrs.RETRY_AFTER))

    # ---- idle connections

    def _take_idle(self, now_s: float) -> "_Line | None":
        while self._idle:
            line = self._idle.pop()
            if line.handler.is_connected() and now_s - line.idle_since_s <= KEEP_ALIVE_S:
                return line
            line.close()
        return None

    def _keep(self, line: "_Line") -> None:
        line.idle_since_s = self._loop.time()
        self._idle.append(line)
        if self._closer is None:
            self._closer = self._loop.call_later(KEEP_ALIVE_S, self._close_idle)

    def _close_idle(self) -> None:
        """Close the connections that were not needed; come back for the next one."""
        self._closer = None
        now_s = self._loop.time() + TIMER_SLACK_S
        while self._idle:
            end_s = self._idle[0].idle_since_s + KEEP_ALIVE_S
            if end_s > now_s:
                self._closer = self._loop.call_at(end_s, self._close_idle)
                return
            self._idle.popleft().close()

    # ---- deadlines

    def _sweep(self) -> None:
        """End the calls whose time is over; come back for the next one.

        One timer serves all calls. One for each would cost more than to parse its answer.
        """
        self._sweeper = None
        now_s = self._loop.time() + TIMER_SLACK_S
        for handler, deadline_s in self._deadlines.items():
            if deadline_s > now_s:
                self._sweeper = self._loop.call_at(deadline_s, self._sweep)
                return
            handler.expire()


class _Line:
    """An open connection, as the connector knows it and as its end that we talk to."""

    __slots__ = ("connection", "handler", "idle_since_s")

    def __init__(self, connection: Connection, handler: BoundedHandler) -> None:
        self.connection = connection
        self.handler = handler
        self.idle_since_s = 0.0

    def close(self) -> None:
        if self.handler.is_sending():
            # To close it would wait until the other side reads the rest of the call.
            self.handler.abort()
        self.connection.close()
