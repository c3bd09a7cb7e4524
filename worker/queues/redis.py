"""The distributed queue: a Redis stream with a consumer group; results in streams beside it.

A producer in any language adds entries with one field, `record`, a JSON object. An entry stays
pending from its delivery to its outcome; what a silent consumer holds is taken over after the
lease. Outcomes go to `<stream>:imported` and `<stream>:dead`, atomically with the acknowledgement.
"""

import asyncio
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol, TypeVar

import orjson
from redis.exceptions import RedisError, ResponseError

from worker.delivery import Delivery
from worker.outcome import Outcome
from worker.queues import JobIdentity, JobMismatchError, QueueError
from worker.queues.redis_entries import (
    Entry,
    Held,
    letter_to_requeue,
    outcome_content,
    positions_key,
    put_content,
    read_entry,
)
from worker.queues.redis_streams import Streams, StreamUrl, queue_error, sentence, text
from worker.record import Record
from worker.telemetry import logger
from worker.topic import InvalidRecordError, RecordRules

log = logger()

RETRY_S = 0.5
LOOK_FOR_SILENT_SHARE = 0.25
"""Of the lease: how often what silent consumers hold is looked for; held ones are refreshed every
third of it."""
CLAIM_AT_ONCE = 100
LOST_SHOWN = 10

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Taking:
    """Who takes, how long a silent taker keeps what it holds, and how entries are read."""

    consumer: str
    lease_s: float
    keep_results: int
    rules: RecordRules
    line_bytes_max: int


class Copy(Protocol):
    """Where the lines of settled outcomes are written beside the streams.

    `trouble`: why it cannot be written now; what it was given waits in memory then.
    """

    trouble: str | None

    def append(self, kind: str, lines: list[bytes]) -> None: ...

    def flush(self) -> None:
        """Try again to write what waits."""
        ...


class NoCopy:
    """No copy at all."""

    trouble: str | None = None

    def append(self, kind: str, lines: list[bytes]) -> None: ...

    def flush(self) -> None: ...


