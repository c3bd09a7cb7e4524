"""An event loop on a virtual clock, which advances to the next timer instead of waiting."""

import asyncio
import selectors
from typing import Any

TURN_S = 1e-9
"""How far every iteration advances the clock.

Without it, a rounding error in aiolimiter would repeat at the same instant for ever.
"""


class DeadlockError(AssertionError):
    """All tasks wait and no timer is set, so none would ever continue."""


class _Selector(selectors.DefaultSelector):
    """Advances the clock by the timeout instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("all tasks wait and no timer is set")
        self.now_s += max(timeout, 0.0) + TURN_S
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose `time()` starts at `start_s` and advances only with its own timers."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._virtual = _Selector()
        self._virtual.now_s = start_s
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s
