"""The way to the service step by step: name, TCP, TLS, one call; for `doctor` alone.

Imports go through `chat`, which hides these steps. Here each has its own error and its measures,
and the answer keeps its Date. Everything blocks, and every step has an end.
"""

import base64
import http.client
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote, urlencode, urlsplit

from worker.transport.contract import HEADERS, NO_TLS

BODY_BYTES_MAX = 65_536
RANDOM_MAX = 2**32
HTTP_PORT, HTTPS_PORT = 80, 443


class ProbeError(Exception):
    """A step failed; the text says how, without a secret. `is_certificate`: it is not trusted."""

    def __init__(self, message: str, *, is_certificate: bool = False) -> None:
        super().__init__(message)
        self.is_certificate = is_certificate


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach the service; times in seconds. `proxy`: the URL of an HTTP proxy."""

    base_url: str
    connect_timeout_s: float
    total_timeout_s: float
    proxy: str | None = None
    ca_file: str | None = None

    @property
    def is_tls(self) -> bool:
        """Whether the service is called by https."""
        return urlsplit(self.base_url).scheme == "https"

    @property
    def first_hop(self) -> tuple[str, int]:
        """Host and port that are connected to: those of the proxy, if there is one."""
        return _host_and_port(self.proxy or self.base_url)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was verified. `ends_s`: Unix seconds."""

    issuer: str
    ends_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP. `skew_s`: how far this clock is ahead of its Date, None without one."""

    status: int
    content: bytes
    skew_s: float | None


def look_up(way: Way) -> list[str]:
    """Return the addresses of the host that is connected to. Raises ProbeError."""
    host, port = way.first_hop
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ProbeError(f"{host}: {getattr(error, 'strerror', None) or 'no name'}") from None
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def connect(way: Way) -> float:
    """Connect and hang up; return the seconds that it took. Raises ProbeError."""
    began_s = time.monotonic()
    host, port = way.first_hop
    try:
        socket.create_connection((host, port), way.connect_timeout_s).close()
    except OSError as error:
        raise ProbeError(f"{host}:{port}: {_reason(error)}") from None
    return time.monotonic() - began_s


def verify(way: Way) -> Certificate:
    """Return the certificate of the service, which must be trusted. Raises ProbeError."""
    with _opened(way) as connection:
        tls = connection.sock
        assert isinstance(tls, ssl.SSLSocket)  # noqa: S101 - `_opened` made it so
        found = tls.getpeercert() or {}
    return Certificate(_issuer(found), ssl.cert_time_to_seconds(str(found["notAfter"])))


def call(way: Way, path: str, query: Mapping[str, str], body: bytes) -> Answer:
    """Make one call, and return its answer, as far as BODY_BYTES_MAX. Raises ProbeError."""
    parts = urlsplit(way.base_url)
    fields = {**query, "random": str(secrets.randbelow(RANDOM_MAX)), "contenttype": "json"}
    encoded = urlencode(fields, quote_via=quote, safe="*-_")
    target = f"{parts.path.rstrip('/')}/{path.strip('/')}?{encoded}"
    headers = dict(HEADERS)
    if way.proxy and not way.is_tls:
        target = f"http://{parts.netloc}{target}"
        headers |= _login(way.proxy)
    with _opened(way) as connection:
        began_s = time.time()
        try:
            connection.request("POST", target, body, headers)
            with connection.getresponse() as response:
                content = response.read(BODY_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise ProbeError(_cut(error)) from None
        middle_s = (began_s + time.time()) / 2
    return Answer(response.status, content, _skew_s(response.headers.get("Date"), middle_s))


@contextmanager
def _opened(way: Way) -> Iterator[http.client.HTTPConnection]:
    """Yield a connection to the service, through the proxy and with TLS where that is the way.

    It is cut at the end of the total timeout, whatever the other side sends until then.
    """
    host, port = way.first_hop
    connection = http.client.HTTPConnection(host, port, timeout=way.connect_timeout_s)
    # Opened anew by itself, it would send the signature without TLS.
    connection.auto_open = 0
    service_host, service_port = _host_and_port(way.base_url)
    if way.proxy and way.is_tls:
        connection.set_tunnel(service_host, service_port, _login(way.proxy))
    timer = threading.Timer(way.total_timeout_s, lambda: _cut_off(connection))
    timer.daemon = True
    try:
        _open(connection, way, service_host)
        timer.start()
        yield connection
    finally:
        timer.cancel()
        connection.close()


def _open(connection: http.client.HTTPConnection, way: Way, service_host: str) -> None:
    try:
        connection.connect()
        if way.is_tls:
            context = ssl.create_default_context(cafile=way.ca_file)
            connection.sock = context.wrap_socket(connection.sock, server_hostname=service_host)
    except ssl.SSLCertVerificationError as error:
        raise ProbeError(error.verify_message, is_certificate=True) from None
    except http.client.HTTPException as error:
        raise ProbeError(_cut(error)) from None
    except OSError as error:
        through = "the proxy refuses: " if "Tunnel" in str(error) else ""
        raise ProbeError(f"{through}{_reason(error)}") from None
    connection.sock.settimeout(way.total_timeout_s)


def _cut_off(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError, AttributeError):  # it may be closed already
        connection.sock.shutdown(socket.SHUT_RDWR)


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (
        HTTPS_PORT if parts.scheme == "https" else HTTP_PORT
    )


def _login(proxy: str) -> dict[str, str]:
    """Return the header by which the proxy knows us, none if its URL names no user."""
    parts = urlsplit(proxy)
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _issuer(certificate: Mapping[str, object]) -> str:
    """Return the organisation, else the common name, of who signed a certificate."""
    parts = certificate.get("issuer") or ()
    names = {name: text for part in parts for name, text in part}  # type: ignore[attr-defined]
    return str(names.get("organizationName") or names.get("commonName") or "")


def _skew_s(date: str | None, now_s: float) -> float | None:
    """Return how far `now_s` is ahead of a Date, which is cut to whole seconds."""
    if date is None:
        return None
    try:
        return now_s - parsedate_to_datetime(date).timestamp() - 0.5
    except (ValueError, OverflowError):
        return None


def _cut(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError | http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "the connection was cut before the answer"
    return f"the answer is no HTTP ({type(error).__name__})"


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        text = error.reason.replace("_", " ").lower()
        return f"{text}: it does not speak TLS" if error.reason in NO_TLS else text
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror or str(error) or type(error).__name__
