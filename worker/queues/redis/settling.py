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

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Settle or release a batch. Returns those that were settled, now or by an earlier try.

        Waits while Redis is away. Raises QueueError once it is given up.
        """
        # Redis remembers the last part of each lane, to accept it again (R17).
        async with self._one_at_a_time:
            # On a retry, skip the outcomes that an earlier, partly completed try already settled.
            outcomes = [outcome for outcome in outcomes if outcome.id in self._hold.entries]
            contents = [
                outcome_content(self._hold.entries[outcome.id], outcome) for outcome in outcomes
            ]
            rest = iter(zip(outcomes, contents, strict=True))
            arguments = [orjson.dumps(content) for content in contents]
            parts = [
                _Part(list(islice(rest, len(part))), part)
                for part in in_parts(arguments, SETTLED_AT_ONCE)
            ]
            lanes = [
                self._settle_in_lane(n, parts[n::LANES]) for n in range(min(LANES, len(parts)))
            ]
            results = await asyncio.gather(*lanes, return_exceptions=True)
            self._append([part for part in parts if part.is_done])
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            return [outcome for part in parts for outcome, _ in part.settled]

    async def _settle_in_lane(self, lane: int, parts: list["_Part"]) -> None:
        """Settle parts one after another, while other lanes do the same."""
        consumer = self._taking.consumer
        for part in parts:
            beginning = [
                self._group,
                consumer,
                self._taking.keep_results,
                lane_name(consumer, lane),
            ]
            answers = await self._patience.run("settle", KEYS, [*beginning, *part.arguments])
            part.answered(answers)
            for outcome, _ in part.batch:
                del self._hold.entries[outcome.id]
            _report_skipped(answers)

    def _append(self, parts: list["_Part"]) -> None:
        settled = [content for part in parts for _, content in part.settled]
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
        self.is_done = False
        self.settled: list[tuple[Outcome, dict[str, Any]]] = []

    def answered(self, answers: list[int]) -> None:
        self.is_done = True
        self.settled = [b for b, answer in zip(self.batch, answers, strict=True) if answer > 0]


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
