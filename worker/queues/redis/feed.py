"""Putting into the distributed queue: records with their positions, and dead letters again."""

from collections import defaultdict
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import orjson

from worker.queues.contract import JobIdentity
from worker.queues.redis.arguments import (
    entry_to_dismiss,
    letter_to_dismiss,
    letter_to_requeue,
    positions_key,
    put_content,
)
from worker.queues.redis.connection import Connection, in_parts, text
from worker.queues.redis.group import Group
from worker.queues.redis.patience import Patience
from worker.queues.redis.reader import Holder, QueuedRecord, StreamReader
from worker.queues.redis.streams import StreamUrl
from worker.queues.redis.surroundings import StreamSurroundings
from worker.rules.counts import CommunityLetters, Counts
from worker.rules.record import Record
from worker.rules.surroundings import Surroundings
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules

if TYPE_CHECKING:
    from worker.queues.contract import Feed

NEW = 1
"""Answer of the script that puts; a text is the source of the record in conflict with this one."""


class StreamWriter:
    """Puts records and dead letters into the stream, with the patience that it is given."""

    def __init__(self, connection: Connection, patience: Patience) -> None:
        self._url = connection.url
        self._redis = connection.redis
        self._patience = patience

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Remember that an input is being read, or was read to its end."""
        await self._patience.insist(
            "put", lambda: self._redis.hset(self._url.key("inputs"), path, str(int(unfinished)))
        )

    async def put(self, records: list[Record]) -> int:
        """Store a batch, in atomic steps of a bounded size. Returns how many records were new."""
        by_positions: defaultdict[str, list[Record]] = defaultdict(list)
        for record in records:
            if not _is_only_a_beginning(record):
                by_positions[positions_key(record)].append(record)
        return sum([await self._put_of(key, batch) for key, batch in by_positions.items()])

    async def _put_of(self, positions: str, records: list[Record]) -> int:
        answers = await self._put(positions, [put_content(record) for record in records])
        new = answers.count(NEW)
        # R4: put again, each with the source of its holder, so that the dead letter can name it.
        in_conflict = [
            put_content(record, conflict_with=text(answer))
            for record, answer in zip(records, answers, strict=True)
            if isinstance(answer, bytes)
        ]
        if in_conflict:
            new += (await self._put(positions, in_conflict)).count(NEW)
        return new

    async def _put(self, positions: str, contents: list[dict[str, Any]]) -> list[Any]:
        keys = (
            "dead", "counts", "topics", "letters", "lost", "held", "dead_by_community", positions,
        )  # fmt: skip
        answers: list[Any] = []
        for part in in_parts([orjson.dumps(content) for content in contents]):
            answers += await self._patience.run("put", keys, [self._url.group, *part])
        return answers

    async def requeue(self, letters: list[tuple[bytes, bytes]]) -> int:
        """Put dead letters back, with their TopicIds and doubts. Returns how many were put back.

        `letters`: as `StreamReader.letters` yields them. Those that another process put back
        meanwhile are not counted.
        """
        keys = ("dead", "counts", "topics", "letters", "dead_by_community")
        contents = [orjson.dumps(letter_to_requeue(entry_id, line)) for entry_id, line in letters]
        return sum([await self._patience.run("requeue", keys, part) for part in in_parts(contents)])

    async def dismiss(self, letters: list[tuple[bytes, bytes]], at_s: float) -> int:
        """Dismiss dead letters (R27). Returns how many were dismissed; arguments as of `requeue`.

        `at_s`: the time of now, in Unix seconds.
        """
        keys = ("dead", "dismissed", "counts", "topics", "letters", "dead_by_community")
        contents = [orjson.dumps(letter_to_dismiss(*letter, at_s)) for letter in letters]
        return sum([await self._patience.run("dismiss", keys, part) for part in in_parts(contents)])

    async def dismiss_queued(self, page: list[QueuedRecord], at_s: float) -> int:
        """Dismiss queued records that nobody has in hand (R27). Returns how many were dismissed."""
        keys = (
            "held", "held_by_community", "dismissed", "counts", "topics", "renewed", "uncalled",
            "claimed",
        )  # fmt: skip
        contents = [
            orjson.dumps(entry_to_dismiss(one.entry, one.topic, at_s, is_aside=one.is_aside))
            for one in page
        ]
        return sum(
            [
                await self._patience.run("dismiss_queued", keys, [self._url.group, *part])
                for part in in_parts(contents)
            ]
        )


class RedisFeed:
    """A producer's view of the queue: the half of the contract that is fed, and what it holds.

    Use `open` before putting, `close` last. Putting waits for a Redis that is away, until
    `give_up`; with `is_patient` False it raises QueueError at once. Reading always does.
    """

    def __init__(self, url: StreamUrl, *, is_patient: bool = True) -> None:
        self._connection = Connection(url)
        self._group = Group(self._connection)
        patience = Patience(self._connection, self._group, is_patient=is_patient)
        self._writer = StreamWriter(self._connection, patience)
        self._surroundings = StreamSurroundings(self._connection, patience)
        self._reader = StreamReader(self._connection)

    @property
    def name(self) -> str:
        """The queue's name for people; no part of it is secret."""
        return str(self._connection.url)

    async def open(self, identity: JobIdentity) -> None:
        """Make the group, and check that the queue belongs to the same job.

        Raises QueueAwayError if Redis cannot be reached, QueueError if it cannot be used,
        JobMismatchError if the queue belongs to another job.
        """
        await self._group.open(identity)

    def give_up(self) -> None:
        """End all waiting for Redis."""
        self._connection.give_up()

    async def close(self) -> None:
        await self._connection.close()

    # ---- putting

    async def put(self, records: list[Record]) -> int:
        """Store a batch. Returns how many of its records were new."""
        return await self._writer.put(records)

    async def requeue(self, letters: list[tuple[bytes, bytes]]) -> int:
        """Put dead letters back, as `letters` yields them. Returns how many were put back."""
        return await self._writer.requeue(letters)

    async def surroundings(self, records: list[Record]) -> list[Surroundings]:
        """Return what is known around changed lines with dead letters, see the contract."""
        return await self._surroundings.of(records)

    async def dismiss(self, letters: list[tuple[bytes, bytes]], at_s: float) -> int:
        """Dismiss dead letters, as `letters` yields them. Returns how many were dismissed."""
        return await self._writer.dismiss(letters, at_s)

    async def dismiss_queued(self, page: list[QueuedRecord], at_s: float) -> int:
        """Dismiss queued records, as `queued_of` yields them. Returns how many were dismissed."""
        return await self._writer.dismiss_queued(page, at_s)

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Remember that an input is being read, or was read to its end."""
        await self._writer.mark_input(path, unfinished=unfinished)

    # ---- reading

    async def unfinished_inputs(self) -> list[str]:
        """Return the paths of the inputs that were never read to their end, sorted."""
        return await self._reader.unfinished_inputs()

    async def counts(self) -> Counts:
        """Return how many records are in which state."""
        return await self._reader.counts()

    async def counts_and_lengths(self) -> tuple[Counts, dict[str, int]]:
        """Return the counts and the lengths of the streams, as StreamReader does."""
        return await self._reader.counts_and_lengths()

    async def worst_communities(self, count: int) -> list[CommunityLetters]:
        """Return the communities with the most dead letters, the worst first."""
        return await self._reader.worst_communities(count)

    async def consumers(self) -> dict[str, int]:
        """Return how many entries each consumer holds, by name."""
        return await self._reader.consumers()

    async def oldest_age_s(self) -> float:
        """Return for how many seconds the oldest entry has been in the stream."""
        return await self._reader.oldest_age_s()

    async def whole_records(self, letters: list[bytes], bytes_max: int) -> list[bytes | int]:
        """Return the records beside the lines of dead letters, as StreamReader does."""
        return await self._reader.whole_records(letters, bytes_max)

    async def holders(self, topic_ids: list[str]) -> list[Holder | None]:
        """Return the records that hold TopicIds, as StreamReader does."""
        return await self._reader.holders(topic_ids)

    def queued_of(
        self, group_id: str, rules: RecordRules, bytes_max: int
    ) -> AsyncIterator[list[QueuedRecord]]:
        """Yield the queued records of a community, as StreamReader does."""
        return self._reader.queued_of(group_id, rules, bytes_max)

    def letters(self) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """Yield the dead letters of now in pages of (entry ID, line)."""
        return self._reader.letters()


def _is_only_a_beginning(record: Record) -> bool:
    """Return whether a dead letter may hold only the beginning of its record (R11)."""
    topic = record.topic
    return record.asked_again and isinstance(topic, InvalidRecordError) and not topic.is_object


if TYPE_CHECKING:
    _FEED: type[Feed[tuple[bytes, bytes]]] = RedisFeed
