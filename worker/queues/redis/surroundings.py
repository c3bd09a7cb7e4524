"""The lines around dead letters whose lines changed, as they were read before (R28).

Of each line Redis keeps the hash that was read last. When a line changes, `put.lua` takes the
evidence from the dead letters beside it, so what is kept beside the others is what stood there when
they were read. Lines whose hashes stand in two strings are not beside each other.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from worker.queues.redis.arguments import (
    HASH_DIGITS,
    POSITIONS_LINES,
    key_text,
    positions_key,
    stored_hash,
)
from worker.queues.redis.connection import Connection
from worker.queues.redis.patience import Patience
from worker.rules.record import Record
from worker.rules.surroundings import (
    RUN_LINES_MAX,
    Neighbour,
    Surroundings,
    can_be_mended_in_place,
)

PAGE_LINES = 500
Letter = dict[str, Any]
"""A dead letter as `common.lua` describes it."""


class StreamSurroundings:
    """Finds the lines around dead letters, with the patience that it is given."""

    def __init__(self, connection: Connection, patience: Patience) -> None:
        self._redis = connection.redis
        self._key = connection.url.key
        self._patience = patience

    async def of(self, records: list[Record]) -> list[Surroundings]:
        """Return what is known around the changed lines of one batch, see the contract."""
        lines = [record for record in records if can_be_mended_in_place(record)]
        if not lines or not await self._read(lambda: self._redis.hlen(self._key("letters"))):
            return []
        sources = [record.source for record in lines]
        found = zip(lines, await self._letters(sources), strict=True)
        around: list[Surroundings] = []
        for record, letters in found:
            surroundings = await self._around(record, letters) if letters else None
            if surroundings:
                around.append(surroundings)
        return around

    async def _around(self, record: Record, letters: list[Letter]) -> Surroundings | None:
        (old,) = await self._hashes(record, record.line, 1)
        if old == stored_hash(record.content_hash):
            return None
        unproven = [letter for letter in letters if _is_unproven(record, letter)]
        if not unproven:
            return None
        found = Surroundings(record.path, record.line, len(unproven))
        if not any(_is_of_line(one, old) and not one.get("is_stale") for one in unproven):
            return found
        above, is_above_known = await self._nearest(record, -1)
        below, is_below_known = await self._nearest(record, 1)
        if not (is_above_known and is_below_known):
            return found
        return Surroundings(record.path, record.line, len(unproven), above, below)

    async def _nearest(self, record: Record, step: int) -> tuple[Neighbour | None, bool]:
        """Return the nearest line that is no dead letter; False if it is too far away."""
        for distance in range(1, RUN_LINES_MAX, PAGE_LINES):
            numbers = [record.line + step * (distance + n) for n in range(PAGE_LINES)]
            numbers = [n for n in numbers if n > 0 and _string_of(n) == _string_of(record.line)]
            if not numbers:
                return None, True
            first = min(numbers)
            hashes = await self._hashes(record, first, len(numbers))
            known = {n: hashes[n - first] for n in numbers if hashes[n - first]}
            if not known and step > 0:
                return None, True
            letters = await self._letters([f"{record.path}:{n}" for n in known])
            for (number, old), of_line in zip(known.items(), letters, strict=True):
                if not any(_is_of_line(letter, old) for letter in of_line):
                    return Neighbour(number, (bytes.fromhex(old),)), True
        return None, False

    async def _hashes(self, record: Record, first: int, count: int) -> list[str]:
        """Return the hashes that were read of some lines; empty for a line never read."""
        begin = (first - 1) % POSITIONS_LINES * HASH_DIGITS
        end = begin + count * HASH_DIGITS - 1
        key = self._key(positions_key(record))
        found = await self._read(lambda: self._redis.getrange(key, begin, end))
        text = found.decode().ljust(count * HASH_DIGITS, "\0")
        pieces = (text[at : at + HASH_DIGITS] for at in range(0, len(text), HASH_DIGITS))
        return [piece.strip("\0") for piece in pieces]

    async def _letters(self, sources: Sequence[str]) -> list[list[Letter]]:
        if not sources:
            return []
        texts = await self._read(lambda: self._redis.hmget(self._key("letters"), list(sources)))
        return [orjson.loads(text) if text else [] for text in texts]

    async def _read(self, call: Any) -> Any:
        return await self._patience.insist("put", call)


def _string_of(line: int) -> int:
    return (line - 1) // POSITIONS_LINES


def _is_unproven(record: Record, letter: Letter) -> bool:
    """Return whether only the lines around can prove that a letter is this record."""
    key, topic_id = key_text(record.topic), record.topic.topic_id
    has_key = key and key == letter.get("key")
    has_id = topic_id and topic_id == letter["topic_id"]
    return not (letter["may_exist"] or has_key or has_id)


def _is_of_line(letter: Letter, old: str) -> bool:
    """Return whether a dead letter is what was read from its line last."""
    return letter.get("hash") in {None, old}
