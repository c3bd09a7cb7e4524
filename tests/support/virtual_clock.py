"""An event loop on a virtual clock: time is what the timers ask for, and a minute costs nothing."""

import asyncio
import selectors
from typing import Any

TURN_S = 1e-9
"""Every turn costs a little, or a rounding in aiolimiter would wait for ever at one instant."""


class DeadlockError(AssertionError):
    """Everything waits and no timer is set: it would wait for ever."""


class _Selector(selectors.DefaultSelector):
    """Waits by moving the clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("nothing is left that could ever happen")
        self.now_s += max(timeout, 0.0) + TURN_S
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose `time()` begins at `start_s` and is moved by its own timers only."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._virtual = _Selector()
        self._virtual.now_s = start_s
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s
