"""Reading the streams of a queue in Redis, without taking anything."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
from redis.exceptions import RedisError

from worker.queues.redis.connection import Connection, queue_error, script, text
from worker.queues.redis.entries import Entry, FoundEntry, order, read_entry
from worker.queues.redis.tally import Tally, tally_name, worst
from worker.rules.counts import CommunityLetters, Counts
from worker.rules.topic.topic import RecordRules, Topic

LETTERS_AT_ONCE = 500
QUEUED_AT_ONCE = 500
LETTERS_COUNTED_MAX = 200_000
"""About 400 pages: as many letters as one report may read."""
COMMUNITIES_AT_ONCE = 1000
IS_COMPLETE = "complete"
"""The field of the hash that says that it counted from the first dead letter on."""


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """A valid record that is queued.

    `is_aside`: it is in the side stream (R23). `is_taken`: a consumer has it in its hands.
    """

    entry: Entry
    topic: Topic
    is_aside: bool
    is_taken: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """The record that holds a TopicId (R2). `makes_way`: the next one may take it over."""

    content: str
    source: str
    makes_way: bool


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

        The lengths by name: `queued` (with the side stream, R23), `imported`, `dead`.
        """
        url = self._url
        names = {"queued": url.stream, "imported": url.key("imported"), "dead": url.key("dead")}
        keys = [url.key("counts"), url.key("lost"), url.key("held"), *names.values()]
        kept, lost, (aside, *found) = await self._connection.read(self._counts(keys=keys))
        lengths = dict(zip(names, found, strict=True))
        lengths["queued"] += aside
        n = {text(k): int(v) for k, v in zip(kept[::2], kept[1::2], strict=True)}
        imported, dead, duplicate = (n.get(k, 0) for k in ("imported", "dead", "duplicate"))
        dismissed = n.get("dismissed", 0)
        counts = replace(
            Counts.from_kept(n),
            read=lengths["queued"] + imported + dead + duplicate + dismissed + lost,
            queued=lengths["queued"],
            imported=imported,
            dead=dead,
            duplicate=duplicate,
            dismissed=dismissed,
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
        if (await self.counts_and_lengths())[1]["queued"]:
            return False
        pending = await self._connection.read(
            self._redis.xpending(self._url.stream, self._url.group)
        )
        return not pending["pending"]

    async def oldest_age_s(self) -> float:
        """Return for how many seconds the oldest entry has been in its stream; 0 if there is none.

        Compares the clock of Redis, which is in the entry's ID, with the clock of this machine.
        For an entry in the side stream it counts from the move there.
        """
        ages = [0.0]
        for key in (self._url.stream, self._url.key("held")):
            for entry_id, _ in await self._connection.read(self._redis.xrange(key, count=1)):
                ages.append(time.time() - order(entry_id)[0] / 1000)
        return max(ages)

    async def worst_communities(self, count: int) -> list[CommunityLetters]:
        """Return the communities with the most dead letters, the worst first (R25).

        Counts letters one by one where an older version filled the stream; returns nothing then if
        there are more than LETTERS_COUNTED_MAX.
        """
        numbers: Tally = {}
        key, cursor, is_first = self._url.key("dead_by_community"), 0, True
        while cursor or is_first:
            page = self._redis.hscan(key, cursor=cursor, count=COMMUNITIES_AT_ONCE)
            cursor, found = await self._connection.read(page)
            numbers |= {text(name): int(n) for name, n in found.items()}
            is_first = False
        if not numbers.pop(IS_COMPLETE, 0):
            numbers = await self._count_letters()
        return worst(numbers, count)

    async def _count_letters(self) -> Tally:
        _, lengths = await self.counts_and_lengths()
        if lengths["dead"] > LETTERS_COUNTED_MAX:
            return {}
        return dict(
            Counter([tally_name(line) async for page in self.letters() for _, line in page])
        )

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

    async def whole_records(self, letters: list[bytes], bytes_max: int) -> list[bytes | int]:
        """Return the whole records that are kept beside the lines of dead letters.

        `letters`: the IDs of their entries. 0 stands for no record, another number for the length
        of one with more than `bytes_max` bytes.
        """
        call = self._connection.call_script("whole_records", ["dead"], [bytes_max, *letters])
        found: list[bytes | int] = await self._connection.read(call)
        return found

    async def holders(self, topic_ids: list[str]) -> list[Holder | None]:
        """Return the records that hold TopicIds; None for one that nobody holds."""
        texts = await self._connection.read(
            self._redis.hmget(self._url.key("topics"), topic_ids or [""])
        )
        known = [orjson.loads(found) if found else None for found in texts[: len(topic_ids)]]
        return [
            one and Holder(one["content"], one["source"], "letter" in one or "is_dismissed" in one)
            for one in known
        ]

    async def queued_of(
        self, group_id: str, rules: RecordRules, bytes_max: int
    ) -> AsyncIterator[list[QueuedRecord]]:
        """Yield the valid queued records of a community, in pages.

        What comes into the stream meanwhile may be among them. A record with more than `bytes_max`
        bytes is not valid.
        """
        for key in ("held", None):
            keys = [self._url.stream, self._url.key(key) if key else self._url.stream]
            begin = "-"
            while page := await self._connection.read(
                self._connection.scripts["read_queued"](
                    keys=keys, args=[self._url.group, begin, QUEUED_AT_ONCE, bytes_max]
                )
            ):
                begin = f"({text(page[-1][0])}"
                found = (_queued(self._url.stream, row, rules, is_aside=bool(key)) for row in page)
                yield [one for one in found if one and one.topic.group_id == group_id]

    async def unfinished_inputs(self) -> list[str]:
        """Return the paths of the inputs that were never read to their end, sorted."""
        inputs = await self._connection.read(self._redis.hgetall(self._url.key("inputs")))
        return sorted(text(path) for path, unfinished in inputs.items() if unfinished == b"1")


def _queued(
    stream: str, row: list[Any], rules: RecordRules, *, is_aside: bool
) -> QueuedRecord | None:
    entry_id, flat, cut_bytes, is_taken = row
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    found = FoundEntry(entry_id, fields, may_have_called=False, cut_bytes=cut_bytes)
    entry = read_entry(stream, found, rules)
    if not isinstance(entry.topic, Topic):
        return None
    return QueuedRecord(entry, entry.topic, is_aside, bool(is_taken))
