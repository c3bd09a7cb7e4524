"""The engines of the queue's contract with one face, for one suite of tests."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import orjson
import redis

from tests.support.queues import RULES
from tests.support.redis_server import RedisServer
from worker.intake.formats.json_lines import Line
from worker.intake.reader import read
from worker.jobs.feeding import PutQueue
from worker.queues import contract
from worker.queues.contract import JobIdentity
from worker.queues.redis.entries import HeldEntry
from worker.queues.redis.feed import StreamWriter
from worker.queues.redis.queue import HELD_IN_MEMORY_MAX, Copy, RedisQueue, Taking
from worker.queues.redis.streams import StreamUrl
from worker.queues.redis.surroundings import StreamSurroundings
from worker.queues.sqlite.queue import SqliteQueue
from worker.rules.counts import Counts
from worker.rules.record import Record, content_hash
from worker.rules.surroundings import Surroundings, can_be_mended_in_place
from worker.rules.topic.topic import RecordRules

OURS = JobIdentity("1400000000", "", "derive")
LEASE_S = 60.0
Letters = list[dict[str, Any]]


class Queue(contract.Queue, Protocol):
    """Both halves of the contract in one object, and what a test reads beside it."""

    async def put(self, records: list[Record]) -> int: ...

    async def mark_input(self, path: str, *, unfinished: bool) -> None: ...

    async def unfinished_inputs(self) -> list[str]: ...

    async def requeue_all(self) -> int:
        """Put all dead letters back; return how many were."""
        ...

    inputs: "Inputs"

    async def dismiss_all(self) -> int:
        """Dismiss all dead letters; return how many were."""
        ...

    async def dead_letters(self) -> Letters:
        """Return them, after a check that the counts are those of what is there."""
        ...

    async def end(self) -> None: ...


class Inputs:
    """The inputs as they are now: each line as it was put last."""

    def __init__(self) -> None:
        self._hashes: dict[tuple[str, int], bytes] = {}

    def know(self, records: list[Record]) -> None:
        """Change lines that are put later."""
        self._hashes |= {(record.path, record.line): record.content_hash for record in records}

    async def with_evidence(self, queue: PutQueue, records: list[Record]) -> list[Record]:
        """Mark the records that stand in their place, as the intake does."""
        lines = [record for record in records if can_be_mended_in_place(record)]
        self.know(lines)
        in_place = {
            (found.path, found.line)
            for found in await queue.surroundings(records)
            if found.are_unchanged(partial(self._hash_of, found.path))
        }
        return [
            replace(record, is_in_place=True)
            if record in lines and (record.path, record.line) in in_place
            else record
            for record in records
        ]

    def _hash_of(self, path: str, line: int) -> bytes | None:
        return self._hashes.get((path, line))


class SqliteUnderTest(SqliteQueue):
    """The embedded engine."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.inputs = Inputs()

    async def put(self, records: list[Record]) -> int:
        return await super().put(await self.inputs.with_evidence(self, records))

    async def dead_letters(self) -> Letters:
        assert await self.counts() == self.store.counts_by_counting()
        return [orjson.loads(line) for _, line in self.store.lines("dead", 0, 100)]

    async def requeue_all(self) -> int:
        lines = [line.rstrip() for _, line in self.store.lines("dead", 0, 100)]
        letters = [Line(1, line, content_hash(line)) for line in lines]
        return await self.requeue([read("dead-letter.jsonl", line, RULES) for line in letters])

    async def dismiss_all(self) -> int:
        return self.store.dismiss(self.store.lines("dead", 0, 100), 1.0)

    async def end(self) -> None:
        self.close()


