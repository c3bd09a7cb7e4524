"""One connection to the Redis of a queue: single calls and scripts, and the end of all waiting."""

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from importlib import resources
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.queues.contract import QueueAwayError, QueueError
from worker.queues.redis.streams import StreamUrl
from worker.redis_client import redis_client, sentence

ANSWER_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
LAST_ANSWER_S = 1.0
"""After giving up: the time for the reply of a call under way, or of one last call."""
ARGUMENTS_BYTES = 8 << 20
ARGUMENTS_MAX = 500
"""Bounds of one call of a script: Redis takes at most 512 MB, and does nothing else meanwhile."""
SCRIPTS = (
    "put", "take_new", "take_own", "take_over", "take_aside", "register", "set_aside", "settle",
    "extend", "lose", "requeue", "tidy", "upgrade", "dismiss", "dismiss_queued", "read_queued",
    "whole_records",
)  # fmt: skip
REDIS_IS_AWAY = (RedisConnectionError, RedisTimeoutError, OSError)

Result = TypeVar("Result")


class Connection:
    """Calls to one server, for one queue. It connects at its first call."""

    def __init__(self, url: StreamUrl) -> None:
        self.url = url
        self.redis = redis_client(url.server, ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S)
        self.scripts: dict[str, Any] = {
            name: self.redis.register_script(script(name)) for name in SCRIPTS
        }
        self._given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._does_not_answer = False

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits for this server any longer."""
        return self._given_up.done()

    def give_up(self) -> None:
        """End all waiting; entries that are not settled stay pending and are taken over."""
        if not self._given_up.done():
            self._given_up.set_result(None)

    async def pause(self, seconds: float) -> None:
        """Sleep, but not beyond giving up."""
        await asyncio.wait({self._given_up}, timeout=seconds)

    async def close(self) -> None:
        await self.redis.aclose()

    async def close_idle(self) -> None:
        """Close the idle connections: those that died with the server would fail one by one."""
        await self.redis.connection_pool.disconnect(inuse_connections=False)

    async def once(self, call: Awaitable[Result]) -> Result:
        """Await one call; after giving up, for at most LAST_ANSWER_S.

        Raises RedisError or OSError (TimeoutError is one).
        """
        # In a task of its own, which is left behind: redis-py 8.1 swallows most cancellations that
        # come during a call (76 of 100 measured).
        calling: asyncio.Future[Any] = asyncio.ensure_future(call)
        calling.add_done_callback(_ignore_failure)
        await asyncio.wait({calling, self._given_up}, return_when=asyncio.FIRST_COMPLETED)
        if not calling.done() and not self._does_not_answer:
            await asyncio.wait({calling}, timeout=LAST_ANSWER_S)
        if not calling.done():
            self._does_not_answer = True
            raise TimeoutError("it does not answer")
        result: Result = calling.result()
        return result

    async def read(self, call: Awaitable[Any]) -> Any:
        """Await one call. Raises QueueError, or QueueAwayError while Redis is away."""
        try:
            return await self.once(call)
        except (RedisError, OSError) as error:
            raise queue_error(error) from None

    def call_script(
        self, name: str, keys: Sequence[str], arguments: Sequence[Any]
    ) -> Awaitable[Any]:
        """Start a script of SCRIPTS on the stream and on the keys of these names beside it."""
        all_keys = [self.url.stream, *map(self.url.key, keys)]
        call: Awaitable[Any] = self.scripts[name](keys=all_keys, args=arguments)
        return call

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script once. Raises as `once`."""
        return await self.once(self.call_script(name, keys, arguments))


def queue_error(error: Exception) -> QueueError:
    """Return the contract's error for an error of Redis: whether it may pass by itself."""
    kind = QueueAwayError if isinstance(error, REDIS_IS_AWAY) else QueueError
    return kind(f"queue.url: {sentence(error)}")


def script(name: str) -> str:
    """Return the text of a script, with what all scripts share before it."""
    files = resources.files("worker.queues.redis").joinpath("lua")
    return "".join(files.joinpath(f"{part}.lua").read_text() for part in ("common", name))


def text(value: bytes | str | None) -> str:
    """Return an answer of Redis as text, empty for none."""
    return value.decode() if isinstance(value, bytes) else value or ""


def in_parts(arguments: list[bytes], count_max: int = ARGUMENTS_MAX) -> Iterator[list[bytes]]:
    """Split the arguments of a script into parts of a bounded size, in order."""
    part: list[bytes] = []
    part_bytes = 0
    for argument in arguments:
        is_full = part_bytes + len(argument) > ARGUMENTS_BYTES or len(part) >= count_max
        if part and is_full:
            yield part
            part, part_bytes = [], 0
        part.append(argument)
        part_bytes += len(argument)
    if part:
        yield part


def _ignore_failure(call: asyncio.Future[Any]) -> None:
    """Read the error of a call that nobody awaits any more, so that asyncio logs nothing."""
    if not call.cancelled():
        call.exception()
