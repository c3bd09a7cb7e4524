"""Patience with Redis: what must not be dropped waits for one that is away."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from worker.logs import logger
from worker.queues.contract import QueueError
from worker.queues.redis.streams import Streams, StreamUrl, queue_error, script
from worker.redis_client import sentence

log = logger()

RETRY_S = 0.5
WORDS_BYTES = 8 << 20
WORDS_MAX = 500
"""How much a script is handed at once: Redis takes no more than 512 MB, and does nothing else."""
SCRIPTS = (
    "put", "take_new", "take_over", "register", "settle", "extend", "lose", "requeue", "tidy",
)  # fmt: skip

Result = TypeVar("Result")


class PatientStreams(Streams):
    """Runs the scripts of the queue, again and again until Redis answers or is given up.

    `is_patient` False: raises QueueError at once.
    """

    def __init__(self, url: StreamUrl, *, is_patient: bool) -> None:
        super().__init__(url)
        self._is_patient = is_patient
        self._was_opened = False
        self._troubles: dict[str, str] = {}
        self._clock = asyncio.get_running_loop().time
        self._scripts = {name: self._redis.register_script(script(name)) for name in SCRIPTS}

    @property
    def trouble(self) -> str | None:
        """Why Redis cannot be used now."""
        return next(iter(self._troubles.values()), None)

    def _out_of_touch(self) -> None:
        """Note that a call failed: what it did is not known."""

    async def _made_anew(self) -> None:
        """Say again whose queue it is."""

    def _in_touch_again(self) -> None:
        """Note that all kinds of calls go through again."""

    async def _make_group(self) -> None:
        try:
            await self._once(
                self._redis.xgroup_create(self._url.stream, self._url.group, "0", mkstream=True)
            )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        else:
            if self._was_opened:
                log.error(
                    "the queue in Redis was gone and is made anew: enqueue again what it held",
                    stream=self._url.stream,
                )
                await self._made_anew()

    def _call(self, name: str, keys: Sequence[str], words: Sequence[Any]) -> Awaitable[Any]:
        """Begin to run a script on the stream and on the keys of these names beside it."""
        all_keys = [self._url.stream, *map(self._key, keys)]
        call: Awaitable[Any] = self._scripts[name](keys=all_keys, args=words)
        return call

    async def _run_once(self, name: str, keys: Sequence[str], words: Sequence[Any]) -> Any:
        return await self._once(self._call(name, keys, words))

    async def _run(self, name: str, keys: Sequence[str], words: Sequence[Any]) -> Any:
        return await self._patiently(name, lambda: self._call(name, keys, words))

    async def _patiently(self, name: str, job: Callable[[], Awaitable[Result]]) -> Result:
        while True:
            try:
                result = await self._once(job())
            except (RedisError, OSError) as error:
                if not self._is_patient:
                    raise queue_error(error) from None
                await self._trouble(name, error)
                if self._given_up.done():
                    raise QueueError(f"the queue: {sentence(error)}") from None
            else:
                self._no_trouble(name)
                return result

    async def _trouble(self, name: str, error: Exception) -> None:
        """Note that this kind of call fails, and wait; the others may still work."""
        if not self._troubles:
            log.warning("the queue cannot be used now; waiting for it", reason=sentence(error))
        self._troubles[name] = sentence(error)
        self._out_of_touch()
        await self._pause()
        if not self._given_up.done():
            with suppress(RedisError, OSError):
                # Connections that died with the server would fail one after the other.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
                await self._make_group()

    async def _pause(self) -> None:
        await asyncio.wait({self._given_up}, timeout=RETRY_S)

    def _no_trouble(self, name: str) -> None:
        if self._troubles.pop(name, None) and not self._troubles:
            log.info("the queue can be used again")
            self._in_touch_again()


def in_parts(words: list[bytes]) -> Iterator[list[bytes]]:
    """Split what a script is handed into parts of a bounded size, in order."""
    part: list[bytes] = []
    part_bytes = 0
    for word in words:
        if part and (part_bytes + len(word) > WORDS_BYTES or len(part) >= WORDS_MAX):
            yield part
            part, part_bytes = [], 0
        part.append(word)
        part_bytes += len(word)
    if part:
        yield part