class RedisUnderTest(RedisQueue):
    """The distributed engine on a real server: a consumer that puts, too."""

    def __init__(self, url: StreamUrl, taking: Taking, **options: Any) -> None:
        super().__init__(url, taking, **options)
        self._writer = StreamWriter(self._connection, self._patience)
        self._surroundings = StreamSurroundings(self._connection, self._patience)
        self.inputs = Inputs()

    async def put(self, records: list[Record]) -> int:
        return await self._writer.put(await self.inputs.with_evidence(self, records))

    async def surroundings(self, records: list[Record]) -> list[Surroundings]:
        return await self._surroundings.of(records)

    async def requeue(self, letters: list[tuple[bytes, bytes]]) -> int:
        return await self._writer.requeue(letters)

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        await self._writer.mark_input(path, unfinished=unfinished)

    async def unfinished_inputs(self) -> list[str]:
        return await self._reader.unfinished_inputs()

    async def consumers(self) -> dict[str, int]:
        return await self._reader.consumers()

    async def look(self) -> tuple[Counts, dict[str, int]]:
        return await self._reader.counts_and_lengths()

    def letters(self) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        return self._reader.letters()

    async def dead_letters(self) -> Letters:
        found = [orjson.loads(line) async for page in self.letters() for _, line in page]
        counts, lengths = await self.look()
        assert (counts.queued, counts.dead) == (lengths["queued"], lengths["dead"])
        assert sum(counts.by_reason.values()) == counts.dead == len(found)
        return found

    async def requeue_all(self) -> int:
        return sum([await self.requeue(page) async for page in self.letters()])

    async def dismiss_all(self) -> int:
        return sum([await self._writer.dismiss(page, 1.0) async for page in self.letters()])

    async def fall_silent(self) -> None:
        """Renew no lease any more, as a process that is stopped, but keep what it took."""
        await self._hold.stop()

    async def renew(self) -> None:
        """Renew the lease on all that is in the hands of this consumer."""
        await self._hold.renew_all()

    async def die(self) -> None:
        """End as a process that is killed: what it has in its hands stays there."""
        await self._hold.stop()
        await self._connection.close()

    async def end(self) -> None:
        await self.close()

    # ---- the inside, where a test simulates a crash or a lost reply

    @property
    def _scripts(self) -> dict[str, Any]:
        return self._connection.scripts

    @property
    def _held(self) -> dict[int, HeldEntry]:
        return self._hold.entries

    @_held.setter
    def _held(self, entries: dict[int, HeldEntry]) -> None:
        self._hold.entries = entries

    @property
    def _own_unread_after(self) -> bytes | None:
        return self._finder.own_unread_after

    @_own_unread_after.setter
    def _own_unread_after(self, entry_id: bytes | None) -> None:
        self._finder.own_unread_after = entry_id

    async def _extend(self, entry_ids: list[bytes]) -> None:
        await self._hold.renew([(entry_id, b"", "") for entry_id in entry_ids], may_call=True)


def redis_queue(
    server: RedisServer,
    consumer: str = "one",
    *,
    lease_s: float = LEASE_S,
    keep: int = 1_000_000,
    rules: RecordRules = RULES,
    line_bytes_max: int = 1 << 20,
    copy: Copy | None = None,
    held_in_memory_max: int = HELD_IN_MEMORY_MAX,
    ahead_max: int = 0,
    port: int | None = None,
) -> RedisUnderTest:
    """Make a consumer's view of the queue on a server, for `open`; `port`: through a proxy."""
    url = StreamUrl.parse(
        f"redis://127.0.0.1:{port or server.port}/0?stream=topics&group=importers"
    )
    taking = Taking(consumer, lease_s, keep, rules, line_bytes_max)
    return RedisUnderTest(
        url, taking, copy=copy, held_in_memory_max=held_in_memory_max, ahead_max=ahead_max
    )


async def open_redis(server: RedisServer, consumer: str = "one", **options: Any) -> RedisUnderTest:
    """Open the queue on a server as a consumer; options as of `redis_queue`."""
    queue = redis_queue(server, consumer, **options)
    await queue.open(OURS)
    return queue


@contextmanager
def running(binary: Path, directory: Path, *options: str) -> Iterator[RedisServer]:
    """Run a server for as long as it is needed."""
    server = RedisServer(binary, directory, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def flush(server: RedisServer) -> None:
    """Empty a server between two tests."""
    with redis.Redis(port=server.port) as client:
        client.flushall()
