"""How fast `check` is: `python -m benchmarks.check [RECORDS]`, whole processes in turns.

Compared with a bare `orjson.loads` of each line of the same file, which checks nothing. Each line
of the output is one kind of input: CPU seconds a million records, the ratio, and peak memory.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

RECORDS = 300_000
PAIRS = 3
TOPICS_PER_COMMUNITY = 150
PROGRAM = (sys.executable, "-m", "worker")
BARE = """
import sys
import orjson
with open(sys.argv[1], "rb") as file:
    for line in file:
        orjson.loads(line)
"""


@dataclass(frozen=True)
class Ran:
    """What a process took: CPU seconds of user and system, and peak memory."""

    cpu_s: float
    peak_bytes: int


def short_record(number: int) -> dict[str, Any]:
    """Return a record of about 130 bytes."""
    return {
        "GroupId": f"@TGS#_@TGS#cBENCH{number // TOPICS_PER_COMMUNITY:05d}",
        "TopicName": f"话题 {number}",
        "CustomString": f"old-{number}",
        "CreateTime": 1_500_000_000 + number,
    }


def full_record(number: int) -> dict[str, Any]:
    """Return a record of about 350 bytes, with every field that exports commonly have."""
    return short_record(number) | {
        "From_Account": f"user-{number % 1000}",
        "CustomString": f'{{"old_id":"C{number:08d}"}}',
        "FaceUrl": f"https://files.example.org/faces/{number}.png",
        "Notification": "Read the rules before you write here.",
        "Introduction": f"Questions and answers about number {number}, and what belongs to it",
    }


def faulty_record(number: int) -> dict[str, Any]:
    """Return a record that is refused: half of them for one reason, half for another."""
    wrong = {"TopicName": "x" * (31 + number % 90)} if number % 2 else {f"field{number}": 1}
    return short_record(number) | wrong


def doubled_record(number: int) -> dict[str, Any]:
    """Return a record that each second one repeats."""
    return short_record(number // 2)


def write(path: Path, make: Callable[[int], dict[str, Any]], records: int) -> None:
    """Write records as JSON Lines."""

    def lines() -> Iterator[bytes]:
        for number in range(records):
            yield orjson.dumps(make(number), option=orjson.OPT_APPEND_NEWLINE)

    with path.open("wb") as file:
        file.writelines(lines())


def run(*command: str) -> Ran:
    """Run a command to its end; exit codes 0 and 1 are fine, for `check` may find problems."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in {0, 1}, command
    return Ran(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def measure(path: Path, records: int) -> str:
    """Compare `check` with the bare loop on one file; return a line for people."""
    pairs = [
        (run(sys.executable, "-c", BARE, str(path)), run(*PROGRAM, "check", str(path)))
        for _ in range(PAIRS)
    ]
    ratio = statistics.median(bare.cpu_s / ours.cpu_s for bare, ours in pairs)
    bare_us, our_us = (
        statistics.median(ran.cpu_s for ran in rans) / records * 1e6
        for rans in zip(*pairs, strict=True)
    )
    peak = max(ours.peak_bytes for _, ours in pairs)
    return (
        f"{our_us:.2f} us CPU a record against {bare_us:.2f}, ratio {ratio:.3f}, "
        f"{1e6 / our_us:,.0f}/s, peak {peak / 1e6:.0f} MB"
    )


def main(records: int = RECORDS) -> int:
    """Measure every kind of input at this size, and print a line for each."""
    with tempfile.TemporaryDirectory() as directory:
        for make in (short_record, full_record, faulty_record, doubled_record):
            path = Path(directory) / f"{make.__name__}.jsonl"
            write(path, make, records)
            print(f"{make.__name__} x {records:,}: {measure(path, records)}", flush=True)
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
