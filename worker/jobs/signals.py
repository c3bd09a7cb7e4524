"""SIGINT, SIGTERM and SIGHUP: the first asks to stop, the second to stop at once.

SIGHUP comes when a terminal is closed. Where it is ignored at the start, as under `nohup`, it stays
ignored.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.jobs import Exit
from worker.logs import logger

log = logger()

_EXITS = {
    signal.SIGINT: Exit.INTERRUPTED,
    signal.SIGTERM: Exit.TERMINATED,
    signal.SIGHUP: Exit.HUNG_UP,
}


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
    """Call `on_first` at the first of the signals, and `on_second` at each one after it."""
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

    before = {number: signal.getsignal(number) for number in stopping_signals()}
    for number in before:
        loop.add_signal_handler(number, stop, number)
    try:
        yield request
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            # After a stop, ignore further signals: the final report is being written.
            signal.signal(number, handler if request.exit is None else signal.SIG_IGN)


def stopping_signals() -> list[signal.Signals]:
    """Return the signals at which a job stops: without SIGHUP where that is ignored."""
    is_kept = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [number for number in _EXITS if number is not signal.SIGHUP or is_kept]
