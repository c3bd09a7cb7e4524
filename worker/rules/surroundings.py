"""Is a changed line the record that stood there before? The lines around it are the evidence."""

from collections.abc import Callable
from dataclasses import dataclass

from worker.rules.record import Record

RUN_LINES_MAX = 10_000
"""Dead letters in a row through which the lines around them are looked for."""

HashOf = Callable[[int], bytes | None]
"""Line number -> the hash of this line in the input as it is now, None if there is no such line."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A line that was no dead letter when it was read.

    `hashes`: each one that the line had while it was this record; the beginning of a hash is
    enough.
    """

    line: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """A changed line with dead letters that only the lines around it could prove to be the same.

    `path`, `line`: its position. `letters`: how many dead letters. `above`, `below`: the nearest
    lines that were no dead letters when the last of these letters was read; both None where nothing
    is known of them, or where the line was another record since.
    """

    path: str
    line: int
    letters: int
    above: Neighbour | None = None
    below: Neighbour | None = None

    def are_unchanged(self, hash_of: HashOf) -> bool:
        """Return whether at least one line around is known, and each is now as it was.

        Asks `hash_of` for the line above first.
        """
        known = [neighbour for neighbour in (self.above, self.below) if neighbour]
        return bool(known) and all(_is_unchanged(neighbour, hash_of) for neighbour in known)


def can_be_mended_in_place(record: Record) -> bool:
    """Return whether a line that was read may replace the dead letters of its position (R28)."""
    return not record.asked_again and not record.is_from_standard_input


def _is_unchanged(neighbour: Neighbour, hash_of: HashOf) -> bool:
    now = hash_of(neighbour.line)
    return now is not None and any(now.startswith(known) for known in neighbour.hashes)
