"""Reading the streams of a queue in Redis, without taking anything."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace

from redis.exceptions import RedisError

from worker.queues.redis.connection import Connection, queue_error, script, text
from worker.rules.counts import Counts

LETTERS_AT_ONCE = 500


class StreamReader:
    """Reads counts, dead letters and consumers. All methods raise QueueError while Redis is away.

    Each reads at one moment, except `letters`, `is_empty` and `unfinished_inputs`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._url = connection.url
        self._redis = connection.redis
        self._counts = connection.redis.register_script(script("counts"))

    async def counts(self) -> Counts:
        """Return how many records are in which state."""
        return (await self.counts_and_lengths())[0]

    async def counts_and_lengths(self) -> tuple[Counts, dict[str, int]]:
        """Return the counts, and the lengths of the streams at the same moment.

        The lengths by name: `queued`, `imported`, `dead`.
        """
        url = self._url
        names = {"queued": url.stream, "imported": url.key("imported"), "dead": url.key("dead")}
        keys = [url.key("counts"), url.key("lost"), *names.values()]
        kept, lost, found = await self._connection.read(self._counts(keys=keys))
        lengths = dict(zip(names, found, strict=True))
        n = {text(k): int(v) for k, v in zip(kept[::2], kept[1::2], strict=True)}
        imported, dead, duplicate = (n.get(k, 0) for k in ("imported", "dead", "duplicate"))
        counts = replace(
            Counts.from_kept(n),
            read=lengths["queued"] + imported + dead + duplicate + lost,
            queued=lengths["queued"],
            imported=imported,
            dead=dead,
            duplicate=duplicate,
            lost=lost,
        )
        return counts, lengths

    async def consumers(self) -> dict[str, int]:
        """Return how many entries each consumer holds, by name; empty if nobody ever took any."""
        try:
            infos = await self._connection.once(
                self._redis.xinfo_consumers(self._url.stream, self._url.group)
            )
        except (RedisError, OSError) as error:
            if str(error).startswith(("no such key", "NOGROUP")):
                return {}
            raise queue_error(error) from None
        return {text(info["name"]): info["pending"] for info in infos}

    async def is_empty(self) -> bool:
        """Return whether nothing is ready and no consumer holds anything."""
        if await self._connection.read(self._redis.xlen(self._url.stream)):
            return False
        pending = await self._connection.read(
            self._redis.xpending(self._url.stream, self._url.group)
        )
        return not pending["pending"]

    async def oldest_age_s(self) -> float:
        """Return for how many seconds the oldest entry has been in the stream; 0 if it is empty.

        Compares the clock of Redis, which is in the entry's ID, with the clock of this machine.
        """
        first = await self._connection.read(self._redis.xrange(self._url.stream, count=1))
        if not first:
            return 0.0
        return max(0.0, time.time() - int(first[0][0].split(b"-")[0]) / 1000)

    async def letters(self) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """Yield the dead letters of now in pages of (entry ID, line).

        Later ones are left out: a replay would meet its own again and never end.
        """
        key, after = self._url.key("dead"), "-"
        last = await self._connection.read(self._redis.xrevrange(key, count=1))
        while last and (
            page := await self._connection.read(
                self._redis.xrange(key, min=after, max=last[0][0], count=LETTERS_AT_ONCE)
            )
        ):
            yield [(entry_id, fields[b"line"]) for entry_id, fields in page if b"line" in fields]
            after = f"({page[-1][0].decode()}"

    async def unfinished_inputs(self) -> list[str]:
        """Return the paths of the inputs that were never read to their end, sorted."""
        inputs = await self._connection.read(self._redis.hgetall(self._url.key("inputs")))
        return sorted(text(path) for path, unfinished in inputs.items() if unfinished == b"1")
