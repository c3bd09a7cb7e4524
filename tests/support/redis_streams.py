"""What the tests of the Redis queue share: a producer, consumers, and faults to inject."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Any

import orjson
import redis

from tests.support.engines import RedisUnderTest, open_redis
from tests.support.redis_server import RedisServer
from tests.support.strategies import GROUP
from worker.rules.outcome import DeadLetter, Delivery, History, Reason

KEEPS_EVERYTHING = ("--appendonly", "yes", "--appendfsync", "always")
"""Options of a server that loses nothing once it has replied."""
SHORT_LEASE_S = 0.3
RENEWED_LEASE_S = 1.2
"""Long enough for a renewal that a busy machine delays by two thirds of it."""
PATIENCE_S = 20.0


class Streams:
    """Writes to the streams as a producer does, and reads what they hold."""

    def __init__(self, server: RedisServer) -> None:
        self._client: Any = redis.Redis(port=server.port, decode_responses=True)
        self._bytes_client: Any = redis.Redis(port=server.port)

    def close(self) -> None:
        self._client.close()
        self._bytes_client.close()

    def add(self, record: Any, **fields: str | bytes) -> str:
        """Add an entry as a producer does. Returns its ID."""
        content = record if isinstance(record, bytes) else orjson.dumps(record)
        return self.add_fields({"record": content, **fields})

    def add_topics(self, count: int) -> None:
        for number in range(count):
            self.add(topic(number))

    def add_fields(self, fields: dict[str, Any]) -> str:
        """Add an entry with exactly these fields. Returns its ID."""
        entry_id: str = self._client.xadd("topics", fields)
        return entry_id

    def add_to(self, kind: str, fields: dict[str, Any]) -> None:
        """Add an entry to a stream of results, as a foreign program might."""
        self._client.xadd(f"topics:{kind}", fields)

    def copy_all(self) -> None:
        """Add each entry once more, as a person does who restores a stream."""
        for _, fields in self._client.xrange("topics"):
            self._client.xadd("topics", fields)

    def trim_all(self) -> None:
        self._client.xtrim("topics", maxlen=0, approximate=False)

    def delete_stream(self) -> None:
        self._client.delete("topics")

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return the parsed result lines of a stream, oldest first."""
        return [orjson.loads(line) for line in self.raw_lines(kind)]

    def entries(self, kind: str) -> list[tuple[str, dict[str, str]]]:
        """Return the entries of a stream beside the queue's, oldest first: ID and fields."""
        found: list[tuple[str, dict[str, str]]] = self._client.xrange(f"topics:{kind}")
        return found

    def raw_lines(self, kind: str) -> list[str]:
        return [fields["line"] for _, fields in self._client.xrange(f"topics:{kind}")]

    def whole_records(self) -> list[bytes]:
        """Return the whole records that stand beside the lines of dead letters."""
        found = self._bytes_client.xrange("topics:dead")
        return [fields[b"record"] for _, fields in found]

    def sent_bytes(self) -> int:
        """Return how many bytes the server has sent to all its clients."""
        return int(self._client.info("stats")["total_net_output_bytes"])

    def deliver_to(self, consumer: str, count: int) -> None:
        """Deliver new entries to a consumer that never says what became of them."""
        with suppress(redis.ResponseError):
            self._client.xgroup_create("topics", "importers", "0")
        self._client.xreadgroup("importers", consumer, {"topics": ">"}, count=count)

    def make_consumer(self, name: str) -> None:
        self._client.xgroup_createconsumer("topics", "importers", name)

    def consumers(self) -> set[str]:
        return {found["name"] for found in self._client.xinfo_consumers("topics", "importers")}

    def pending(self) -> dict[str, str]:
        """Return which consumer holds which entry, by the ID of the entry."""
        found = self._client.xpending_range("topics", "importers", "-", "+", 100)
        return {entry["message_id"]: entry["consumer"] for entry in found}

    def length(self, kind: str) -> int:
        """Return how many entries a stream beside the queue's holds."""
        return int(self._client.xlen(f"topics:{kind}"))

    def hash(self, kind: str) -> dict[str, str]:
        """Return a hash beside the stream."""
        found: dict[str, str] = self._client.hgetall(f"topics:{kind}")
        return found

    def set_hash(self, kind: str, fields: dict[str, str]) -> None:
        self._client.hset(f"topics:{kind}", mapping=fields)

    def delete(self, kind: str) -> None:
        """Delete a key beside the stream."""
        self._client.delete(f"topics:{kind}")

    def marks(self) -> dict[str, int]:
        """Return how much is kept beside entries that are not settled, by the name of the key."""
        sizes = {
            "uncalled": self._client.scard("topics:uncalled"),
            "claimed": self._client.hlen("topics:claimed"),
            "held_by_community": self._client.hlen("topics:held_by_community"),
        }
        return {name: size for name, size in sizes.items() if size}

    def remembered_topics(self) -> int:
        """Return for how many topics the queue remembers whose they are."""
        return int(self._client.hlen("topics:topics"))

    def forget_deliveries(self) -> None:
        """Forget which entry was delivered to whom, as Redis does after losing its last second."""
        self._client.xgroup_destroy("topics", "importers")
        self._client.xgroup_create("topics", "importers", "0")

    def snapshot(self) -> dict[bytes, bytes]:
        """Return all that the server holds, for `go_back_to`."""
        return {key: self._bytes_client.dump(key) for key in self._bytes_client.scan_iter()}

    def go_back_to(self, snapshot: dict[bytes, bytes]) -> None:
        """Forget all since then, as a server that loses its last second."""
        self._bytes_client.flushdb()
        for key, content in snapshot.items():
            self._bytes_client.restore(key, 0, content)

    def configure(self, name: str, value: str | int) -> None:
        """Set an option of the running server."""
        self._client.config_set(name, value)


