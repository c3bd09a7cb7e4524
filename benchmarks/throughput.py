"""`make bench`: the speed of the program against what else people would import with.

Whole processes, from start to end, one after the other in turns, so that all meet the same load of
the machine; ratios are taken within a turn. Our commands are used as users do. RECORDS and ROUNDS
of the environment choose how much is measured.

Writes a section of `docs/performance.md`, and the picture `docs/performance.svg`.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.page import PAGE, machine, spread, table, write_section
from benchmarks.picture import Panel, bars
from benchmarks.processes import Process, Run, redis_server, run_until_stopped, service
from benchmarks.work import IN_FLIGHT, backfill, calling, command, number, workplace, write_records

RECORDS, ROUNDS = 60_000, 5
TASKS_SHARE = 2
"""The task queue gets this part of the records, because it takes the longest by far."""
CHECKED_SHARE = 3
"""`check` gets this many times the records, because parsing alone is over at once."""
PICTURE = PAGE.with_suffix(".svg")

BARE, SCRIPT, TASKS = "bare loop", "afternoon script", "task queue: work"
TASKS_PUT, QUEUED_PUT = "task queue: put", "`enqueue` into Redis"
FILE, QUEUED = "`backfill` of a file", "`serve` from Redis"
ENQUEUE, CHECK, LOADS = "`enqueue` into SQLite", "`check`", "bare `orjson.loads`"
HELP, ONE = "`topic-import --help`", "`backfill` of 1 record"

GUARANTEES = {
    BARE: "nothing: replies are not looked at, a second run imports everything twice",
    SCRIPT: "8 attempts a record; failed records in a file; after a crash all anew, and twice; "
    "memory grows with the input; its limiter lets bursts through ([quota](quota.md))",
    TASKS_PUT: "tasks in Redis; run again after a crash, it puts all of them twice",
    TASKS: "tasks of a killed worker come again after ten minutes, and are done twice; a task that "
    "fails is gone; no quota",
    FILE: "continues after a kill at any moment; nothing lost, nothing twice; retries, outages "
    "waited for; with a quota: every rolling second; dead letters with reasons; a result line for "
    "each topic; memory does not grow",
    QUEUED_PUT: "continues after a kill; nothing twice; dead letters for invalid records",
    QUEUED: "all that `backfill` does; several machines share the queue and the quota",
}


@dataclass(frozen=True, slots=True)
class Site:
    """The inputs of all contenders, and a directory for their files."""

    directory: Path
    records: int

    def records_file(self, count: int) -> Path:
        path = self.directory / f"{count}.jsonl"
        return path if path.exists() else write_records(path, count)


Measured = Mapping[str, Run]
"""The processes of one contender in one turn, by the name of their row."""
Contender = Callable[[Site], Measured]


def bare_loop(site: Site) -> Measured:
    return {BARE: _script("bare_loop", site)}


def afternoon_script(site: Site) -> Measured:
    return {SCRIPT: _script("afternoon_script", site)}


def _script(name: str, site: Site) -> Run:
    with service() as server:
        process = _peer(name, site.records_file(site.records), server.url, records=site.records)
        with process:
            run = process.wait()
        _must_equal(server.seen()["calls"], site.records, name)
        return run


def _peer(name: str, *words: object, records: int) -> Process:
    return Process([sys.executable, "-m", f"benchmarks.peers.{name}", *words], records=records)


def _must_equal(calls: int, records: int, name: str) -> None:
    if calls != records:
        raise SystemExit(f"{name}: {calls:,} calls for {records:,} records")


def task_queue(site: Site) -> Measured:
    count = site.records // TASKS_SHARE
    with service() as server, TemporaryDirectory(dir=site.directory) as data:
        with redis_server(Path(data)) as redis:
            words = (site.records_file(count), count, redis.url, server.url)
            with _peer("task_queue", "put", *words, records=count) as process:
                put = process.wait()
            with _peer("task_queue", "work", *words, records=count) as process:
                work = process.wait()
        _must_equal(server.seen()["calls"], count, TASKS)
        return {TASKS_PUT: put, TASKS: work}


def ours_from_file(site: Site) -> Measured:
    return {FILE: _backfill(site, site.records, name=FILE)}


def _backfill(site: Site, count: int, *, name: str) -> Run:
    source = site.records_file(count)
    with service() as server, TemporaryDirectory(dir=site.directory) as job:
        process = backfill(source, url=server.url, out=Path(job) / "out", records=count)
        with process:
            run = process.wait()
        _must_equal(server.seen()["calls"], count, name)
        return run


def ours_from_redis(site: Site) -> Measured:
    source = site.records_file(site.records)
    with service() as server, TemporaryDirectory(dir=site.directory) as job:
        with redis_server(Path(job)) as redis:
            queue = f"{redis.url}?stream=topics&group=importers"
            settings = calling(server.url) | {"TOPIC_IMPORT_QUEUE__URL": queue}

            def run(*words: object) -> Run:
                options = ("--out", Path(job) / "out")
                with command(
                    *words, *options, records=site.records, directory=Path(job), **settings
                ) as process:
                    return process.wait()

            measured = {QUEUED_PUT: run("enqueue", source), QUEUED: run("serve", "--until-empty")}
        _must_equal(server.seen()["calls"], site.records, QUEUED)
        return measured


def ours_enqueue(site: Site) -> Measured:
    source = site.records_file(site.records)
    with (
        TemporaryDirectory(dir=site.directory) as job,
        command(
            "enqueue", source, "--out", job, records=site.records, directory=Path(job)
        ) as process,
    ):
        return {ENQUEUE: process.wait()}


def checking(site: Site) -> Measured:
    count = site.records * CHECKED_SHARE
    source = site.records_file(count)
    with _peer("loads", source, records=count) as process:
        loads = process.wait()
    with command("check", source, records=count, directory=site.directory) as process:
        return {LOADS: loads, CHECK: process.wait()}


def starting(site: Site) -> Measured:
    with Process([sys.executable, "-m", "worker", "--help"], directory=site.directory) as process:
        helping = process.wait()
    return {HELP: helping, ONE: _backfill(site, 1, name=ONE)}


CONTENDERS: Sequence[Contender] = (
    bare_loop, ours_from_file, ours_from_redis, afternoon_script, task_queue, ours_enqueue,
    checking, starting,
)  # fmt: skip


def measure(site: Site, rounds: int) -> dict[str, list[Run]]:
    """Return the runs of each row, one for each turn."""
    runs: dict[str, list[Run]] = {}
    for turn in range(1, rounds + 1):
        for contender in CONTENDERS:
            for name, run in contender(site).items():
                runs.setdefault(name, []).append(run)
                print(
                    f"turn {turn} of {rounds}: {name.replace('`', '')}: {run.rate_per_s:,.0f}/s, "
                    f"{run.cpu_us:,.0f} us CPU a record, {run.peak_mb:.0f} MB",
                    flush=True,
                )
    return runs


def ratios(runs: Mapping[str, list[Run]], ours: str, peer: str, figure: str) -> list[float]:
    """Return our figure divided by the peer's, one for each turn."""
    pairs = zip(runs[ours], runs[peer], strict=True)
    return [getattr(one, figure) / getattr(other, figure) for one, other in pairs]


