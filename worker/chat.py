"""One call over HTTP becomes a reply: import_topic and get_topic. The only module that knows HTTP.

Source: REST overview (URL, query, reply), REST pages of import_topic (path, body) and get_topic.
"""

import asyncio
import functools
import os
import random
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader
from yarl import URL

from worker.redaction import redact
from worker.rules.comparison import TOO_LARGE, TopicsReply, read_items
from worker.rules.usersig import Signature
from worker.rules.verdict import REQUEST_TIMEOUT, Reply, SetupFault
from worker.settings.addresses import is_loopback

BODY_BYTES_MAX = 65_536
"""How much of a reply is read; one of import_topic has some hundred bytes."""
TOPICS_BYTES_MAX = 1_100_000
"""The same for get_topic, which answers 10018 instead of more than 1 MB."""
GET_TOPIC_PATH = "v4/million_group_open_http_svc/get_topic"
INFO_CHARACTERS_MAX = 500
INTERIM_ANSWERS_MAX = 32
"""Answers with HTTP 1xx before the answer to one call; gateways send one or two."""
KEEP_ALIVE_S = 15.0
"""Shorter than gateways keep an idle connection open: a POST on one that they just closed fails."""
DNS_CACHE_S = 60
RANDOM_MAX = 2**32 - 1
CODE_MAX = 2**31 - 1
INTERIM_FROM = 100
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
"""What OpenSSL names a first answer that is no TLS; its releases differ."""
NO_TLS_SPOKEN = "the server does not speak TLS: is it plain http?"
SWITCHING_PROTOCOLS = 101
OK = 200
SERVER_ERRORS_FROM = 500


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


class InterimAnswersError(aiohttp.ClientError):
    """The other side sends interim answers (HTTP 1xx) and no answer."""


class _Connection(ResponseHandler):
    """A connection that keeps no interim answers, and is cut when it gets too many answers.

    aiohttp queues each of them without a bound. An endless stream filled the memory, and kept the
    event loop from handling timeouts and signals.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim_answers = 0

    def set_response_params(self, **parameters: Any) -> None:
        """Begin a call: aiohttp does this before it sends the request."""
        self._interim_answers = 0
        super().set_response_params(**parameters)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Queue an answer for the call that waits for it."""
        if is_interim(data[0].code):
            self._interim_answers += 1
        else:
            super().feed_data(data, size)
        # Answers that nobody asked for are queued, too, also while the connection is idle.
        is_flooded = self._interim_answers + len(self._buffer) > INTERIM_ANSWERS_MAX
        if is_flooded and self.exception() is None:
            self.set_exception(InterimAnswersError())
            if self.transport is not None:
                self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    """Makes connections of the kind above; aiohttp has no public way to choose it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory = functools.partial(_Connection, loop=asyncio.get_running_loop())
        self._factory = cast("functools.partial[ResponseHandler]", factory)


def is_interim(status: int) -> bool:
    """Return whether the answer with this HTTP status is followed by the real one."""
    return INTERIM_FROM <= status < OK and status != SWITCHING_PROTOCOLS


@dataclass(frozen=True, slots=True)
class _Answer:
    """An HTTP answer, as far as it is read."""

    status: int
    content: bytes
    retry_after: str | None


class ImportTopicClient:
    """Calls `import_topic` and `get_topic`; every failure is a reply. An async context manager.

    `chance(low, high)` draws the `random` of each call's query, both ends included.
    """

    def __init__(
        self, endpoint: Endpoint, *, chance: Callable[[int, int], int] = random.randint
    ) -> None:
        self._endpoint = endpoint
        self._chance = chance
        self._url_starts: dict[str, str] = {}
        self._url_generation = -1
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        endpoint = self._endpoint
        own_store = endpoint.ca_file and ssl.create_default_context(cafile=endpoint.ca_file)
        connector = _Connector(
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
        answer = await self._post(self._endpoint.path, body, signature, BODY_BYTES_MAX)
        if isinstance(answer, Reply):
            return answer
        reply = read_reply(answer.status, answer.content)
        if answer.retry_after is None:
            return reply
        return replace(reply, retry_after_s=read_retry_after(answer.retry_after, time.time()))

    async def get_topics(
        self, group_id: str, topic_ids: Sequence[str], signature: Signature
    ) -> TopicsReply:
        """Read the topics of a community with these IDs; without IDs all of them.

        Raises nothing but CancelledError.
        """
        question: dict[str, Any] = {"GroupId": group_id, "From_Account": self._endpoint.admin}
        if topic_ids:
            question["TopicIdList"] = list(topic_ids)
        body = orjson.dumps(question)
        answer = await self._post(GET_TOPIC_PATH, body, signature, TOPICS_BYTES_MAX)
        if isinstance(answer, Reply):
            return TopicsReply(failure=answer.failure)
        return read_topics_reply(answer.status, answer.content, topic_ids)

    async def _post(
        self, path: str, body: bytes, signature: Signature, bytes_max: int
    ) -> _Answer | Reply:
        """Return the answer with at most `bytes_max` of its content, or a Reply for a failure.

        Raises nothing but CancelledError.
        """
        try:
            async with self._session.post(
                self._url(signature, path),
                data=body,
                allow_redirects=False,
                proxy=self._endpoint.proxy,
            ) as response:
                content = await _beginning(response.content, bytes_max)
                return _Answer(response.status, content, response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return _failed(error)

    def _url(self, signature: Signature, path: str | None = None) -> URL:
        """Return the URL of a call; without `path` that of import_topic."""
        if signature.generation != self._url_generation:
            self._url_starts.clear()
            self._url_generation = signature.generation
        path = path or self._endpoint.path
        start = self._url_starts.get(path)
        if start is None:
            start = self._url_starts[path] = self._url_start(signature, path)
        return URL(f"{start}{self._chance(0, RANDOM_MAX)}", encoded=True)

    def _url_start(self, signature: Signature, path: str) -> str:
        endpoint = self._endpoint
        return (
            f"{endpoint.base_url.rstrip('/')}/{path.strip('/')}"
            f"?sdkappid={endpoint.sdk_app_id}&identifier={quote(endpoint.admin, safe='')}"
            f"&usersig={quote(signature.value, safe='*-_')}&contenttype=json&random="
        )


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
        code = _code(parsed)
        if code is not None:
            return Reply(
                status=status,
                code=code,
                info=_info(parsed),
                topic_id=_text(parsed.get("TopicId")) or None,
                action_status=_text(parsed.get("ActionStatus")),
            )
        return Reply(status=status, failure=_without_a_code(content), may_have_taken_effect=True)
    # A call that a gateway refuses itself (3xx, 4xx) never reached the service; one with a 5xx may.
    reached = status >= SERVER_ERRORS_FROM or status == REQUEST_TIMEOUT or status < OK + 100
    return Reply(status=status, failure=f"HTTP {status}", may_have_taken_effect=reached)


def read_topics_reply(status: int, content: bytes, topic_ids: Sequence[str]) -> TopicsReply:
    """Return the reply of get_topic in an HTTP answer.

    The page calls the ErrorCode meaningless if the call as such worked, so items count more.
    """
    if status != OK:
        return TopicsReply(status=status, failure=f"HTTP {status}")
    parsed = _parsed(content)
    code = _code(parsed)
    if code is None:
        if len(content) >= TOPICS_BYTES_MAX:
            info = f"the reply is larger than {TOPICS_BYTES_MAX} bytes"
            return TopicsReply(status=status, code=TOO_LARGE, info=info)
        return TopicsReply(status=status, failure=_without_a_code(content))
    items = parsed.get("TopicAndSelfInfo")
    if code and not items:
        return TopicsReply(status=status, code=code, info=_info(parsed))
    topics, item_codes = read_items(items if isinstance(items, list) else [], topic_ids)
    return TopicsReply(status=status, code=0, topics=topics, item_codes=item_codes)


def read_retry_after(header: str | None, now_s: float) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, None without a sensible one.

    It holds seconds or a date (RFC 9110, section 10.2.3). `now_s` in Unix seconds.
    """
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None


