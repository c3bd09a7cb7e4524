"""What the streams of a queue in Redis hold, read without taking anything."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.queues.contract import QueueAwayError, QueueError
from worker.redis_client import redis_client, sentence
from worker.rules.counts import PLACES, Counts

ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
LAST_ANSWER_S = 1.0
"""For the answer to a call that was under way, or that settles what is left, once given up."""
LETTERS_AT_ONCE = 500
DEFAULT_PORT = 6379
REDIS_IS_AWAY = (RedisConnectionError, RedisTimeoutError, OSError)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, repr=False)
class StreamUrl:
    """`redis://host:6379/0?stream=topics&group=importers`, taken apart."""

    server: str
    stream: str
    group: str

    def __str__(self) -> str:
        parts = urlsplit(self.server)
        place = f"{parts.hostname or parts.path}:{parts.port or DEFAULT_PORT}"
        return f"stream {self.stream}, group {self.group} at {place}"

    @classmethod
    def parse(cls, url: str) -> "StreamUrl":
        """Take a URL apart; the server's own options (`ssl_cert_reqs` ...) stay in it.

        Raises ValueError for an empty name.
        """
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        stream = options.pop("stream", "topics")
        group = options.pop("group", "importers")
        if not (stream and group):
            raise ValueError("stream= and group= need a name")
        return cls(urlunsplit(parts._replace(query=urlencode(options))), stream, group)


class Streams:
    """A connection to the streams of one queue. Reading raises QueueError while Redis is away."""

    def __init__(self, url: StreamUrl) -> None:
        self._url = url
        self._redis = redis_client(url.server, ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S)
        self._look = self._redis.register_script(script("look"))
        self._given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._does_not_answer = False

    @property
    def name(self) -> str:
        """Which queue it is, for people; no part of it is secret."""
        return str(self._url)

    def give_up(self) -> None:
        """Wait for Redis no longer; what is not settled stays pending and is taken over."""
        if not self._given_up.done():
            self._given_up.set_result(None)

    async def close(self) -> None:
        """Leave."""
        await self._redis.aclose()

    async def _once(self, call: Awaitable[Result]) -> Result:
        """Await one call, once given up for a last moment only.

        Raises RedisError, OSError, or as one of these TimeoutError.
        """
        # In a task of its own that is left behind: redis-py 8.1 swallows most cancellations that
        # come during a call (76 of 100 measured).
        calling: asyncio.Future[Any] = asyncio.ensure_future(call)
        calling.add_done_callback(_failed_for_nobody)
        await asyncio.wait({calling, self._given_up}, return_when=asyncio.FIRST_COMPLETED)
        if not calling.done() and not self._does_not_answer:
            await asyncio.wait({calling}, timeout=LAST_ANSWER_S)
        if not calling.done():
            self._does_not_answer = True
            raise TimeoutError("it does not answer")
        result: Result = calling.result()
        return result

    def _key(self, name: str) -> str:
        return f"{self._url.stream}:{name}"

    async def counts(self) -> Counts:
        """Tell where all records are, as Redis kept count of it."""
        return (await self.look())[0]

    async def look(self) -> tuple[Counts, dict[str, int]]:
        """Tell the counts, and the entries in the streams at the same moment."""
        names = {"queued": self._url.stream, "imported": self._key("imported"),
                 "dead": self._key("dead")}  # fmt: skip
        keys = [self._key("counts"), self._key("lost"), *names.values()]
        kept, lost, found = await self._asked(self._look(keys=keys))
        lengths = dict(zip(names, found, strict=True))
        n = {text(k): int(v) for k, v in zip(kept[::2], kept[1::2], strict=True)}
        kept = n | {"queued": lengths["queued"], "lost": lost}
        read = sum(kept.get(name, 0) for name in PLACES)
        counts = Counts.from_kept(kept | {"read": read})
        return counts, lengths

    async def consumers(self) -> dict[str, int]:
        """Tell how many entries each consumer holds; none where nobody ever took any."""
        try:
            infos = await self._once(self._redis.xinfo_consumers(self._url.stream, self._url.group))
        except (RedisError, OSError) as error:
            if str(error).startswith(("no such key", "NOGROUP")):
                return {}
            raise queue_error(error) from None
        return {text(info["name"]): info["pending"] for info in infos}

    async def is_empty(self) -> bool:
        """Whether nothing waits and no consumer holds anything."""
        if await self._asked(self._redis.xlen(self._url.stream)):
            return False
        pending = await self._asked(self._redis.xpending(self._url.stream, self._url.group))
        return not pending["pending"]

    async def oldest_age_s(self) -> float:
        """Tell for how many seconds the oldest record has been in the queue; 0: it is empty."""
        first = await self._asked(self._redis.xrange(self._url.stream, count=1))
        if not first:
            return 0.0
        return max(0.0, time.time() - int(first[0][0].split(b"-")[0]) / 1000)

    async def letters(self) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """Read the dead letters of now in pages of (entry, line).

        Not those that come meanwhile: a replay would meet its own again and never end.
        """
        key, after = self._key("dead"), "-"
        last = await self._asked(self._redis.xrevrange(key, count=1))
        while last and (
            page := await self._asked(
                self._redis.xrange(key, min=after, max=last[0][0], count=LETTERS_AT_ONCE)
            )
        ):
            yield [(entry_id, fields[b"line"]) for entry_id, fields in page if b"line" in fields]
            after = f"({page[-1][0].decode()}"

    async def unfinished_inputs(self) -> list[str]:
        inputs = await self._asked(self._redis.hgetall(self._key("inputs")))
        return sorted(text(path) for path, unfinished in inputs.items() if unfinished == b"1")

    async def _asked(self, call: Awaitable[Any]) -> Any:
        """Await an answer that nobody waits for when Redis is away: raises QueueError then."""
        try:
            return await self._once(call)
        except (RedisError, OSError) as error:
            raise queue_error(error) from None


def queue_error(error: Exception) -> QueueError:
    """Say what went wrong, and whether it may pass by itself."""
    kind = QueueAwayError if isinstance(error, REDIS_IS_AWAY) else QueueError
    return kind(f"queue.url: {sentence(error)}")


def script(name: str) -> str:
    files = resources.files("worker.queues.redis").joinpath("lua")
    return "".join(files.joinpath(f"{part}.lua").read_text() for part in ("common", name))


def text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _failed_for_nobody(call: asyncio.Future[Any]) -> None:
    """Let a call that nobody awaits any more fail in silence."""
    if not call.cancelled():
        call.exception()
