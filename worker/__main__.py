"""The start of the program: signals are answered before the slow imports begin."""

import os
import signal
from types import FrameType
from typing import NoReturn

SIGNALLED = 128
"""A process that ends by a signal exits with this plus the signal's number, as shells count."""


def main() -> NoReturn:
    """Run the command line. A signal that comes before a job can drain ends the program at once."""
    exit_at_signals()
    try:
        from worker.cli import main as run  # noqa: PLC0415 - takes most of the start
    except KeyboardInterrupt:
        os._exit(SIGNALLED + signal.SIGINT)
    run()


def exit_at_signals() -> None:
    """End the process at SIGTERM or SIGHUP, with no traceback and the usual exit code.

    The queue and the files of a job survive an end at any instruction. A signal that is ignored,
    as SIGHUP is under `nohup`, stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    os._exit(SIGNALLED + number)


if __name__ == "__main__":
    main()
