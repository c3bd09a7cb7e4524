"""Patience with Redis: calls whose effect must not be dropped are repeated until it answers."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from redis.exceptions import RedisError

from worker.logs import logger
from worker.queues.contract import QueueError
from worker.queues.redis.connection import Connection, queue_error
from worker.queues.redis.group import Group
from worker.redis_client import sentence

log = logger()

RETRY_S = 0.5

Result = TypeVar("Result")


class OutageListener(Protocol):
    """A part of a queue that must know of failed calls."""

    def call_failed(self) -> None:
        """React to a failed call: nobody knows what it did."""
        ...

    def outage_ended(self) -> None:
        """React to the end of an outage: all kinds of calls succeed again."""
        ...


class Patience:
    """Repeats calls until Redis answers or is given up, and knows what fails now.

    `is_patient` False: raises QueueError at the first failure.
    """

    def __init__(
        self,
        connection: Connection,
        group: Group,
        *,
        is_patient: bool = True,
        listener: OutageListener | None = None,
    ) -> None:
        self._connection = connection
        self._group = group
        self._is_patient = is_patient
        self._listener = listener
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str | None:
        """Why Redis cannot be used now; None while it can."""
        return next(iter(self._troubles.values()), None)

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script until it succeeds. Raises QueueError once Redis is given up."""
        return await self.insist(name, lambda: self._connection.call_script(name, keys, arguments))

    async def insist(self, kind: str, start: Callable[[], Awaitable[Result]]) -> Result:
        """Start calls of one kind until one succeeds. Raises QueueError once Redis is given up."""
        while True:
            try:
                result = await self._connection.once(start())
            except (RedisError, OSError) as error:
                if not self._is_patient:
                    raise queue_error(error) from None
                await self.failed(kind, error)
                if self._connection.is_given_up:
                    raise QueueError(f"the queue: {sentence(error)}") from None
            else:
                self.succeeded(kind)
                return result

    async def failed(self, kind: str, error: Exception) -> None:
        """Remember that one kind of call fails, and pause; other kinds may still succeed.

        A Redis that is full, for example, refuses to put and still settles.
        """
        if not self._troubles:
            log.warning("the queue cannot be used now; waiting for it", reason=sentence(error))
        self._troubles[kind] = sentence(error)
        if self._listener:
            self._listener.call_failed()
        await self.pause()
        if not self._connection.is_given_up:
            with suppress(RedisError, OSError):
                await self._connection.close_idle()
                await self._group.make()

    def succeeded(self, kind: str) -> None:
        """Remember that one kind of call succeeds again."""
        if self._troubles.pop(kind, None) and not self._troubles:
            log.info("the queue can be used again")
            if self._listener:
                self._listener.outage_ended()

    async def pause(self) -> None:
        """Wait before the next try, but not beyond giving up."""
        await self._connection.pause(RETRY_S)
