"""Every I/O step of the embedded queue and of its files fails once, one after the other."""

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.support.failing_disk import Failed, FailingDisk
from tests.support.processes import Job, Simulator, simulator
from tests.support.topics import record

ERRORS = (errno.ENOSPC, errno.EIO)
EVERY = int(os.environ.get("EVERY", "1"))
SAMPLES = 6
TOPICS = 6


def write_records(job: Job, step: int) -> Path:
    """Write six records that no other step has, and one that is invalid."""
    return job.write([*(record(step * 10 + n) for n in range(TOPICS)), b"{"])


def run_with_one_failure(disk: FailingDisk, job: Job, step: int) -> Failed:
    """Run a job in which one step fails, then run it again; audit what both leave behind."""
    path, error = write_records(job, step), ERRORS[step % len(ERRORS)]
    failed = disk.run(job, *job.backfill_words(path), fail_at=step, error=error)
    where = f"step {step}, {failed.step}, exit {failed.returncode}: {failed.stderr}"
    assert "Traceback" not in failed.stderr, where
    assert failed.returncode in {1, 2, 3}, where
    if failed.returncode != 1:
        assert os.strerror(error) in failed.stderr or "the queue" in failed.stderr, where
    again = job.backfill(path)
    assert again.returncode == 1, f"{where}\nthe next run: {again.stderr.decode()}"
    report = job.report()
    assert (report["read"], report["imported"], report["dead"]) == (TOPICS + 1, TOPICS, 1), where
    assert job.run("status").returncode == 0, where
    return failed


def fail_steps(
    directory: Path, service: Simulator, steps: range, disk: FailingDisk
) -> Counter[str]:
    """Let one step after the other fail, each in a job of its own; return what failed how often."""
    seen: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for step in steps:
        job = Job(directory / str(step), service.url)
        job.directory.mkdir()
        failed = run_with_one_failure(disk, job, step)
        seen.update([failed.step.partition(" ")[0], f"exit {failed.returncode}"])
        lines.update(line["topic_id"] for line in job.imported())
    assert max(lines.values()) == 1
    made = Counter(topic["TopicId"] for topic in service.ledger()["topics"])
    assert made == lines, "each topic has one line"
    return seen


def count_steps(disk: FailingDisk, directory: Path) -> int:
    with simulator("--quota", "0") as service:
        job = Job(directory, service.url)
        whole = disk.run(job, *job.backfill_words(write_records(job, 0)))
        assert whole.returncode == 1, whole.stderr
        return whole.steps


@pytest.mark.timeout(300)
def test_io_steps_that_fail_once_lose_nothing(tmp_path: Path, service: Simulator) -> None:
    disk = FailingDisk(tmp_path)
    steps = count_steps(disk, tmp_path)
    fail_steps(tmp_path, service, range(1, steps + 1, steps // SAMPLES), disk)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_each_io_step_that_fails_once_loses_nothing(tmp_path: Path, service: Simulator) -> None:
    disk = FailingDisk(tmp_path)
    steps = count_steps(disk, tmp_path)
    seen = fail_steps(tmp_path, service, range(1, steps + 1, EVERY), disk)
    print(f"\n{steps} steps, failed one after the other: {dict(sorted(seen.items()))}")  # noqa: T201
