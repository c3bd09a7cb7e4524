"""A client of Redis as this program wants it: it fails soon, and says in words what a URL lacks."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECTIONS_MAX = 16


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