class RedisQueue(Streams):
    """One consumer's view of the queue. Use `open` first, `close` last.

    Taking answers with nothing while Redis is away, settling waits for it: no outcome is dropped.
    """

    def __init__(self, url: StreamUrl, taking: Taking, *, copy: Copy | None = None) -> None:
        super().__init__(url)
        self._taking = taking
        self._copy = copy or NoCopy()
        self._held: dict[int, Held] = {}
        self._next_id = 1
        self._own_pending_unread = True
        self._last_delivered = (0, 0)
        self._look_again_at_s = 0.0
        self._claim_cursor = b"0-0"
        self._closing = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None
        self._was_opened = False
        self._settling = asyncio.Lock()
        self._troubles: dict[str, str] = {}
        self.is_drained = False
        """Whether the last take found all that was there."""
        self.found: Counter[str] = Counter()
        """What became of entries as they were taken: `duplicate` (their topic was in the queue
        before), `dead` (they cannot be sent), `lost` (trimmed away while nobody had them)."""
        self._scripts = {
            name: self._redis.register_script(_script(name))
            for name in ("put", "register", "settle", "extend", "requeue", "lose", "tidy")
        }

    def __repr__(self) -> str:
        return f"<RedisQueue {self._url.stream} as {self._taking.consumer}, {len(self._held)} held>"

    # ---- the job

    @property
    def name(self) -> str:
        """Which queue it is, for people; no part of it is secret."""
        return str(self._url)

    @property
    def trouble(self) -> str | None:
        """Why the queue cannot be used now."""
        return next(iter(self._troubles.values()), self._copy.trouble)

    async def open(self, identity: JobIdentity) -> None:
        """Make the group, and see that the queue is of the same job.

        Raises QueueAwayError where Redis cannot be reached, QueueError where it cannot be used,
        JobMismatchError for another job.
        """
        try:
            await self._make_group()
            await self._identify(identity)
            await self._warn_of_what_may_be_lost()
            await self._forget_consumers(idle_s=self._taking.lease_s)
        except (RedisError, OSError) as error:
            raise queue_error(error) from None
        self._was_opened = True
        self._holding = asyncio.create_task(self._hold())

    async def close(self) -> None:
        """Stop refreshing what is held, and leave; what is still held stays pending."""
        # Ended by a flag: redis-py swallows most cancellations that come during a call.
        self._closing.set()
        if self._holding:
            await self._holding
            if self._taking.consumer:
                with suppress(RedisError, OSError):
                    await self._forget_consumers(self._taking.consumer)
        await super().close()

    async def _forget_consumers(self, name: str = "", *, idle_s: float = 0.0) -> None:
        """Take consumers that hold nothing out of the group: replicas come and go."""
        words = [self._url.group, name, int(idle_s * 1000)]
        keys = [self._url.stream, self._key("batches")]
        await self._once(self._scripts["tidy"](keys=keys, args=words))

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

    async def _identify(self, identity: JobIdentity) -> None:
        ours = {
            "app": identity.app,
            "key_field": identity.key_field,
            "topic_ids": identity.topic_ids,
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
            config = await self._once(
                self._redis.config_get("appendonly", "save", "maxmemory", "maxmemory-policy")
            )
            if config.get("maxmemory") != "0" and config.get("maxmemory-policy") != "noeviction":
                log.warning(
                    "Redis throws away what it has no room for, this queue too: "
                    "set maxmemory-policy noeviction"
                )
            if config.get("appendonly") == "no" and not config.get("save"):
                log.warning(
                    "Redis keeps nothing on disk: what it holds is lost when it stops "
                    "(set appendonly yes, and appendfsync always to lose nothing)"
                )

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

    async def _put(self, positions: str, content: list[dict[str, Any]]) -> list[Any]:
        names = ("dead", "counts", "topics", "letters", positions)
        keys = [self._url.stream, *map(self._key, names)]
        answers: list[Any] = await self._run("put", keys, [orjson.dumps(content)])
        return answers

    # ---- taking

    async def take(self, count: int) -> list[Delivery]:
        """Take up to `count`: what this consumer held before, what silent ones hold, then new.

        Nothing while Redis is away, or while the copy cannot be written.
        """
        self._copy.flush()
        if self._copy.trouble:
            await self._pause()
            return []
        taken: list[Delivery] = []
        try:
            if self._own_pending_unread:
                taken += await self._take_own(count)
            if len(taken) < count and asyncio.get_running_loop().time() >= self._look_again_at_s:
                taken += await self._take_over(count - len(taken))
            self.is_drained = False
            if len(taken) < count:
                taken += await self._take_new(count - len(taken))
        except (RedisError, OSError) as error:
            await self._trouble("take", error)
        else:
            self._no_trouble("take")
        return taken

    async def _take_own(self, count: int) -> list[Delivery]:
        """Take what was delivered to this consumer and is not in its hands: a crash, a lost reply.

        An earlier process of this consumer may have called.
        """
        after, in_hand = b"0", self._in_hand()
        found: list[tuple[bytes, dict[bytes, bytes] | None]] = []
        while len(found) < count:
            page = await self._read_group(after, count)
            if not page:
                self._own_pending_unread = False
                break
            after = page[-1][0]
            found += [(entry_id, fields) for entry_id, fields in page if entry_id not in in_hand]
        return await self._deliver(found[:count], may_have_called=True)

    async def _take_over(self, count: int) -> list[Delivery]:
        lease_ms = int(self._taking.lease_s * 1000)
        # Before the claim: what is settled while it is under way must not come back with it.
        in_hand = self._in_hand()
        answer = await self._once(
            self._redis.xautoclaim(
                self._url.stream, self._url.group, self._taking.consumer, lease_ms,
                self._claim_cursor, count=min(count, CLAIM_AT_ONCE),
            )
        )  # fmt: skip
        self._claim_cursor, claimed = answer[0], list(answer[1])
        claimed += [(gone, None) for gone in (answer[2] if len(answer) > 2 else ())]  # noqa: PLR2004
        if self._claim_cursor == b"0-0":
            pause_s = self._taking.lease_s * LOOK_FOR_SILENT_SHARE
            self._look_again_at_s = asyncio.get_running_loop().time() + pause_s
        # Redis 7 lists deleted ones apart; 6.2 answers with nothing for them and leaves them
        # pending here, where reading the own entries finds them.
        if not all(entry_id for entry_id, _ in claimed):
            self._own_pending_unread = True
        # Its own are among them where they were refreshed too late.
        mine = [entry_id for entry_id, fields in claimed if entry_id in in_hand and not fields]
        await self._note_as_gone(mine)
        others = [(i, fields) for i, fields in claimed if i and i not in in_hand]
        if others:
            log.warning("taken over from a consumer that fell silent", records=len(others))
        return await self._deliver(others, may_have_called=True)

    def _in_hand(self) -> set[bytes]:
        return {held.entry_id for held in self._held.values()}

    async def _take_new(self, count: int) -> list[Delivery]:
        in_hand = self._in_hand()
        found = await self._read_group(b">", count)
        self.is_drained = len(found) < count and not self._own_pending_unread
        # A Redis that forgot its last second delivers entries anew: some are still in hand, others
        # were called already.
        again = [e for e in found if e[0] not in in_hand and _order(e[0]) <= self._last_delivered]
        new = [e for e in found if _order(e[0]) > self._last_delivered]
        if new:
            self._last_delivered = _order(new[-1][0])
        taken = await self._deliver(again, may_have_called=True)
        return taken + await self._deliver(new, may_have_called=False)

    async def _read_group(
        self, after: bytes, count: int
    ) -> list[tuple[bytes, dict[bytes, bytes] | None]]:
        streams = {self._url.stream: after.decode()}
        answer = await self._once(
            self._redis.xreadgroup(self._url.group, self._taking.consumer, streams, count=count)
        )
        pages = list(answer.values()) if isinstance(answer, dict) else [s[1] for s in answer]
        entries = pages[0] if pages else []
        # redis-py nests the entries once more where a stream was asked for by the new protocol.
        return list(entries[0] if entries and isinstance(entries[0], list) else entries)

    async def _deliver(
        self, found: list[tuple[bytes, dict[bytes, bytes] | None]], *, may_have_called: bool
    ) -> list[Delivery]:
        there = [(entry_id, fields) for entry_id, fields in found if fields]
        await self._lose([entry_id for entry_id, fields in found if not fields])
        entries = [
            read_entry(
                self._url.stream,
                entry_id,
                fields,
                self._taking.rules,
                self._taking.line_bytes_max,
                may_have_called=may_have_called,
            )
            for entry_id, fields in there
        ]
        letters: list[Outcome] = []
        deliveries: list[Delivery] = []
        for entry in await self._register(entries):
            held = Held.of(entry, self._next_id)
            self._held[held.id] = held
            self._next_id += 1
            if held.letter:
                letters.append(held.letter)
            if held.delivery:
                deliveries.append(held.delivery)
        if letters:
            await self.settle(letters)
            self.found["dead"] += len(letters)
        return deliveries

    async def _register(self, entries: list[Entry]) -> list[Entry]:
        """Give each topic its place in the index; duplicates end here, conflicts are marked."""
        named = [entry for entry in entries if entry.topic_id]
        if not named:
            return entries
        words: list[bytes | str] = [self._url.group]
        for entry in named:
            words += [entry.id, entry.topic_id, entry.content, entry.source]
        keys = [self._url.stream, self._key("counts"), self._key("topics")]
        answers = await self._once(self._scripts["register"](keys=keys, args=words))
        duplicates = set()
        for entry, answer in zip(named, answers, strict=True):
            if answer == 1:
                duplicates.add(entry.id)
                self.found["duplicate"] += 1
            elif isinstance(answer, bytes):
                entry.conflict_with = text(answer)
        return [entry for entry in entries if entry.id not in duplicates]

    async def _lose(self, entry_ids: list[bytes]) -> None:
        """Tell of entries that somebody trimmed away while they were pending."""
        if not entry_ids:
            return
        await self._note_as_gone(entry_ids)
        self.found["lost"] += len(entry_ids)
        log.error(
            "LOST: Redis no longer holds records that were taken; look at who trims or deletes "
            "entries of the stream, and enqueue again what is missing",
            records=len(entry_ids),
            entries=[entry_id.decode() for entry_id in entry_ids[:LOST_SHOWN]],
        )

    async def _note_as_gone(self, entry_ids: list[bytes]) -> None:
        """Note which are lost, unless who has them in hand settles them after all."""
        if entry_ids:
            keys = [self._url.stream, self._key("lost")]
            await self._once(self._scripts["lose"](keys=keys, args=[self._url.group, *entry_ids]))

    async def _hold(self) -> None:
        """Refresh the hold on what is in hand, every third of the lease."""
        while not await _within(self._taking.lease_s / 3, self._closing):
            ids = [held.entry_id for held in self._held.values()]
            with suppress(RedisError, OSError):
                for at in range(0, len(ids), CLAIM_AT_ONCE):
                    if self._closing.is_set():
                        break
                    await self._extend(ids[at : at + CLAIM_AT_ONCE])

    async def _extend(self, ids: list[bytes]) -> None:
        words: list[Any] = [self._url.group, self._taking.consumer, *ids]
        await self._once(self._scripts["extend"](keys=[self._url.stream], args=words))

    # ---- settling

    async def settle(self, outcomes: list[Outcome]) -> None:
        """Settle or release a batch, atomic with the counts and the acknowledgements.

        Waits while Redis is away, until `give_up`: raises QueueError then.
        """
        # One batch at a time: Redis remembers the last one, to answer it again.
        async with self._settling:
            await self._settle(outcomes)

    async def _settle(self, outcomes: list[Outcome]) -> None:
        held = [self._held[outcome.id] for outcome in outcomes]
        contents = [outcome_content(h, outcome) for h, outcome in zip(held, outcomes, strict=True)]
        names = ("imported", "dead", "counts", "topics", "letters", "lost", "batches")
        keys = [self._url.stream, *map(self._key, names)]
        taking = self._taking
        words = [self._url.group, taking.consumer, taking.keep_results, uuid.uuid4().hex]
        answers = await self._run("settle", keys, [*words, orjson.dumps(contents)])
        for outcome in outcomes:
            del self._held[outcome.id]
        if passed_over := answers.count(0):
            log.warning(
                "outcomes passed over: another consumer took the records over, or Redis lost them",
                records=passed_over,
            )
        settled = [c for c, answer in zip(contents, answers, strict=True) if answer]
        for kind in ("imported", "dead"):
            lines = [c["line"].encode() + b"\n" for c in settled if c["kind"] == kind]
            self._copy.append(kind, lines)

    async def requeue(self, letters: list[tuple[bytes, bytes]]) -> int:
        """Put a page of dead letters back, with TopicIds and doubts; how many were there still."""
        keys = [self._url.stream, *map(self._key, ("dead", "counts", "topics", "letters"))]
        content = [letter_to_requeue(entry_id, line) for entry_id, line in letters]
        n: int = await self._run("requeue", keys, [orjson.dumps(content)])
        return n

    # ---- Redis may be away

    async def _run(self, name: str, keys: list[str], words: list[Any]) -> Any:
        return await self._patiently(name, lambda: self._scripts[name](keys=keys, args=words))

    async def _patiently(self, name: str, job: Callable[[], Awaitable[Result]]) -> Result:
        while True:
            try:
                result = await self._once(job())
            except (RedisError, OSError) as error:
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
        self._own_pending_unread = True
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


def _script(name: str) -> str:
    return resources.files("worker.queues").joinpath(f"redis_{name}.lua").read_text()


def _order(entry_id: bytes) -> tuple[int, int]:
    """Tell where an entry stands in its stream."""
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def _is_broken_letter(record: Record) -> bool:
    """Whether a dead letter was handed in that holds perhaps only the beginning of its line."""
    topic = record.topic
    return record.asked_again and isinstance(topic, InvalidRecordError) and not topic.is_object


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait so long for an event; whether it came."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
