"""Signals as a context: the first asks to stop, the second to stop now."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.jobs import Exit
from worker.logs import logger

log = logger()

_EXITS = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


class StopRequest:
    """Whether somebody asked to stop, and with which exit code the process then ends.

    `is_now`: asked a second time, and so to wait for nothing.
    """

    def __init__(self) -> None:
        self.exit: Exit | None = None
        self.is_now = False


@contextmanager
def stop_signals(
    on_first: Callable[[], None], on_second: Callable[[], None]
) -> Iterator[StopRequest]:
    """Route SIGINT and SIGTERM to the two callbacks."""
    loop = asyncio.get_running_loop()
    request = StopRequest()

    def stop(number: signal.Signals) -> None:
        if request.exit is None:
            request.exit = _EXITS[number]
            log.info("stopping: what is under way may finish; once more to stop now")
            on_first()
        else:
            log.warning("stopping now")
            request.is_now = True
            on_second()

    for number in _EXITS:
        loop.add_signal_handler(number, stop, number)
    try:
        yield request
    finally:
        for number in _EXITS:
            loop.remove_signal_handler(number)
            if request.exit is not None:
                # The process ends: one more must not end it in the middle of its last words.
                signal.signal(number, signal.SIG_IGN)
