"""The distributed queue: a Redis stream with a consumer group; results in streams beside it.

A producer in any language adds entries with one field, `record`, a JSON object. An entry stays
pending from its delivery to its outcome; what a silent consumer holds is taken over after the
lease. Outcomes go to `<stream>:imported` and `<stream>:dead`, atomically with the acknowledgement.

Who may have called for an entry before it is delivered (the doubt, `may_exist`):

- a new one: nobody, unless its ID is not above the last that anybody is known to have been given:
  a group that was made anew, or a Redis that lost its last second, once who had it says so (within
  a second or so of its return; who is quicker calls for it as for a new one);
- one that was pending for this consumer and is in nobody's hands: an earlier process of it; but
  nobody, if it was given to this very process by an answer that was lost;
- one that a silent consumer held: that one;
- one whose topic was lost before: who had it then.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import orjson
from redis.exceptions import RedisError, ResponseError

from worker.logs import logger
from worker.queues.contract import JobIdentity
from worker.queues.redis.entries import Entry, Found, Held, outcome_content, read_entry
from worker.queues.redis.feed import RedisFeed
from worker.queues.redis.patience import RETRY_S, in_parts
from worker.queues.redis.streams import StreamUrl, queue_error, text
from worker.rules.outcome import Delivery, Outcome
from worker.rules.topic.topic import RecordRules

log = logger()

LOOK_FOR_SILENT_SHARE = 0.25
LOOK_FOR_SILENT_S = 2.0
"""How often what silent consumers hold is looked for: a share of the lease, at most so long."""
REUNION_S = 10.0
"""After an outage of Redis, by when all replicas have noticed that it is over."""
CLAIM_AT_ONCE = 100
FORGET_S = 600.0
"""Beyond the lease, after which a consumer that fell silent and holds nothing is forgotten."""
LOST_SHOWN = 10
DUPLICATE, IN_DOUBT = 1, 2
"""Answers of the script that registers."""
HELD_BY_ANOTHER, UNKNOWN = 0, -1
"""Answers of the script that settles."""


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

    def append(self, lines: Mapping[str, list[bytes]]) -> None:
        """Add lines, by the kind of their outcome: `imported`, `dead`."""
        ...

    def flush(self) -> None:
        """Try again to write what waits."""
        ...


class NoCopy:
    """No copy at all."""

    trouble: str | None = None

    def append(self, lines: Mapping[str, list[bytes]]) -> None: ...

    def flush(self) -> None: ...


class RedisQueue(RedisFeed):
    """One consumer's view of the queue. Use `open` first, `close` last.

    Taking answers with nothing while Redis is away, settling and putting wait for it: no outcome is
    dropped.
    """

    def __init__(
        self,
        url: StreamUrl,
        taking: Taking,
        *,
        copy: Copy | None = None,
    ) -> None:
        super().__init__(url)
        self._taking = taking
        self._copy = copy or NoCopy()
        self._held: dict[int, Held] = {}
        self._next_id = 1
        self._own_unread_after: bytes | None = b"0"
        self._process = uuid.uuid4().hex
        self._last_delivered = b"0-0"
        self._called_by_nobody: set[bytes] = set()
        self._look_again_at_s = 0.0
        self._claim_cursor = b"-"
        self._hold_now = asyncio.Event()
        self._is_closing = False
        self._holding: asyncio.Task[None] | None = None
        self._settling = asyncio.Lock()
        self.is_drained = False
        """Whether the last take found all that was there."""
        self.found: Counter[str] = Counter()
        """What became of entries as they were taken: `duplicate` (their topic was in the queue
        before), `dead` (they cannot be sent), `lost` (trimmed away while nobody had them)."""

    def __repr__(self) -> str:
        return f"<RedisQueue {self._url.stream} as {self._taking.consumer}, {len(self._held)} held>"

    # ---- the job

    @property
    def trouble(self) -> str | None:
        """Why the queue cannot be used now."""
        return super().trouble or self._copy.trouble

    async def open(self, identity: JobIdentity) -> None:
        """Join the group, as `RedisFeed.open`, and begin to refresh what is held."""
        await super().open(identity)
        try:
            await self._forget_consumers(idle_s=self._taking.lease_s + FORGET_S)
            self._look_for_silent_after(-await self._redis_runs_for_s())
        except (RedisError, OSError) as error:
            raise queue_error(error) from None
        self._holding = asyncio.create_task(self._hold())

    async def close(self) -> None:
        """Stop refreshing what is held, and leave; what is still held stays pending."""
        # Ended by a flag: redis-py swallows most cancellations that come during a call.
        self._is_closing = True
        self._hold_now.set()
        if self._holding:
            await self._holding
            with suppress(RedisError, OSError):
                await self._forget_consumers(self._taking.consumer)
        await super().close()

    async def _forget_consumers(self, name: str = "", *, idle_s: float = 0.0) -> None:
        """Take consumers that hold nothing out of the group: replicas come and go."""
        words = [self._url.group, name, int(idle_s * 1000)]
        await self._run_once("tidy", ("batches", "taken"), words)

    # ---- taking

    async def take(self, count: int, *, untried_first: bool = False) -> list[Delivery]:  # noqa: ARG002 - released entries go to the end of the stream
        """Take up to `count`: what this consumer held before, what silent ones hold, then new.

        Nothing while Redis is away, or while the copy cannot be written.
        """
        self.is_drained = False
        self._copy.flush()
        if self._copy.trouble:
            await self._pause()
            return []
        taken: list[Delivery] = []
        try:
            taken = await self._deliver(await self._find(count))
        except (RedisError, OSError) as error:
            await self._trouble("take", error)
        else:
            self._no_trouble("take")
        return taken

    async def _find(self, count: int) -> list[Found]:
        # Before all reading: what is settled meanwhile must not come back with it.
        in_hand = {held.entry_id for held in self._held.values()}
        found = await self._find_own(count, in_hand) if self._own_unread_after else []
        looks_for_silent = self._clock() >= self._look_again_at_s and not self._troubles
        if len(found) < count and looks_for_silent:
            found += await self._find_silent(count - len(found), in_hand)
        if len(found) < count:
            found += await self._find_new(count - len(found), in_hand)
        return found

    async def _find_own(self, count: int, in_hand: set[bytes]) -> list[Found]:
        """Find what was delivered to this consumer and is not in its hands: a crash, a lost reply.

        An earlier process of this consumer may have called.
        """
        if self._own_unread_after == b"0":
            self._called_by_nobody = await self._taken_by_a_lost_answer()
        found: list[Found] = []
        while len(found) < count and self._own_unread_after:
            page = await self._own_pending(self._own_unread_after, count - len(found))
            self._own_unread_after = page[-1][0] if page else None
            others = [(entry_id, fields) for entry_id, fields in page if entry_id not in in_hand]
            await self._lose([entry_id for entry_id, fields in others if not fields])
            called_by_nobody = self._called_by_nobody
            found += [Found(i, fields, i not in called_by_nobody) for i, fields in others if fields]
        return found

    async def _taken_by_a_lost_answer(self) -> set[bytes]:
        """Find what this process took last, as far as it was not told so."""
        key, consumer = self._key("taken"), self._taking.consumer
        kept = await self._once(self._redis.hget(key, consumer))
        taken = orjson.loads(kept) if kept else {}
        if taken.get("process") != self._process:
            # Another process of this name, should it live, must not believe that nobody called.
            await self._once(self._redis.hdel(key, consumer))
            return set()
        return {
            entry_id for entry_id in map(str.encode, taken["new"])
            if _order(entry_id) > _order(self._last_delivered)
        }  # fmt: skip

    async def _own_pending(
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

    async def _find_silent(self, count: int, in_hand: set[bytes]) -> list[Found]:
        taking = self._taking
        words = [
            self._url.group, taking.consumer, int(taking.lease_s * 1000), self._claim_cursor,
            min(count, CLAIM_AT_ONCE),
        ]  # fmt: skip
        answer = await self._run_once("take_over", ("lost", "held", "taken"), words)
        self._claim_cursor, claimed, gone = answer
        if self._claim_cursor == b"-":
            self._look_again_at_s = self._clock() + min(
                taking.lease_s * LOOK_FOR_SILENT_SHARE, LOOK_FOR_SILENT_S
            )
        # Its own are among them where they were refreshed too late.
        self._tell_lost([entry_id for entry_id in gone if entry_id not in in_hand])
        found = [
            Found(entry_id, _fields(flat), may_have_called=True)
            for entry_id, flat in claimed
            if entry_id not in in_hand
        ]
        if found:
            log.warning("taken over from a consumer that fell silent", records=len(found))
        return found

    async def _find_new(self, count: int, in_hand: set[bytes]) -> list[Found]:
        words = [
            self._url.group, self._taking.consumer, self._process, count, self._last_delivered,
        ]  # fmt: skip
        entries = await self._run_once("take_new", ("delivered", "taken"), words)
        self.is_drained = len(entries) < count and not self._own_unread_after
        return [
            Found(entry_id, _fields(flat), bool(had_before))
            for entry_id, flat, had_before in entries
            if entry_id not in in_hand
        ]

    async def _deliver(self, found: list[Found]) -> list[Delivery]:
        rules, bytes_max = self._taking.rules, self._taking.line_bytes_max
        entries = [read_entry(self._url.stream, entry, rules, bytes_max) for entry in found]
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
        self._last_delivered = max([self._last_delivered, *(e.id for e in found)], key=_order)
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
        answers = await self._run_once("register", ("counts", "topics", "lost"), words)
        duplicates = set()
        for entry, answer in zip(named, answers, strict=True):
            if answer == DUPLICATE:
                duplicates.add(entry.id)
                self.found["duplicate"] += 1
            elif answer == IN_DOUBT:
                entry.history = entry.history.cut_off()
            elif isinstance(answer, bytes):
                entry.conflict_with = text(answer)
        return [entry for entry in entries if entry.id not in duplicates]

    async def _lose(self, entry_ids: list[bytes]) -> None:
        """Note own entries that somebody trimmed away while nobody had them in hand."""
        if entry_ids:
            await self._run_once("lose", ("lost", "held"), [self._url.group, *entry_ids])
            self._tell_lost(entry_ids)

    def _tell_lost(self, entry_ids: list[bytes]) -> None:
        if entry_ids:
            self.found["lost"] += len(entry_ids)
            log.error(
                "LOST: Redis no longer holds records that were taken; look at who trims or deletes "
                "entries of the stream, and enqueue again what is missing",
                records=len(entry_ids),
                entries=[entry_id.decode() for entry_id in entry_ids[:LOST_SHOWN]],
            )

    async def _hold(self) -> None:
        """Refresh the hold on what is in hand, every third of the lease and after an outage."""
        pause_s = self._taking.lease_s / 3
        while not self._is_closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hold_now.wait()
            self._hold_now.clear()
            try:
                await self._extend_all()
                pause_s = self._taking.lease_s / 3
            except (RedisError, OSError):
                pause_s = RETRY_S

    async def _extend_all(self) -> None:
        ids = [held.entry_id for held in self._held.values()]
        for at in range(0, len(ids), CLAIM_AT_ONCE):
            if not self._is_closing:
                await self._extend(ids[at : at + CLAIM_AT_ONCE])

    async def _extend(self, ids: list[bytes]) -> None:
        words: list[Any] = [self._url.group, self._taking.consumer, self._last_delivered, *ids]
        await self._run_once("extend", ("delivered", "held"), words)

    # ---- settling

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Settle or release a batch, atomic with the counts and the acknowledgements.

        Answers with what was settled, now or by an earlier try. Waits while Redis is away, until
        `give_up`: raises QueueError then.
        """
        # One batch at a time: Redis remembers the last one, to tell it again.
        async with self._settling:
            # Of a batch that comes again, for its end could not be settled, the beginning was.
            outcomes = [outcome for outcome in outcomes if outcome.id in self._held]
            contents = [outcome_content(self._held[outcome.id], outcome) for outcome in outcomes]
            rest = iter(zip(outcomes, contents, strict=True))
            settled: list[Outcome] = []
            for part in in_parts([orjson.dumps(content) for content in contents]):
                settled += await self._settle(list(islice(rest, len(part))), part)
            return settled

    async def _settle(
        self, batch: list[tuple[Outcome, dict[str, Any]]], words: list[bytes]
    ) -> list[Outcome]:
        names = ("imported", "dead", "counts", "topics", "letters", "lost", "batches", "held")
        taking = self._taking
        beginning = [self._url.group, taking.consumer, taking.keep_results]
        answers = await self._run("settle", names, [*beginning, *words])
        for outcome, _ in batch:
            del self._held[outcome.id]
        settled = [both for both, answer in zip(batch, answers, strict=True) if answer > 0]
        self._copy.append(
            {
                kind: [c["line"].encode() + b"\n" for _, c in settled if c["kind"] == kind]
                for kind in ("imported", "dead")
            }
        )
        if passed_over := answers.count(HELD_BY_ANOTHER):
            log.warning("outcomes passed over: others took the records over", records=passed_over)
        if unknown := answers.count(UNKNOWN):
            log.error(
                "outcomes passed over: the queue knows nothing of the records any more; others "
                "took them over and settled them, or Redis lost them",
                records=unknown,
            )
        return [outcome for outcome, _ in settled]

    # ---- Redis may be away

    def _out_of_touch(self) -> None:
        self._own_unread_after = b"0"

    def _in_touch_again(self) -> None:
        self._look_for_silent_after(0.0)
        self._hold_now.set()

    def _look_for_silent_after(self, outage_ended_s: float) -> None:
        """Wait with take-overs: others, too, could not refresh what they hold in an outage."""
        reunion_s = outage_ended_s + min(self._taking.lease_s, REUNION_S)
        self._look_again_at_s = self._clock() + max(0.0, reunion_s)

    async def _redis_runs_for_s(self) -> float:
        try:
            told = await self._once(self._redis.info("server"))
        except ResponseError:  # not everybody may ask
            return REUNION_S
        return float(told["uptime_in_seconds"])


def _fields(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _order(entry_id: bytes) -> tuple[int, int]:
    """Tell where an entry stands in its stream."""
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)
