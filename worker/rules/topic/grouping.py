"""Problems that differ only in their numbers are one group, with the range of its numbers."""

import re
from dataclasses import dataclass, field

PLACES_KEPT = 1000
_CODE_POINT = r"U\+[0-9A-F]{4,6}"
_NUMBER_ALONE = r"(?<![\w.+-])-?[0-9]+(?:\.[0-9]+)?(?![\w-])"
_PART = re.compile(f"(?P<code>{_CODE_POINT})|(?P<number>{_NUMBER_ALONE})|(?P<digits>[0-9]+)")


def kind_of_message(message: str) -> str:
    """Return what a message has in common with those that differ only in their numbers."""
    return _PART.sub(lambda found: found[0] if found.lastgroup == "code" else "N", message)


@dataclass(slots=True)
class MessageGroup:
    """Messages of one kind: how many, the first places (`path:line`), and their numbers.

    `example`: the first message. `summary`: what to show instead once another message follows.
    """

    example: str
    summary: str | None = None
    count: int = 0
    places: list[str] = field(default_factory=list)
    _words: str = ""
    _ranges: list[tuple[float, float]] = field(default_factory=list)
    _have_other_words: bool = False

    def add(self, message: str, place: str) -> None:
        """Count one more message of this kind, at this place."""
        if self.count == 0:
            self._words, numbers = _split(message)
            self._ranges = [(number, number) for number in numbers]
        elif message != self.example:
            self._widen(*_split(message))
        self.count += 1
        if len(self.places) < PLACES_KEPT:
            self.places.append(place)

    @property
    def message(self) -> str:
        """The message of all, each number as the range that it covers."""
        if self._have_other_words and self.summary is not None:
            return self.summary
        if not self._ranges and not self._have_other_words:
            return self.example
        ranges = iter(self._ranges)

        def shown(found: re.Match[str]) -> str:
            if found.lastgroup != "number":
                return found[0]
            low, high = next(ranges)
            return found[0] if low == high else f"{low} to {high}"

        text = _PART.sub(shown, self.example)
        return f"{text} (and others like it)" if self._have_other_words else text

    def _widen(self, words: str, numbers: list[float]) -> None:
        self._have_other_words |= words != self._words
        if len(numbers) == len(self._ranges):
            self._ranges = [
                (min(low, number), max(high, number))
                for (low, high), number in zip(self._ranges, numbers, strict=True)
            ]


def _split(message: str) -> tuple[str, list[float]]:
    """Return a message without the numbers that stand alone, and these numbers."""
    numbers: list[float] = []

    def take_out(found: re.Match[str]) -> str:
        if found.lastgroup != "number":
            return found[0]
        numbers.append(float(found[0]) if "." in found[0] else int(found[0]))
        return "N"

    return _PART.sub(take_out, message), numbers
