"""The jobs: each command's work, composed from the parts. Only here all of them are known."""

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
