"""A job is killed again and again, its queue restored from an older copy, and adopted."""

import os
import random
import sqlite3
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.support.processes import Job, Simulator, audit, simulator
from tests.support.topics import records
from tests.support.waiting import wait_until

FAULTS = ("10002=0.02", "reset-after=0.02", "502=0.01", "10004=0.01")
COPIES = 10
RECORDS_A_RUN = 60
REPLAYS_MAX = 10
ROUNDS = int(os.environ.get("ROUNDS", "100"))


def copy_queue(job: Job, to: Path) -> None:
    """Copy a queue that may be in use, as a backup program that knows SQLite does."""
    source = sqlite3.connect(job.out / "queue.sqlite3", timeout=30)
    target = sqlite3.connect(to)
    source.backup(target)
    source.close()
    target.close()


def restore_queue(job: Job, copy: Path) -> None:
    for path in job.out.glob("queue.sqlite3*"):
        path.unlink()
    (job.out / "queue.sqlite3").write_bytes(copy.read_bytes())


def whole_lines(path: Path) -> set[bytes]:
    """Return the lines of a file; a kill may have torn the last one."""
    return {line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")}


def kill_and_copy(job: Job, service: Simulator, chance: random.Random) -> list[Path]:
    """Run a growing job, copied at a random moment of each run and killed at a later one."""
    copies: list[Path] = []
    for number in range(1, COPIES + 1):
        path = job.write(records(number * RECORDS_A_RUN))
        running = job.start(*job.backfill_words(path), HTTP__MAX_IN_FLIGHT="12")
        wait_for_calls(service, running, chance.randint(1, RECORDS_A_RUN))
        copies.append(job.directory / f"copy-{number}.sqlite3")
        copy_queue(job, copies[-1])
        wait_for_calls(service, running, chance.randint(0, RECORDS_A_RUN // 2))
        running.kill()
        running.communicate()
    return copies


def wait_for_calls(service: Simulator, running: subprocess.Popen[str], more: int) -> None:
    """Wait until so many more calls were made, or the run has ended."""
    wanted = service.ledger()["calls"] + more
    wait_until(lambda: service.ledger()["calls"] >= wanted or running.poll() is not None)


def restore_and_adopt(
    job: Job, service: Simulator, chance: random.Random, copies: int
) -> Counter[str]:
    """Let one job be killed, restored from one of its first copies and adopted; audit it; count."""
    restore_queue(job, chance.choice(kill_and_copy(job, service, chance)[:copies]))
    path = job.directory / "topics.jsonl"
    evidence = whole_lines(job.out / "imported.jsonl")
    stopped = job.backfill(path)
    seen = Counter({"stopped": stopped.returncode == 3})
    assert stopped.returncode in {0, 1, 3}, stopped.stderr.decode()
    assert evidence <= whole_lines(job.out / "imported.jsonl"), "evidence was lost"
    while job.backfill(path, "--adopt").returncode == 1:
        # What a fault of the service made a dead letter is tried again.
        seen["replayed"] += 1
        assert seen["replayed"] < REPLAYS_MAX, job.dead()
        job.run("replay")
    assert evidence <= whole_lines(job.out / "imported.jsonl"), "a line was changed or lost"
    audit(job, service)
    assert job.run("status").returncode == 0
    report = job.report()
    assert report["read"] == report["imported"] == COPIES * RECORDS_A_RUN, report
    made = Counter(topic["CustomString"] for topic in service.ledger()["topics"])
    lines = Counter(line["topic_id"] for line in job.imported())
    seen["topics"] = len(made)
    seen["lost"] = COPIES * RECORDS_A_RUN - len(made)
    seen["twice"] = sum(made.values()) - len(made)
    seen["doubled lines"] = sum(lines.values()) - len(lines)
    return seen


def run_rounds(directory: Path, rounds: int, seed: int, copies: int = COPIES) -> Counter[str]:
    chance, seen = random.Random(seed), Counter[str]()
    options = [word for fault in FAULTS for word in ("--fault", fault)]
    for number in range(rounds):
        with simulator("--quota", "0", "--latency", "0.06", *options) as service:
            job = Job(directory / str(number), service.url)
            job.directory.mkdir()
            seen += restore_and_adopt(job, service, chance, copies)
    return seen


@pytest.mark.timeout(300)
def test_a_restored_queue_after_kills_loses_and_doubles_nothing(tmp_path: Path) -> None:
    seen = run_rounds(tmp_path, 1, seed=4, copies=COPIES // 2)
    assert not seen["lost"] + seen["twice"] + seen["doubled lines"], seen
    assert seen["stopped"], "a copy from the first half of the runs cannot know everything"


@pytest.mark.torture
@pytest.mark.timeout(7200)
def test_a_hundred_restored_queues_lose_and_double_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", str(random.randrange(10**6))))
    seen = run_rounds(tmp_path, ROUNDS, seed)
    print(f"\nseed {seed}: {ROUNDS} rounds of {COPIES} kills: {dict(seen)}")  # noqa: T201
    assert not seen["lost"] + seen["twice"] + seen["doubled lines"], seen