def topic(name: int | str = 1, **more: Any) -> dict[str, Any]:
    """Return the record of a topic; a number stands for the name `topic <number>`."""
    return {
        "GroupId": GROUP,
        "TopicName": f"topic {name}" if isinstance(name, int) else name,
        **more,
    }


def own_id(name: str) -> str:
    """Return a TopicId that a producer chose."""
    return f"{GROUP}@TOPIC#_{name}"


def rejected(delivery: Delivery) -> DeadLetter:
    """Return the outcome of a call that the service refused with 10010."""
    history = History(attempts=1)
    return DeadLetter(delivery.id, Reason.REJECTED, 10010, "no such group", "make it", history)


@asynccontextmanager
async def opened(server: RedisServer, *names: str, **options: Any) -> AsyncIterator[Any]:
    """Open a consumer for each name, and close them all. Yields the queue of one name, or a list.

    Options are those of `redis_queue`.
    """
    queues = [await open_redis(server, name, **options) for name in names]
    try:
        yield queues[0] if len(queues) == 1 else queues
    finally:
        for queue in queues:
            queue.give_up()
            await queue.close()


async def take_patiently(queue: RedisUnderTest, count: int = 10) -> list[Delivery]:
    """Take until there is at least one delivery. Raises TimeoutError after `PATIENCE_S`."""
    async with asyncio.timeout(PATIENCE_S):
        while not (taken := await queue.take(count)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    return taken


async def let_lease_expire(queue: RedisUnderTest) -> None:
    """Stop renewing a lease of `SHORT_LEASE_S` and wait until it has expired."""
    await queue.fall_silent()
    await asyncio.sleep(SHORT_LEASE_S * 1.2)


async def replay(queue: RedisUnderTest) -> int:
    """Put all dead letters back into the queue. Returns how many went back."""
    return sum([await queue.requeue(page) async for page in queue.letters()])


class ReplyLost:
    """A script that does its work, but whose first replies are lost."""

    def __init__(self, script: Any, times: int = 1) -> None:
        self._script = script
        self._times = times

    async def __call__(self, **given: Any) -> Any:
        reply = await self._script(**given)
        if self._times:
            self._times -= 1
            raise ConnectionError("the reply is lost")
        return reply


class CallLost:
    """A script whose first call is lost before it does anything."""

    def __init__(self, script: Any) -> None:
        self._script = script
        self._was_lost = False

    async def __call__(self, **given: Any) -> Any:
        if not self._was_lost:
            self._was_lost = True
            raise ConnectionError("the call is lost")
        return await self._script(**given)


class Disk:
    """A copy of the results in memory, which can be full for a while."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.is_full = False
        self.lines: list[bytes] = []
        self._waiting: list[bytes] = []

    def append(self, lines: Mapping[str, list[bytes]]) -> None:
        self._waiting += chain.from_iterable(lines.values())
        self.flush()

    def flush(self) -> None:
        self.trouble = "full" if self.is_full else None
        if not self.is_full:
            self.lines += self._waiting
            self._waiting.clear()
