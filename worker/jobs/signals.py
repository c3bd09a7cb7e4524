"""SIGINT and SIGTERM: the first asks to stop, the second to stop at once."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.jobs import Exit
from worker.logs import logger

log = logger()

_EXITS = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}


class StopRequest:
    """Whether a stop was asked for.

    `exit`: the exit code of the first signal, None before it came. `is_now`: a second signal came,
    so nothing is waited for.
    """

    def __init__(self) -> None:
        self.exit: Exit | None = None
        self.is_now = False


@contextmanager
def stop_signals(
    on_first: Callable[[], None], on_second: Callable[[], None]
) -> Iterator[StopRequest]:
    """Call `on_first` at the first SIGINT or SIGTERM, and `on_second` at each one after it."""
    loop = asyncio.get_running_loop()
    request = StopRequest()

    def stop(number: signal.Signals) -> None:
        if request.exit is None:
            request.exit = _EXITS[number]
            log.info("stopping: calls in flight may finish; a second signal stops at once")
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
                # Ignore further signals: the final report is being written.
                signal.signal(number, signal.SIG_IGN)
