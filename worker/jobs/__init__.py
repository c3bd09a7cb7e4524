"""The jobs: what each command does. Only this package knows all the parts and composes them."""

import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import orjson

from worker.rules.visible_text import visible


class Exit(IntEnum):
    """Exit codes of the commands; they never change."""

    DONE = 0
    SOME_DEAD = 1
    PROBLEMS = 1
    USAGE = 2
    HALTED = 3
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class UsageError(Exception):
    """Nothing was started. Each argument is a line: what is wrong, where, and what to do."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


def print_result(*lines: str) -> None:
    """Print what a command found, exactly one line for each argument, on standard output.

    What a terminal would obey instead of showing it is escaped (`visible`). If the reader went
    away (`| head`), the rest is dropped and the command goes on. Raises UsageError if standard
    output cannot be written for another reason.
    """
    _write("\n".join(map(visible, lines)))


def print_blocks(*blocks: Sequence[str]) -> None:
    """Print blocks of lines with an empty line between them; otherwise as `print_result`."""
    _write("\n\n".join("\n".join(map(visible, block)) for block in blocks))


def print_columns(*rows: Sequence[object]) -> None:
    """Print rows whose cells are separated by tabs; otherwise as `print_result`."""
    _write("\n".join("\t".join(visible(str(cell)) for cell in row) for row in rows))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a header: aligned on a terminal, else separated by tabs for other programs.

    Otherwise as `print_result`.
    """
    table = [header, *rows]
    if not sys.stdout.isatty():
        print_columns(*table)
        return
    cells = [[visible(str(cell)) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
    _write("\n".join(lines))


def print_json(content: Any) -> None:
    """Print a value as indented JSON; otherwise as `print_result`."""
    _write(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def _write(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError as error:
        # Python would write the rest of its buffer at the exit, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UsageError(f"standard output: {error.strerror}") from None