def _job_rows(runs: Mapping[str, list[Run]]) -> list[list[str]]:
    return [
        [
            name,
            spread([run.rate_per_s for run in runs[name]], ",.0f"),
            spread([run.cpu_us for run in runs[name]], ",.0f"),
            f"{statistics.median(run.peak_mb for run in runs[name]):.0f}",
            f"{statistics.median(ratios(runs, name, BARE, 'rate_per_s')):.2f}",
            f"{statistics.median(ratios(runs, name, BARE, 'cpu_us')):.2f}",
            guarantees,
        ]
        for name, guarantees in GUARANTEES.items()
    ]


RATIOS = (
    ("`backfill`, records/s against the bare loop", FILE, BARE, "rate_per_s"),
    ("`backfill`, CPU a record against the bare loop", FILE, BARE, "cpu_us"),
    ("`backfill`, records/s against the afternoon script", FILE, SCRIPT, "rate_per_s"),
    ("`backfill`, records/s against the task queue, its putting left out", FILE, TASKS,
     "rate_per_s"),
    ("`serve` from Redis, records/s against the bare loop", QUEUED, BARE, "rate_per_s"),
    ("`serve` from Redis, CPU a record against the bare loop", QUEUED, BARE, "cpu_us"),
    ("`check`, records/s against `orjson.loads` of each line", CHECK, LOADS, "rate_per_s"),
)  # fmt: skip


