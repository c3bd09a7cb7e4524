"""What a transport promises, and what it is told."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

HEADERS = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "topic-import"}
KEEP_ALIVE_S = 15.0
"""Shorter than gateways keep an idle connection open: a POST on one that they just closed fails."""
DNS_CACHE_S = 60
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
"""What OpenSSL names a first answer that is no TLS; its releases differ."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to post, and how long that may take; times in seconds.

    `origin`: scheme, host and port of a URL, with nothing after them. `connect_timeout_s` bounds
    the look-up of the name, the connection and TLS; `total_timeout_s` all of a call, these
    included. `proxy`: its URL. `ca_file`: the certificates to trust in place of the system's.
    """

    origin: str
    connect_timeout_s: float
    total_timeout_s: float
    proxy: str | None = None
    ca_file: str | None = None


class Answer(NamedTuple):
    """An HTTP answer, as far as it is read."""

    status: int
    content: bytes
    retry_after: str | None


class Transport(Protocol):
    """Posts to one destination. An async context manager; leaving it closes all connections.

    Each implementation keeps these rules; one suite of tests runs on all of them:

    1. A connection carries one call at a time. It is used again only if its answer was read to
       the end, nothing followed it, nobody asked to close it, and the call was sent completely.
    2. No call is sent twice, and no redirect is followed.
    3. A call that is cancelled or out of time closes its connection.
    4. Interim answers (HTTP 1xx) are passed over, up to INTERIM_ANSWERS_MAX of them.
    5. What is read of an answer is bounded by `bytes_max`, after it was decompressed.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def post(self, target: str, body: bytes, bytes_max: int) -> Answer:
        """Post `body` to `target` (path and query); return at most `bytes_max` of the content.

        Raises aiohttp.ClientError, TimeoutError, OSError or ValueError for a call that failed. An
        error may hold the whole URL. aiohttp.ClientConnectorError, ClientSSLError,
        ClientProxyConnectionError, ClientHttpProxyError, ConnectionTimeoutError and InvalidURL say
        that nothing was sent. After all others, a cancellation too, the call may have arrived.
        """
        ...
