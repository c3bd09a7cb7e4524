"""Putting into the distributed queue: records with their positions, dead letters once more."""

from collections import defaultdict
from contextlib import suppress
from typing import Any

import orjson
from redis.exceptions import RedisError, ResponseError

from worker.logs import logger
from worker.queues.contract import JobIdentity, JobMismatchError
from worker.queues.redis.entries import letter_to_requeue, positions_key, put_content
from worker.queues.redis.patience import PatientStreams, in_parts
from worker.queues.redis.streams import StreamUrl, queue_error, text
from worker.rules.record import Record
from worker.rules.topic.problems import InvalidRecordError

log = logger()


class RedisFeed(PatientStreams):
    """A producer's view of the queue. Use `open` first, `close` last.

    Putting waits for a Redis that is away. `is_patient` False: it raises QueueError at once.
    """

    def __init__(self, url: StreamUrl, *, is_patient: bool = True) -> None:
        super().__init__(url, is_patient=is_patient)
        self._identity = JobIdentity("", "", "")

    # ---- the job

    async def open(self, identity: JobIdentity) -> None:
        """Make the group, and see that the queue is of the same job.

        Raises QueueAwayError where Redis cannot be reached, QueueError where it cannot be used,
        JobMismatchError for another job.
        """
        self._identity = identity
        try:
            # First, so that a run of another job leaves no group behind.
            await self._identify()
            await self._make_group()
            await self._warn_of_what_may_be_lost()
        except (RedisError, OSError) as error:
            raise queue_error(error) from None
        self._was_opened = True

    async def _made_anew(self) -> None:
        await self._identify()

    async def _identify(self) -> None:
        identity = self._identity
        ours = {
            "app": identity.app,
            "key_field": identity.key_field,
            "topic_ids": identity.topic_ids,
            "group": self._url.group,
        }
        for name, value in ours.items():
            await self._once(self._redis.hsetnx(self._key("job"), name, value))
            known = text(await self._once(self._redis.hget(self._key("job"), name)))
            if known != value:
                raise JobMismatchError(
                    f"the queue {self._url.stream} belongs to a job with {name} "
                    f"{known or 'unset'}, this run has {value or 'unset'}: "
                    "give it the same, or another stream"
                )

    async def _warn_of_what_may_be_lost(self) -> None:
        with suppress(ResponseError):  # not everybody may ask
            asked = ("appendonly", "save", "maxmemory", "maxmemory-policy")
            # One at a time: Redis 6.2 knows no more.
            config = {name: await self._configured(name) for name in asked}
            if config["maxmemory"] != "0" and config["maxmemory-policy"] != "noeviction":
                log.warning(
                    "Redis throws away what it has no room for, this queue too: "
                    "set maxmemory-policy noeviction"
                )
            if config["appendonly"] == "no" and not config["save"]:
                log.warning(
                    "Redis keeps nothing on disk: what it holds is lost when it stops "
                    "(set appendonly yes, and appendfsync always to lose nothing)"
                )

    async def _configured(self, name: str) -> str:
        found = await self._once(self._redis.config_get(name))
        return str(found.get(name, ""))

    # ---- putting

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        """Note that an input is being read, or was read to its end."""
        await self._patiently(
            "put", lambda: self._redis.hset(self._key("inputs"), path, str(int(unfinished)))
        )

    async def put(self, records: list[Record]) -> int:
        """Put a batch with its positions; how many records were not read before."""
        by_chunk: defaultdict[str, list[Record]] = defaultdict(list)
        for record in records:
            if not _is_broken_letter(record):
                by_chunk[positions_key(record)].append(record)
        return sum([await self._put_of(key, batch) for key, batch in by_chunk.items()])

    async def _put_of(self, positions: str, records: list[Record]) -> int:
        answers = await self._put(positions, [put_content(record) for record in records])
        new = answers.count(1)
        # One at a time with its holder, so that the letter can name it.
        in_conflict = [
            put_content(record, conflict_with=text(answer))
            for record, answer in zip(records, answers, strict=True)
            if isinstance(answer, bytes)
        ]
        if in_conflict:
            new += (await self._put(positions, in_conflict)).count(1)
        return new

    async def _put(self, positions: str, contents: list[dict[str, Any]]) -> list[Any]:
        names = ("dead", "counts", "topics", "letters", "lost", positions)
        answers: list[Any] = []
        for part in in_parts([orjson.dumps(content) for content in contents]):
            answers += await self._run("put", names, [self._url.group, *part])
        return answers

    async def requeue(self, letters: list[tuple[bytes, bytes]]) -> int:
        """Put a page of dead letters back, with TopicIds and doubts; how many were there still."""
        names = ("dead", "counts", "topics", "letters")
        words = [orjson.dumps(letter_to_requeue(entry_id, line)) for entry_id, line in letters]
        return sum([await self._run("requeue", names, part) for part in in_parts(words)])


def _is_broken_letter(record: Record) -> bool:
    """Whether a dead letter was handed in that holds perhaps only the beginning of its line."""
    topic = record.topic
    return record.asked_again and isinstance(topic, InvalidRecordError) and not topic.is_object
