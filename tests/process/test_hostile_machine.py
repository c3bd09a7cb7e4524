"""Full disks, few resources and a jumping clock: no record is lost."""

import os
import resource
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson
import pytest

from tests.support.full_disk import FullDiskJob
from tests.support.processes import ROOT, Job, Simulator, audit, environment
from tests.support.topics import record, records
from tests.support.waiting import wait_until
from worker.outputs.files import write_whole


def run_limited(job: Job, path: Path, kind: int, limit: int) -> subprocess.CompletedProcess[bytes]:
    """Run the backfill with a limit of the operating system on one resource."""
    return subprocess.run(
        job.command(*job.backfill_words(path)),
        env=environment(),
        cwd=job.directory,
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=limiter(kind, limit),
    )


def limiter(kind: int, limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (limit, limit))


@pytest.mark.parametrize("file_bytes_max", [20_000, 60_000, 200_000, 500_000])
def test_a_full_disk_halts_and_the_same_command_continues_later(
    job: Job, service: Simulator, file_bytes_max: int
) -> None:
    path = job.write(records(2500))
    done = run_limited(job, path, resource.RLIMIT_FSIZE, file_bytes_max)
    assert done.returncode == 3, done.stderr.decode()
    assert b"Nothing is lost; make room" in done.stderr
    assert b"Traceback" not in done.stderr
    assert job.backfill(path).returncode == 0
    assert job.report()["imported"] == 2500
    audit(job, service)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dismissed.jsonl", ("dismiss", "--reason", "invalid")),
        ("dead-letter.jsonl", ("replay", "--reason", "invalid")),
    ],
)
def test_a_full_disk_is_no_traceback_for_those_who_mend_dead_letters(
    tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    job = FullDiskJob(tmp_path, name=name)
    job.run("enqueue", job.write([*records(3), b"{"]))
    done = job.run(*words)
    assert done.returncode == 3
    assert done.stderr == f"topic-import: out/{name}: No space left on device\n".encode()
    job.make_room()
    job.run(*words)
    assert job.status()["agree"]


@pytest.mark.parametrize("name", ["imported.jsonl", "dead-letter.jsonl"])
def test_a_result_file_that_cannot_grow_halts_the_run(
    tmp_path: Path, service: Simulator, name: str
) -> None:
    job = FullDiskJob(tmp_path, service.url, name)
    path = job.write([*records(100), b"{"])
    done = job.backfill(path)
    assert done.returncode == 3
    assert b"No space left on device" in done.stdout
    job.make_room()
    assert job.backfill(path).returncode == 1
    audit(job, service)


def test_few_file_descriptors_limit_the_concurrent_calls(job: Job, service: Simulator) -> None:
    path = job.write(records(300))
    done = run_limited(job, path, resource.RLIMIT_NOFILE, 40)
    assert done.returncode == 0
    assert b"raise ulimit -n" in done.stderr
    audit(job, service)


def test_a_very_long_line_does_not_exhaust_the_memory(job: Job, service: Simulator) -> None:
    path = job.directory / "long.jsonl"
    with path.open("wb") as file:
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + orjson.dumps(record(1)))
    done = run_limited(job, path, resource.RLIMIT_AS, 1 << 30)
    assert done.returncode == 1, done.stderr.decode()
    assert "200000000 bytes, too long" in job.dead()[0]["message"]
    audit(job, service)


def test_unwritable_standard_streams_change_no_result(job: Job, service: Simulator) -> None:
    path = job.write([*records(20), b"{"])
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            job.command(*job.backfill_words(path)),
            env=environment() | {"PYTHONUNBUFFERED": "1"},
            cwd=job.directory,
            stdout=full,
            stderr=full,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    audit(job, service)


def test_a_closed_pipe_or_full_disk_on_stdout_prints_no_traceback(
    offline_job: Job,
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = offline_job.command("explain")
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False, cwd=ROOT)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == b"topic-import: standard output: No space left on device\n"


def has_been_called(service: Simulator, times: int) -> bool:
    calls: int = service.ledger()["calls"]
    return calls >= times


CLOCK_THAT_JUMPS = """
import time
from pathlib import Path
real, by_s = time.time, Path("by_s")
time.time = lambda: real() + (float(by_s.read_text()) if by_s.exists() else 0)
from worker.cli import main
main()
"""


def test_a_wall_clock_that_jumps_an_hour_changes_no_result(job: Job, service: Simulator) -> None:
    path = job.write(records(600))
    words = [*job.backfill_words(path), "--rate", "100"]
    with subprocess.Popen(
        [*job.command()[:1], "-c", CLOCK_THAT_JUMPS, *map(str, words)],
        env=environment(),
        cwd=job.directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        for calls, by_s in ((20, b"3600"), (120, b"-3600")):
            wait_until(partial(has_been_called, service, calls))
            write_whole(job.directory / "by_s", by_s)
        _, logged = running.communicate(timeout=60)
    assert running.returncode == 0, logged
    assert logged.count(b"the wall clock jumped") == 2
    audit(job, service)
    report = job.report()
    assert (report["imported"], report["renewals"]) == (600, 0)
    assert 2 < report["seconds"] < 30
