"""One number for each line of all inputs, and the place that it stands for."""

from bisect import bisect_right


class Places:
    """Numbers the lines of the inputs in the order in which they are read."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._bases: list[int] = []
        self._last = 0

    def begin(self, name: str) -> None:
        """Begin an input; its lines follow those of the inputs before."""
        self._names.append(name)
        self._bases.append(self._last)

    def count(self, line: int) -> int:
        """Count the lines of the input that was begun last up to this one.

        Returns what to add to a line's number in this input for its number among all.
        """
        base = self._bases[-1]
        self._last = base + line
        return base

    def name(self, number: int) -> str:
        """Return the place of a line as results name it: `path:line`."""
        at = bisect_right(self._bases, number - 1) - 1
        return f"{self._names[at]}:{number - self._bases[at]}"
