"""Kills the real command with SIGKILL in a loop, with faults, and audits the results."""

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.processes import Job, Simulator, audit, simulator
from tests.support.topics import records

FAULTS = ("10002=0.02", "80005=0.01", "reset-after=0.02", "reset-before=0.01", "502=0.01",
          "truncated=0.01", "60007=0.01")  # fmt: skip
KILLS = 12
RECORDS_A_RUN = 150
TORTURE_KILLS = int(os.environ.get("KILLS", "250"))


def torture(job: Job, service: Simulator, kills: int, seed: int) -> Counter[str]:
    """Kill the backfill at random moments, let the last run finish, and audit the results.

    Returns the numbers of kills, records, lost and duplicate topics, and duplicate lines.
    The input grows with every run, so that no run is without work.
    """
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    count = RECORDS_A_RUN
    path = job.write(records(count))
    while seen["kills"] < kills:
        count += RECORDS_A_RUN
        path = job.write(records(count))
        running = job.start(*job.backfill_words(path), HTTP__MAX_IN_FLIGHT="12")
        time.sleep(chance.uniform(0.25, 1.1))
        running.kill()
        running.communicate()
        assert running.returncode in {-9, 0}, running.returncode
        seen["kills"] += running.returncode == -9
        if (job.out / "queue.sqlite3").exists() and chance.random() < 0.2:
            status = job.status()
            assert status["read"] == sum(
                status[name] for name in ("queued", "imported", "dead", "duplicate")
            )
    done = job.backfill(path, HTTP__MAX_IN_FLIGHT="1000")
    assert done.returncode == 0, done.stderr.decode()
    audit(job, service)
    assert job.run("status").returncode == 0
    made = Counter(topic["CustomString"] for topic in service.ledger()["topics"])
    sources = Counter(line["source"] for line in job.imported())
    return seen + Counter(
        {
            "records": count,
            "lost": count - len(made),
            "twice": sum(n - 1 for n in made.values()),
            "doubled lines": sum(n - 1 for n in sources.values()),
            "own": sum(line["already"] == "own" for line in job.imported()),
        }
    )


def run_torture(directory: Path, kills: int, seed: int) -> Counter[str]:
    options = [word for fault in FAULTS for word in ("--fault", fault)]
    with simulator("--quota", "0", "--latency", "0.03", *options) as service:
        return torture(Job(directory, service.url), service, kills, seed)


def test_a_dozen_kills_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    seen = run_torture(tmp_path, KILLS, seed=KILLS)
    assert not seen["lost"] + seen["twice"] + seen["doubled lines"], seen
    assert seen["own"], "no call was cut off: the kills came at harmless moments"


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_hundreds_of_kills_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", str(random.randrange(10**6))))
    started_s = time.monotonic()
    seen = run_torture(tmp_path, TORTURE_KILLS, seed=seed)
    print(  # noqa: T201
        f"\nseed {seed}: {seen['kills']} kills in {time.monotonic() - started_s:.0f} s, "
        f"{seen['records']:,} records, {seen['lost']} lost, {seen['twice']} twice, 0 torn lines, "
        f"{seen['doubled lines']} doubled lines; {seen['own']:,} calls whose reply never arrived"
    )
    assert not seen["lost"] + seen["twice"] + seen["doubled lines"], seen
