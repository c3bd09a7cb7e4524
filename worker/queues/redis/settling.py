"""Settling: outcomes go to Redis in one step with the acknowledgement, and then to a copy."""

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import Any, Protocol

import orjson

from worker.logs import logger
from worker.queues.redis.arguments import outcome_content
from worker.queues.redis.connection import Connection, in_parts
from worker.queues.redis.consumer import Taking
from worker.queues.redis.hold import Hold
from worker.queues.redis.patience import Patience
from worker.rules.outcome import Outcome

log = logger()

SETTLED_AT_ONCE = 50
"""Redis does nothing else meanwhile: about 2 ms."""
LANES = 4
"""Parts of a batch that are under way together."""
KEYS = (
    "imported", "dead", "counts", "topics", "letters", "lost", "batches", "held", "renewed",
    "uncalled", "claimed", "communities", "dead_by_community", "held_by_community",
)  # fmt: skip
HELD_BY_ANOTHER, UNKNOWN = 0, -1
"""Answers of the script that settles for outcomes that it skips; answers above 0: settled."""


class Copy(Protocol):
    """Where the lines of settled outcomes are written beside the streams.

    `trouble`: why it cannot be written now; the lines wait in memory then.
    """

    trouble: str | None

    def append(self, lines: Mapping[str, list[bytes]]) -> None:
        """Add lines, by the kind of their outcome: `imported`, `dead`."""
        ...

    def flush(self) -> None:
        """Try again to write the lines that wait."""
        ...


class NoCopy:
    """No copy at all."""

    trouble: str | None = None

    def append(self, lines: Mapping[str, list[bytes]]) -> None: ...

    def flush(self) -> None: ...


class Settler:
    """Settles what a consumer holds: batches one after another, the parts of a batch together."""

    def __init__(
        self, connection: Connection, patience: Patience, taking: Taking, hold: Hold, copy: Copy
    ) -> None:
        self._group = connection.url.group
        self._patience = patience
        self._taking = taking
        self._hold = hold
        self._copy = copy
        self._one_at_a_time = asyncio.Lock()
        self._unanswered: dict[int, _Part] = {}
        """The part of each lane whose reply did not arrive."""

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Settle or release a batch. Returns those that were settled, now or by an earlier try.

        Waits while Redis is away. Raises QueueError once it is given up.
        """
        async with self._one_at_a_time:
            # Redis remembers the last part of each lane, to accept it again (R17). So what may have
            # been settled unseen goes again as it was, in its lane, before anything else does.
            settled = await self._settle_parts([*self._unanswered.items()])
            # On a retry, skip the outcomes that an earlier, partly completed try already settled.
            rest = [outcome for outcome in outcomes if outcome.id in self._hold.entries]
            settled |= await self._settle_parts(
                [(number % LANES, part) for number, part in enumerate(self._parts(rest))]
            )
            return [outcome for outcome in outcomes if outcome.id in settled]

    def _parts(self, outcomes: list[Outcome]) -> list["_Part"]:
        contents = [
            outcome_content(self._hold.entries[outcome.id], outcome) for outcome in outcomes
        ]
        batch = iter(zip(outcomes, contents, strict=True))
        arguments = [orjson.dumps(content) for content in contents]
        return [
            _Part(list(islice(batch, len(part))), part)
            for part in in_parts(arguments, SETTLED_AT_ONCE)
        ]

    async def _settle_parts(self, parts: list[tuple[int, "_Part"]]) -> set[int]:
        """Settle parts, each given with its lane; return the IDs of what was settled."""
        settled: set[int] = set()
        lanes: dict[int, list[_Part]] = {}
        for lane, part in parts:
            lanes.setdefault(lane, []).append(part)
        results = await asyncio.gather(
            *(self._settle_in_lane(lane, rest, settled) for lane, rest in lanes.items()),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return settled

    async def _settle_in_lane(self, lane: int, parts: list["_Part"], settled: set[int]) -> None:
        """Settle parts one after another, while other lanes do the same."""
        consumer = self._taking.consumer
        beginning = [
            self._group,
            consumer,
            self._taking.keep_results,
            lane_name(consumer, lane),
        ]
        for part in parts:
            self._unanswered[lane] = part
            answers = await self._patience.run("settle", KEYS, [*beginning, *part.arguments])
            del self._unanswered[lane]
            done = part.settled(answers)
            settled.update(outcome.id for outcome, _ in done)
            for outcome, _ in part.batch:
                self._hold.entries.pop(outcome.id, None)
            # At once: whoever waits for the batch may be cancelled before the other lanes end.
            self._append([content for _, content in done])
            _report_skipped(answers)

    def _append(self, settled: list[dict[str, Any]]) -> None:
        self._copy.append(
            {
                kind: [c["line"].encode() + b"\n" for c in settled if c["kind"] == kind]
                for kind in ("imported", "dead")
            }
        )


class _Part:
    """A part of a batch: outcomes with their contents, and what the script is given for them."""

    def __init__(self, batch: list[tuple[Outcome, dict[str, Any]]], arguments: list[bytes]) -> None:
        self.batch = batch
        self.arguments = arguments

    def settled(self, answers: list[int]) -> list[tuple[Outcome, dict[str, Any]]]:
        """Return what was settled, now or before; `answers`: one for each outcome."""
        return [pair for pair, answer in zip(self.batch, answers, strict=True) if answer > 0]


def lane_name(consumer: str, lane: int) -> str:
    """Return the field under which Redis remembers the last part of a lane."""
    return consumer if lane == 0 else f"{consumer}|{lane}"


def _report_skipped(answers: list[int]) -> None:
    """Log outcomes of entries that are no longer this consumer's (R15)."""
    if others := answers.count(HELD_BY_ANOTHER):
        log.warning("outcomes skipped: other consumers took the records over", records=others)
    if unknown := answers.count(UNKNOWN):
        log.error(
            "outcomes skipped: the queue no longer holds the records; other consumers took them "
            "over and settled them, or Redis lost them",
            records=unknown,
        )
