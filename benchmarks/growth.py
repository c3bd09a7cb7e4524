"""`make bench-growth`: what the commands take with 10 thousand, 100 thousand, a million records.

SIZES of the environment names other numbers: SIZES="10000 5000000". Writes a section of
`docs/performance.md`, anew after each size.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.page import machine, table, write_section
from benchmarks.processes import Run, Service, run_until_stopped, service
from benchmarks.work import backfill, command, workplace, write_records

SIZES = "10000 100000 1000000"
FROM_QUEUE_MAX = 200_000
"""So many records are imported from a full queue, then the command is interrupted."""
DISK_BYTES_A_RECORD = 4_000
"""More than an input and two jobs ever took."""
INTERRUPTED = 130
POLL_S = 0.1


def sizes() -> list[int]:
    words = (os.environ.get("SIZES") or SIZES).split()
    if not all(word.isdecimal() and int(word) > 1 for word in words):
        raise SystemExit(f"SIZES={' '.join(words)}: whole numbers above 1 are needed")
    return [int(word) for word in words]


def from_file(source: Path, records: int, directory: Path) -> list[str]:
    """Import a file; return the cells of its row."""
    with TemporaryDirectory(dir=directory) as place, service() as server:
        job = Path(place) / "out"
        with backfill(source, url=server.url, out=job, records=records) as process:
            run = process.wait()
        rate_per_s = _rate_per_s(server)
        used_bytes = sum(path.stat().st_size for path in job.iterdir())
        queue_bytes = sum(path.stat().st_size for path in job.glob("queue.sqlite3*"))
        status = _status(job, Path(place))
    with command("check", source, records=records, directory=directory) as process:
        check = process.wait()
    return [
        f"{records:,}", f"{rate_per_s:,.0f}", f"{run.cpu_us:,.0f}", f"{run.peak_mb:.0f}",
        f"{queue_bytes / records:,.0f}", f"{used_bytes / records:,.0f}", f"{status.seconds:.2f}",
        f"{status.peak_mb:.0f}", f"{check.rate_per_s:,.0f}", f"{check.peak_mb:.0f}",
    ]  # fmt: skip


def from_queue(source: Path, records: int, directory: Path) -> list[str]:
    """Fill a queue and import from it; return the cells of its row."""
    with TemporaryDirectory(dir=directory) as place, service() as server:
        job = Path(place) / "out"
        job.mkdir()
        with command(
            "enqueue", source, "--out", job, records=records, directory=Path(place)
        ) as process:
            put = process.wait()
        queue_bytes = sum(path.stat().st_size for path in job.glob("queue.sqlite3*"))
        status = _status(job, Path(place))
        with backfill(url=server.url, out=job, records=records) as process:
            _wait_until(lambda: not process.is_running or server.seen()["calls"] >= FROM_QUEUE_MAX)
            rate_per_s = _rate_per_s(server)
            if process.is_running:
                process.interrupt()
            run = process.wait((0, INTERRUPTED))
        seen = server.seen()
        first_call_s = seen["first_call_s"] - run.began_s
    return [
        f"{records:,}", f"{put.rate_per_s:,.0f}", f"{put.cpu_us:,.0f}", f"{put.peak_mb:.0f}",
        f"{queue_bytes / records:,.0f}", f"{status.seconds:.2f}", f"{status.peak_mb:.0f}",
        f"{first_call_s:.2f}", f"{rate_per_s:,.0f}",
        f"{run.cpu_s / seen['calls'] * 1e6:,.0f}", f"{run.peak_mb:.0f}",
    ]  # fmt: skip


def _status(job: Path, directory: Path) -> Run:
    with command("status", "--out", job, records=1, directory=directory) as process:
        return process.wait()


def _rate_per_s(server: Service) -> float:
    """Return the calls a second from the first to the last one."""
    seen = server.seen()
    return float((seen["calls"] - 1) / (seen["last_call_s"] - seen["first_call_s"]))


def _wait_until(is_over: Callable[[], bool]) -> None:
    while not is_over():
        time.sleep(POLL_S)


FILE_HEAD = (
    "records", "records/s", "CPU a record, µs", "peak memory, MB", "queue, bytes a record",
    "all files, bytes a record", "`status` afterwards, s", "its memory, MB", "`check`, records/s",
    "its memory, MB",
)  # fmt: skip
QUEUE_HEAD = (
    "queued", "`enqueue`, records/s", "CPU a record, µs", "peak memory, MB",
    "queue, bytes a record", "`status`, s", "its memory, MB", "start to first call, s",
    "records/s from the queue", "CPU a record, µs", "peak memory, MB",
)  # fmt: skip


def section(file_rows: list[list[str]], queue_rows: list[list[str]]) -> list[str]:
    return [
        machine(),
        "",
        "`backfill` of a file with so many records, then `status` of the finished job, and `check` "
        "of the same file:",
        "",
        *table(FILE_HEAD, file_rows),
        "",
        "So many records put into the queue with `enqueue`, then `status`, then `backfill` without "
        f"an input, of which at most {FROM_QUEUE_MAX:,} records are waited for:",
        "",
        *table(QUEUE_HEAD, queue_rows),
    ]


def main() -> int:
    file_rows: list[list[str]] = []
    queue_rows: list[list[str]] = []
    for records in sizes():
        with workplace() as directory:
            if shutil.disk_usage(directory).free < records * DISK_BYTES_A_RECORD:
                raise SystemExit(f"{records:,} records: too little room on the disk of ./out")
            source = write_records(directory / "topics.jsonl", records)
            file_rows.append(from_file(source, records, directory))
            queue_rows.append(from_queue(source, records, directory))
        write_section("growth", section(file_rows, queue_rows))
    return 0


if __name__ == "__main__":
    run_until_stopped(main)
