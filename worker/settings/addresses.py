"""Which hosts, ports and URLs a setting may name."""

import ipaddress
import re
from urllib.parse import urlsplit

REDIS_URLS = ("redis://", "rediss://", "unix://")
PORT_MAX = 65_535
_LISTEN_EXAMPLES = (
    "write 127.0.0.1:9180, [::1]:9180 or, for every interface, 0.0.0.0:9180; port 0: a free one"
)


def check_service_url(url: str) -> None:
    """Raise ValueError with a sentence unless this is the plain http(s) URL of a host."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("must be a URL like https://console.tim.qq.com")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError("must hold no query, fragment, user or password")


def check_redis_url(url: str) -> None:
    """Raise ValueError with a sentence, which repeats nothing of the URL, unless Redis is meant."""
    if not (url.startswith(REDIS_URLS) and _is_whole_redis_url(url)):
        raise ValueError(
            "must be a URL like redis://host:6379/0; "
            "in its password / is written %2F, ? %3F, # %23, [ %5B, @ %40"
        )


def _is_whole_redis_url(url: str) -> bool:
    """Return whether the password of a Redis URL ends where its writer meant it to.

    An unescaped / or # in the password ends the host too early. What stands before it would be
    used, and shown in errors, as host and port.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme == "unix":
        return True
    return "@" not in parts.fragment and re.fullmatch(r"(/[0-9]*)?", parts.path) is not None


def host_and_port(listen: str) -> tuple[str, int]:
    """Return host and port of `host:port`; an IPv6 address is written in brackets.

    Raises ValueError with a sentence.
    """
    host, _, port = listen.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise ValueError(f"wants a port from 0 to {PORT_MAX} after the host: {_LISTEN_EXAMPLES}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"has no IPv6 address in its brackets: {_LISTEN_EXAMPLES}") from None
    elif ":" in host:
        raise ValueError(f"wants an IPv6 address in brackets: {_LISTEN_EXAMPLES}")
    if not host:
        raise ValueError(f"names no host: {_LISTEN_EXAMPLES}")
    return host, int(port)


def is_proxy_url(url: str) -> bool:
    """Return whether this is the URL of an HTTP proxy."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(host)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address stays on this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
