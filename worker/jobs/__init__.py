"""The jobs: what each command does. Only this package knows all the parts and composes them."""

import os
import sys
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the commands; they never change."""

    DONE = 0
    SOME_DEAD = 1
    PROBLEMS = 1
    USAGE = 2
    HALTED = 3
    INTERRUPTED = 130
    TERMINATED = 143


class UsageError(Exception):
    """Nothing was started. The message says what is wrong, where, and what to do."""


def print_result(*lines: str) -> None:
    """Print what a command found, a line for each argument, on standard output.

    If the reader went away (`| head`), the rest is dropped and the command goes on. Raises
    UsageError if standard output cannot be written for another reason.
    """
    try:
        print(*lines, sep="\n", flush=True)
    except BrokenPipeError:
        # Python would write the rest of its buffer at the exit, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UsageError(f"standard output: {error.strerror}") from None
