"""A client of Redis as this program wants it: it fails soon, and says in words what a URL lacks."""

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError

CONNECTIONS_MAX = 16
ASKS_WHO = "it asks for a password: redis://:PASSWORD@host:6379/0, or redis://USER:PASSWORD@..."
MEANINGS = {
    "HELLO must be called": ASKS_WHO,
    "NOAUTH": ASKS_WHO,
    "Authentication required": ASKS_WHO,
    "invalid username-password": "the user name or the password is wrong",
    "OOM": "it is full: raise its maxmemory, and keep maxmemory-policy noeviction",
    "maxmemory": "it is full: raise its maxmemory, and keep maxmemory-policy noeviction",
    "MOVED": "it is a cluster: the URL must name the node that holds the stream",
    "MISCONF": "its disk refuses to keep what it is given: make room there, and see its log",
    "READONLY": "it is a replica that only reads: name its master",
    "WRONGTYPE": "a key of the stream holds something else: give another stream in queue.url",
}
"""What is meant, by a part of what Redis says."""


def redis_client(url: str, answer_timeout_s: float, connect_timeout_s: float) -> Any:
    """Make a client; it connects at its first call. Raises ValueError for a wrong option in `url`.

    Typed Any: redis-py's types allow for the synchronous client in every answer.
    """
    client = Redis.from_url(
        url,
        socket_timeout=answer_timeout_s,
        socket_connect_timeout=connect_timeout_s,
        max_connections=CONNECTIONS_MAX,
        retry=Retry(NoBackoff(), 0),
    )
    pool = client.connection_pool
    if pool.connection_kwargs.get("decode_responses"):
        raise ValueError("decode_responses has no place in the URL")
    try:
        pool.connection_class(**pool.connection_kwargs)
    except TypeError:
        names = ", ".join(dict(parse_qsl(urlsplit(url).query)))
        raise ValueError(f"no such option in the URL: one of {names}") from None
    return client


def sentence(error: Exception) -> str:
    """Say what Redis said, and what to do where it is known."""
    said = str(error) or type(error).__name__
    if isinstance(error, MovedError):
        said = "MOVED"
    for mark, meaning in MEANINGS.items():
        if re.search(rf"\b{mark}\b", said):
            return f"Redis: {meaning}"
    return f"Redis: {said}"