def _ratio_rows(runs: Mapping[str, list[Run]]) -> list[list[str]]:
    return [
        [title, spread(ratios(runs, ours, peer, figure), ".3g")]
        for title, ours, peer, figure in RATIOS
    ]


def _other_rows(runs: Mapping[str, list[Run]]) -> list[list[str]]:
    rows = [
        [
            name,
            f"{runs[name][0].records:,}",
            spread([run.rate_per_s for run in runs[name]], ",.0f", "/s"),
            spread([run.cpu_us for run in runs[name]], ",.1f", " µs a record"),
            # Parsing needs less than the benchmark itself, whose figure this would be.
            "-" if name == LOADS else f"{statistics.median(run.peak_mb for run in runs[name]):.0f}",
        ]
        for name in (ENQUEUE, CHECK, LOADS)
    ]
    return rows + [
        [
            name,
            "-",
            spread([run.seconds for run in runs[name]], ".2f", " s"),
            spread([run.cpu_s for run in runs[name]], ".2f", " s"),
            f"{statistics.median(run.peak_mb for run in runs[name]):.0f}",
        ]
        for name in (HELP, ONE)
    ]


def section(runs: Mapping[str, list[Run]], records: int, rounds: int) -> list[str]:
    return [
        machine(),
        f"{records:,} records, {rounds} turns; medians, and in parentheses the least and the most.",
        "",
        f"![records a second and CPU a record]({PICTURE.name})",
        "",
        *table(
            ["importing with", "records/s", "CPU a record, µs", "peak memory, MB",
             "rate / bare loop", "CPU / bare loop", "what it guarantees"],
            _job_rows(runs),
        ),
        "",
        f"The task queue had {records // TASKS_SHARE:,} records.",
        "",
        *table(["ratio", "median of the turns"], _ratio_rows(runs)),
        "",
        *table(["command", "records", "speed or duration", "CPU", "peak memory, MB"],
               _other_rows(runs)),
    ]  # fmt: skip


def picture(runs: Mapping[str, list[Run]]) -> str:
    names = [BARE, FILE, QUEUED, SCRIPT, TASKS]

    def medians(figure: str) -> list[float]:
        return [statistics.median(getattr(run, figure) for run in runs[name]) for name in names]

    return bars(
        [name.replace("`", "") for name in names],
        [name in {FILE, QUEUED} for name in names],
        [
            Panel("records a second", medians("rate_per_s")),
            Panel("CPU a record, µs", medians("cpu_us")),
            Panel("peak memory, MB", medians("peak_mb")),
        ],
    )


def main() -> int:
    records, rounds = number("RECORDS", RECORDS), number("ROUNDS", ROUNDS)
    began_s = time.monotonic()
    print(f"{records:,} records, {rounds} turns, {IN_FLIGHT} calls in flight", flush=True)
    with workplace() as directory:
        runs = measure(Site(directory, records), rounds)
    PICTURE.write_text(picture(runs), encoding="utf-8")
    write_section("speed", section(runs, records, rounds))
    print(f"{time.monotonic() - began_s:.0f} s in all")
    return 0


if __name__ == "__main__":
    run_until_stopped(main)
