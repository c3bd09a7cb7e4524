"""`make profile`: where a backfill spends the time of its main thread, by function.

RECORDS of the environment says how many are imported. The threads of the queue and the files are
not in it. `build/backfill.prof` keeps the profile for other viewers.
"""

import pstats
import sys
from pathlib import Path

from benchmarks.processes import run_until_stopped, service
from benchmarks.work import backfill, number, workplace, write_records

RECORDS, SHOWN = 20_000, 40
PROFILE = Path("build/backfill.prof")


def main() -> int:
    records = number("RECORDS", RECORDS)
    PROFILE.parent.mkdir(exist_ok=True)
    profiled = (sys.executable, "-m", "cProfile", "-o", PROFILE.resolve(), "-m", "worker")
    with service() as server, workplace() as directory:
        source = write_records(directory / "topics.jsonl", records)
        with backfill(
            source, url=server.url, out=directory / "out", records=records, program=profiled
        ) as process:
            process.wait()
    pstats.Stats(str(PROFILE)).sort_stats("tottime").print_stats(SHOWN)
    return 0


if __name__ == "__main__":
    run_until_stopped(main)
