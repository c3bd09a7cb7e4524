"""One call over HTTP becomes a reply: import_topic and get_topic.

Source: REST overview (URL, query, reply), REST pages of import_topic (path, body) and get_topic.
"""

import functools
import os
import random
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson

from worker.redaction import redact
from worker.rules.comparison import TOO_LARGE, TopicsReply, read_items
from worker.rules.usersig import Signature
from worker.rules.verdict import REQUEST_TIMEOUT, Reply, SetupFault
from worker.settings.addresses import is_loopback
from worker.transport.connections import INTERIM_ANSWERS_MAX, InterimAnswersError
from worker.transport.contract import NO_TLS, Answer, Destination, Transport
from worker.transport.direct import DirectTransport, is_served_directly
from worker.transport.session import SessionTransport

BODY_BYTES_MAX = 65_536
"""How much of a reply is read; one of import_topic has some hundred bytes."""
TOPICS_BYTES_MAX = 1_100_000
"""The same for get_topic, which answers 10018 instead of more than 1 MB."""
GET_TOPIC_PATH = "v4/million_group_open_http_svc/get_topic"
INFO_CHARACTERS_MAX = 500
RANDOM_BITS = 32
RANDOM_MAX = 2**RANDOM_BITS - 1
CODE_MAX = 2**31 - 1
NO_TLS_SPOKEN = "the server does not speak TLS: is it plain http?"
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


class ImportTopicClient:
    """Calls `import_topic` and `get_topic`; every failure is a reply. An async context manager.

    `chance(low, high)` draws the `random` of each call's query, both ends included. `transport`
    makes what carries the calls; by default the fast one, where it can.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        chance: Callable[[int, int], int] | None = None,
        transport: Callable[[Destination], Transport] | None = None,
    ) -> None:
        self._endpoint = endpoint
        if chance is None:
            self._draw = functools.partial(random.getrandbits, RANDOM_BITS)
        else:
            self._draw = functools.partial(chance, 0, RANDOM_MAX)
        origin, self._prefix = _split(endpoint.base_url)
        destination = Destination(
            origin,
            connect_timeout_s=endpoint.connect_timeout_s,
            total_timeout_s=endpoint.total_timeout_s,
            proxy=endpoint.proxy,
            ca_file=endpoint.ca_file,
        )
        if transport is None:
            transport = DirectTransport if is_served_directly(destination) else SessionTransport
        self._transport = transport(destination)
        self._targets: dict[str, str] = {}
        self._target_generation = -1

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__(*_)

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
    ) -> Answer | Reply:
        """Return the answer with at most `bytes_max` of its content, or a Reply for a failure.

        Raises nothing but CancelledError.
        """
        try:
            return await self._transport.post(self.target(signature, path), body, bytes_max)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return _failed(error)

    def target(self, signature: Signature, path: str | None = None) -> str:
        """Return path and query of the URL of a call; without `path` those of import_topic."""
        path = path or self._endpoint.path
        if signature.generation != self._target_generation:
            self._targets.clear()
            self._target_generation = signature.generation
        start = self._targets.get(path)
        if start is None:
            start = self._targets[path] = self._target_start(signature, path)
        return f"{start}{self._draw()}"

    def _target_start(self, signature: Signature, path: str) -> str:
        endpoint = self._endpoint
        start = (
            f"{self._prefix}/{path.strip('/')}"
            f"?sdkappid={endpoint.sdk_app_id}&identifier={quote(endpoint.admin, safe='')}"
            f"&usersig={quote(signature.value, safe='*-_')}&contenttype=json&random="
        )
        if not start.isprintable():
            # A line feed would end the line of the request.
            raise ValueError("the URL holds control characters")
        return start


def _split(base_url: str) -> tuple[str, str]:
    """Return what of a base URL names the server, and the path before that of a call."""
    scheme, separator, rest = base_url.rstrip("/").partition("://")
    server, slash, path = rest.partition("/")
    return f"{scheme}{separator}{server}", f"{slash}{path}"


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
            topic_id = _text(parsed.get("TopicId")) or None
            return Reply(status, code, _info(parsed), topic_id, _text(parsed.get("ActionStatus")))
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
    # An exact type: true and false are numbers for isinstance.
    return code if type(code) is int and abs(code) <= CODE_MAX else None


def _info(parsed: Any) -> str:
    info = parsed.get("ErrorInfo")
    # Empty in nearly all answers, so worth no further look.
    return redact(_text(info))[:INFO_CHARACTERS_MAX] if info else ""


def _without_a_code(content: bytes) -> str:
    return "an answer without an ErrorCode" if content else "an empty answer"


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


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
