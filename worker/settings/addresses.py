"""Which hosts, ports and URLs a setting may name."""

import ipaddress
import re
from urllib.parse import urlsplit

SIGNS_IN_REDIS_URL = "in its password / is written %2F, ? %3F, # %23, [ %5B, @ %40"


REDIS_URLS = ("redis://", "rediss://", "unix://")


def is_redis_url(url: str) -> bool:
    """Whether a URL can be taken apart, so that no error has to show a part of its password.

    One with / or # in it ends the host too early; its beginning would be told as host and port.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme == "unix":
        return True
    return "@" not in parts.fragment and re.fullmatch(r"(/[0-9]*)?", parts.path) is not None


PORT_MAX = 65_535


ADDRESSES = (
    "write 127.0.0.1:9180, [::1]:9180 or, for every interface, 0.0.0.0:9180; port 0: a free one"
)


def host_and_port(listen: str) -> tuple[str, int]:
    """Read `host:port`, an IPv6 address in brackets. Raises ValueError with a sentence."""
    host, _, port = listen.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise ValueError(f"wants a port from 0 to {PORT_MAX} after the host: {ADDRESSES}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"has no IPv6 address in its brackets: {ADDRESSES}") from None
    elif ":" in host:
        raise ValueError(f"wants an IPv6 address in brackets: {ADDRESSES}")
    if not host:
        raise ValueError(f"names no host: {ADDRESSES}")
    return host, int(port)


def is_proxy_url(url: str) -> bool:
    """Tell whether a proxy can be meant by this."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(host)


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address stays on this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