def _code(parsed: Any) -> int | None:
    """Return the ErrorCode of a body, None if it is not the service's."""
    code = parsed.get("ErrorCode") if isinstance(parsed, dict) else None
    is_code = isinstance(code, int) and not isinstance(code, bool) and abs(code) <= CODE_MAX
    return code if is_code else None


def _info(parsed: Any) -> str:
    return redact(_text(parsed.get("ErrorInfo")))[:INFO_CHARACTERS_MAX]


def _without_a_code(content: bytes) -> str:
    return "an answer without an ErrorCode" if content else "an empty answer"


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


async def _beginning(stream: aiohttp.StreamReader, bytes_max: int) -> bytes:
    pieces: list[bytes] = []
    left = bytes_max
    while left > 0 and (piece := await stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _failed(error: Exception) -> Reply:
    """Return the reply for a transport failure, without the URL, which holds the signature."""
    unsent = _before_sending(error)
    if unsent:
        return Reply(failure=unsent, setup_fault=_setup_fault(error))
    match error:
        case TimeoutError():
            failure = "no answer in time"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            failure = "the connection was cut before the answer"
        case InterimAnswersError():
            failure = f"more than {INTERIM_ANSWERS_MAX} interim answers (HTTP 1xx) and no answer"
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


def _setup_fault(error: Exception) -> SetupFault | None:
    """Return why no call may ever succeed, as far as a failure before sending shows it."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return SetupFault.CERTIFICATE
        case aiohttp.ClientConnectorError() | aiohttp.ClientHttpProxyError() | aiohttp.InvalidURL():
            return SetupFault.ADDRESS
        case _:
            return None


def _os_reason(error: Exception) -> str:
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message
    if isinstance(inner, ssl.SSLError) and inner.reason:
        # Its errno is a number of OpenSSL: strerror would say "Operation not permitted".
        reason = inner.reason.replace("_", " ").lower()
        return f"{reason} ({NO_TLS_SPOKEN})" if inner.reason in NO_TLS else reason
    number = getattr(inner, "errno", None)
    # DNS failures have numbers below zero, which strerror does not know, and a text of their own.
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return getattr(inner, "strerror", None) or type(inner or error).__name__
