"""The connections of all transports: aiohttp's, which keep no answers that nobody asked for."""

import asyncio
import functools
import ssl
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

from worker.transport.contract import DNS_CACHE_S, KEEP_ALIVE_S

INTERIM_ANSWERS_MAX = 32
"""Answers with HTTP 1xx before the answer to one call; gateways send one or two."""
INTERIM_FROM = 100
SWITCHING_PROTOCOLS = 101
FINAL_FROM = 200


class InterimAnswersError(aiohttp.ClientError):
    """The other side sends interim answers (HTTP 1xx) and no answer."""


class BoundedHandler(ResponseHandler):
    """A connection that keeps no interim answers, and is cut when it gets too many answers.

    aiohttp queues each of them without a bound. An endless stream filled the memory, and kept the
    event loop from handling timeouts and signals. What comes after an answer, before the next
    call, would be taken for the answer to that call: it cuts the connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim_answers = 0
        self._is_answered = False
        self._needs_new_parser = True

    def set_response_params(self, **parameters: Any) -> None:
        """Begin a call with a new parser: aiohttp does this before it sends the request."""
        self._interim_answers = 0
        self._is_answered = False
        self._needs_new_parser = False
        super().set_response_params(**parameters)

    def begin_call(self) -> None:
        """Begin a call, with the parser of the last one if that is as good as new."""
        if self._needs_new_parser:
            self.set_response_params(read_until_eof=True)
        else:
            self._interim_answers = 0
            self._is_answered = False

    def is_sending(self) -> bool:
        """Return whether a part of what was written did not leave yet."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def is_reusable(self) -> bool:
        """Return whether the next call may use this connection, now that one is answered.

        An answer may come before its call was sent completely.
        """
        return self.is_connected() and not self.should_close and not self.is_sending()

    def expire(self) -> None:
        """End the call because its time is over."""
        self.set_exception(TimeoutError())
        if self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(TimeoutError())

    def data_received(self, data: bytes) -> None:
        """Parse what came; cut the connection if the answer was complete before."""
        if self._is_answered and data and (self._payload is None or self._payload.is_eof()):
            self._should_close = True
            if self.transport is not None:
                self.transport.abort()
        else:
            super().data_received(data)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Queue an answer for the call that waits for it."""
        message = data[0]
        if is_interim(message.code):
            self._interim_answers += 1
        else:
            self._is_answered = True
            # The parser carries the trailers after the last chunk over into the next answer.
            self._needs_new_parser = bool(message.chunked or message.compression)
            super().feed_data(data, size)
        # Several answers may come in one piece.
        is_flooded = self._interim_answers + len(self._buffer) > INTERIM_ANSWERS_MAX
        if is_flooded and self.exception() is None:
            self.set_exception(InterimAnswersError())
            if self.transport is not None:
                self.transport.abort()

    def pause_reading(self) -> None:
        self._needs_new_parser = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        """Go on reading after a pause; aiohttp asks for it after each answer, paused or not."""
        if self._reading_paused:
            super().resume_reading(resume_parser)


class Connector(aiohttp.TCPConnector):
    """Makes connections of the kind above; aiohttp has no public way to choose it."""

    def __init__(self, ca_file: str | None) -> None:
        super().__init__(
            limit=0,  # the slots bound the calls; waiting here would count against their timeout
            keepalive_timeout=KEEP_ALIVE_S,
            ttl_dns_cache=DNS_CACHE_S,
            ssl=ssl.create_default_context(cafile=ca_file) if ca_file else True,
        )
        factory = functools.partial(BoundedHandler, loop=asyncio.get_running_loop())
        self._factory = cast("functools.partial[ResponseHandler]", factory)


def is_interim(status: int) -> bool:
    """Return whether the answer with this HTTP status is followed by the real one."""
    return INTERIM_FROM <= status < FINAL_FROM and status != SWITCHING_PROTOCOLS


async def beginning(stream: StreamReader, bytes_max: int) -> bytes:
    """Return at most `bytes_max` bytes of a stream."""
    if stream.is_eof():
        return stream.read_nowait(bytes_max)
    pieces: list[bytes] = []
    left = bytes_max
    while left > 0 and (piece := await stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
