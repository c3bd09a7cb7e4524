"""`make bench-paced`: the CPU of a backfill at 200 calls a second, answered after 80 ms.

RECORDS of the environment says how many are imported. Writes a section of `docs/performance.md`.
"""

import math

from benchmarks.page import machine, table, write_section
from benchmarks.processes import Run, run_until_stopped, service
from benchmarks.work import backfill, number, workplace, write_records

RECORDS, RATE_PER_S, LATENCY_S = 4_000, 200, 0.08


def measure(records: int) -> tuple[Run, float]:
    """Return a run with the quota, and the calls a second that the service saw."""
    with service(LATENCY_S) as server, workplace() as directory:
        source = write_records(directory / "topics.jsonl", records)
        job = directory / "out"
        with backfill(
            source, url=server.url, out=job, records=records, rate_per_s=RATE_PER_S
        ) as process:
            run = process.wait()
        seen = server.seen()
    called_s = seen["last_call_s"] - seen["first_call_s"]
    return run, (seen["calls"] - 1) / called_s if called_s else math.nan


def main() -> int:
    records = number("RECORDS", RECORDS)
    one, _ = measure(1)
    run, rate_per_s = measure(records)
    started_us = (run.cpu_s - one.cpu_s) / records * 1e6
    row = [
        f"{records:,}",
        f"{rate_per_s:.1f}/s",
        f"{run.cpu_s / run.seconds:.1%}",
        f"{(run.cpu_s - one.cpu_s) / (run.seconds - one.seconds):.1%}",
        f"{run.cpu_us:,.0f} µs",
        f"{started_us:,.0f} µs",
        f"{run.peak_mb:.0f}",
    ]
    head = [
        "records", "calls", "CPU, of one core", "without start-up", "CPU a record",
        "without start-up", "peak memory, MB",
    ]  # fmt: skip
    note = f"Start-up and end are measured as the backfill of one record: {one.cpu_s:.2f} s of CPU."
    write_section("pace", [machine(), note, "", *table(head, [row])])
    return 0


if __name__ == "__main__":
    run_until_stopped(main)
