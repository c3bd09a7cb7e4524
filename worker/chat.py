"""One call of `import_topic` over HTTP becomes a Reply. The only module that knows HTTP.

Source: REST overview (URL, query, reply) and REST page of import_topic (path, body).
"""

import os
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from worker.redaction import redact
from worker.rules.usersig import Signature
from worker.rules.verdict import Reply
from worker.settings.addresses import is_loopback

BODY_BYTES_MAX = 65_536
"""How much of a reply is read; one of import_topic has some hundred bytes."""
INFO_CHARACTERS_MAX = 500
KEEP_ALIVE_S = 15.0
"""Shorter than gateways keep an idle connection open: a POST on one that they just closed fails."""
DNS_CACHE_S = 60
RANDOM_MAX = 2**32 - 1
CODE_MAX = 2**31 - 1
OK = 200
SERVER_ERRORS_FROM = 500
REQUEST_TIMEOUT = 408


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to call and as which account; times in seconds."""

    base_url: str
    path: str
    sdk_app_id: int
    admin: str
    connect_timeout_s: float = 5.0
    total_timeout_s: float = 10.0
    proxy: str | None = None
    ca_file: str | None = None


class ImportTopicClient:
    """Calls `import_topic`; every failure is a Reply. An async context manager.

    `chance(low, high)` draws the `random` of each call's query, both ends included.
    """

    def __init__(
        self, endpoint: Endpoint, *, chance: Callable[[int, int], int] = random.randint
    ) -> None:
        self._endpoint = endpoint
        self._chance = chance
        self._url_start = ""
        self._url_generation = -1
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        endpoint = self._endpoint
        own_store = endpoint.ca_file and ssl.create_default_context(cafile=endpoint.ca_file)
        connector = aiohttp.TCPConnector(
            limit=0,  # the slots bound the calls; waiting here would count against their timeout
            keepalive_timeout=KEEP_ALIVE_S,
            ttl_dns_cache=DNS_CACHE_S,
            ssl=own_store or True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=endpoint.total_timeout_s,
                connect=endpoint.connect_timeout_s,  # with DNS and TLS
                sock_connect=endpoint.connect_timeout_s,
            ),
            headers={
                "Content-Type": "application/json; charset=utf-8",
                "User-Agent": "topic-import",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            # With True aiohttp reads two files in a thread for every call.
            trust_env=False,
            auto_decompress=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        """Make one call with `body` (JSON in UTF-8) and return its reply.

        Raises nothing but CancelledError; the call may have taken effect then.
        """
        try:
            async with self._session.post(
                self._url(signature),
                data=body,
                allow_redirects=False,
                proxy=self._endpoint.proxy,
            ) as response:
                content = await _beginning(response.content)
                return read_reply(response.status, content)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return _failed(error)

    def _url(self, signature: Signature) -> URL:
        if signature.generation != self._url_generation:
            endpoint = self._endpoint
            self._url_start = (
                f"{endpoint.base_url.rstrip('/')}/{endpoint.path.strip('/')}"
                f"?sdkappid={endpoint.sdk_app_id}&identifier={quote(endpoint.admin, safe='')}"
                f"&usersig={quote(signature.value, safe='*-_')}&contenttype=json&random="
            )
            self._url_generation = signature.generation
        return URL(f"{self._url_start}{self._chance(0, RANDOM_MAX)}", encoded=True)


def proxy_from_environment(url: str) -> str | None:
    """Return the proxy for a URL by the environment (`HTTPS_PROXY`, `NO_PROXY` and others)."""
    parts = urlsplit(url)
    if not parts.hostname or is_loopback(parts.hostname) or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


def read_reply(status: int, content: bytes) -> Reply:
    """Return the reply in an HTTP answer.

    Only HTTP 200 with an integer ErrorCode comes from the service itself (REST overview). Other
    members may be missing: its own samples omit some. The verdict checks what a success needs.
    """
    if status == OK:
        parsed = _parsed(content)
        if isinstance(parsed, dict):
            code = parsed.get("ErrorCode")
            if isinstance(code, int) and not isinstance(code, bool) and abs(code) <= CODE_MAX:
                return Reply(
                    status=status,
                    code=code,
                    info=redact(_text(parsed.get("ErrorInfo")))[:INFO_CHARACTERS_MAX],
                    topic_id=_text(parsed.get("TopicId")) or None,
                    action_status=_text(parsed.get("ActionStatus")),
                )
        failure = "an answer without an ErrorCode" if content else "an empty answer"
        return Reply(status=status, failure=failure, may_have_taken_effect=True)
    # A call that a gateway refuses itself (3xx, 4xx) never reached the service; one with a 5xx may.
    reached = status >= SERVER_ERRORS_FROM or status == REQUEST_TIMEOUT or status < OK + 100
    return Reply(status=status, failure=f"HTTP {status}", may_have_taken_effect=reached)


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


async def _beginning(stream: aiohttp.StreamReader) -> bytes:
    pieces: list[bytes] = []
    left = BODY_BYTES_MAX
    while left > 0 and (piece := await stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _failed(error: Exception) -> Reply:
    """Return the reply for a transport failure, without the URL, which holds the signature."""
    unsent = _before_sending(error)
    if unsent:
        return Reply(failure=unsent)
    match error:
        case TimeoutError():
            failure = "no answer in time"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            failure = "the connection was cut before the answer"
        case aiohttp.ClientPayloadError():
            failure = "the answer was cut short"
        case _:
            failure = f"the answer could not be read ({type(error).__name__})"
    return Reply(failure=failure, may_have_taken_effect=True)


def _before_sending(error: Exception) -> str | None:
    """Return the reason if the call was certainly not sent, None if it may have been."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return f"TLS failed: {_os_reason(error)}"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy cannot be reached: {_os_reason(error)}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered HTTP {error.status}"
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {_os_reason(error)}"
        case aiohttp.ConnectionTimeoutError():
            return "cannot connect: timed out"
        case aiohttp.InvalidURL():
            return "cannot connect: the address is not valid"
        case _:
            return None


def _os_reason(error: Exception) -> str:
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message
    number = getattr(inner, "errno", None)
    # DNS failures have numbers below zero, which strerror does not know, and a text of their own.
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return getattr(inner, "strerror", None) or type(inner or error).__name__
