"""The jobs: each command's work, composed from the parts. Only here all of them are known."""

import os
import sys
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes (a contract)."""

    DONE = 0
    SOME_DEAD = 1
    PROBLEMS = 1
    USAGE = 2
    HALTED = 3
    INTERRUPTED = 130
    TERMINATED = 143


class UsageError(Exception):
    """Nothing was started: what is wrong, where, and what to do."""


def say(*lines: str) -> None:
    """Print the result of a command.

    A reader who went away (`| head`) ends the printing and not the command. Raises UsageError
    where standard output cannot be written for another reason.
    """
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        # What is still buffered must not be tried again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UsageError(f"standard output: {error.strerror}") from None
