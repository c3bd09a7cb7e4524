"""Redis clients that fail soon, and the errors of Redis in sentences for people."""

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError

CONNECTIONS_MAX = 16
_NEEDS_LOGIN = "it asks for a password: redis://:PASSWORD@host:6379/0, or redis://USER:PASSWORD@..."
_MEANINGS = {
    "HELLO must be called": _NEEDS_LOGIN,
    "NOAUTH": _NEEDS_LOGIN,
    "Authentication required": _NEEDS_LOGIN,
    "invalid username-password": "the user name or the password is wrong",
    "OOM": "it is full: raise its maxmemory, and keep maxmemory-policy noeviction",
    "maxmemory": "it is full: raise its maxmemory, and keep maxmemory-policy noeviction",
    "MOVED": "it is a cluster: the URL must name the node that holds the stream",
    "MISCONF": "its disk refuses to keep what it is given: make room there, and see its log",
    "READONLY": "it is a replica that only reads: name its master",
    "WRONGTYPE": "a key of the stream holds something else: give another stream in queue.url",
}
"""Meaning and remedy of an error, by a word of its text."""


def redis_client(url: str, answer_timeout_s: float, connect_timeout_s: float) -> Any:
    """Return a client without retries, which connects at its first call; timeouts in seconds.

    Raises ValueError with a sentence if the URL has an unknown or unsuitable option.
    Typed Any: redis-py's types allow for the synchronous client in every reply.
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
    """Return an error of Redis as a sentence, with what to do if that is known."""
    text = str(error) or type(error).__name__
    if isinstance(error, MovedError):
        text = "MOVED"
    for word, meaning in _MEANINGS.items():
        if re.search(rf"\b{word}\b", text):
            return f"Redis: {meaning}"
    return f"Redis: {text}"
