"""Kills the real command with SIGKILL in a loop, with faults, and audits the results."""

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Job, Simulator, audit, simulator
from tests.support.topics import group, records

FAULTS = ("10002=0.02", "80005=0.01", "reset-after=0.02", "reset-before=0.01", "502=0.01",
          "truncated=0.01", "60007=0.01")  # fmt: skip
KILLS = 12
KILLS_OF_GIVEN = 5
RECORDS_A_RUN = 150
RUNS_A_KILL = 1.5
"""Some runs end before their kill: topics of others are made for so many runs."""
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


def given(number: int, **changes: Any) -> dict[str, Any]:
    """Return a record with a TopicId of its own."""
    group_id = group(number % 20)
    return {
        "GroupId": group_id,
        "TopicId": f"{group_id}@TOPIC#_given-{number}",
        "TopicName": f"topic {number}",
        "CreateTime": 1_500_000_000 + number,
        "CustomString": f"ours-{number}",
        **changes,
    }


def is_of_others(number: int) -> bool:
    return number % 3 == 1


def by_others(number: int) -> dict[str, Any]:
    """Return what others made under the TopicId of one of our records: hardly different."""
    changes = {"CreateTime": 1_400_000_000} | ({"TopicName": "other"} if number % 2 else {})
    return given(number, CustomString="others", **changes)


def torture_given(job: Job, others: Job, service: Simulator, kills: int, seed: int) -> Counter[str]:
    """Kill imports of given TopicIds, a third of which others made before; audit the results."""
    chance = random.Random(seed)
    count_max = int(RECORDS_A_RUN * (kills * RUNS_A_KILL + 2))
    made_before = [by_others(number) for number in range(count_max) if is_of_others(number)]
    assert others.backfill(others.write(made_before)).returncode == 0
    seen: Counter[str] = Counter()
    count = RECORDS_A_RUN
    while seen["kills"] < kills and count + RECORDS_A_RUN <= count_max:
        count += RECORDS_A_RUN
        path = job.write(map(given, range(count)))
        running = job.start(*job.backfill_words(path), HTTP__MAX_IN_FLIGHT="12")
        time.sleep(chance.uniform(0.25, 1.1))
        running.kill()
        running.communicate()
        assert running.returncode in {-9, 0, 1}, running.returncode
        seen["kills"] += running.returncode == -9
    done = job.backfill(job.write(map(given, range(count))), HTTP__MAX_IN_FLIGHT="1000")
    assert done.returncode == 1, done.stderr.decode()
    assert job.run("status").returncode == 0
    return seen + audit_given(job, service, count)


def audit_given(job: Job, service: Simulator, count: int) -> Counter[str]:
    """Compare result lines with the ledger. Returns what was counted, faults among it."""
    imported, dead, report = job.imported(), job.dead(), job.report()
    ours = {number for number in range(count) if not is_of_others(number)}
    number_of = {given(number)["TopicId"]: number for number in range(count)}
    made = [number_of[topic["TopicId"]] for topic in service.ledger()["topics"]
            if topic["CustomString"] != "others"]  # fmt: skip
    lines = Counter(line["topic_id"] for line in [*imported, *dead])
    assert report["read"] == count == len(imported) + len(dead)
    assert {line["reason"] for line in dead} == {"conflict"}
    reported = [number_of[line["topic_id"]] for line in imported]
    return Counter(
        {
            "records": count,
            "of others": count - len(ours),
            "of others as ours": sum(is_of_others(number) for number in reported),
            "lost": len(ours - set(made)),
            "not reported": len(ours - set(reported)),
            "twice": len(made) - len(set(made)),
            "without one line": sum(lines[topic_id] != 1 for topic_id in number_of),
            "own": sum(line["already"] == "own" for line in imported),
            "before": sum(line["already"] == "before" for line in imported),
            "own?": sum(line["already"] == "own?" for line in imported),
        }
    )


WRONG = ("of others as ours", "lost", "not reported", "twice", "without one line", "before", "own?")


def run_torture_given(directory: Path, kills: int, seed: int) -> Counter[str]:
    options = [word for fault in FAULTS for word in ("--fault", fault)]
    (directory / "others").mkdir()
    with simulator("--quota", "0", "--latency", "0.03", *options) as service:
        others = Job(directory / "others", service.url)
        return torture_given(Job(directory, service.url), others, service, kills, seed)


def test_no_kill_makes_the_topics_of_others_ours(tmp_path: Path) -> None:
    seen = run_torture_given(tmp_path, KILLS_OF_GIVEN, seed=KILLS_OF_GIVEN)
    assert not any(seen[name] for name in WRONG), seen
    assert seen["own"], "no call was cut off: the kills came at harmless moments"


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_hundreds_of_kills_make_no_topic_of_others_ours(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", str(random.randrange(10**6))))
    started_s = time.monotonic()
    seen = run_torture_given(tmp_path, TORTURE_KILLS, seed=seed)
    print(  # noqa: T201
        f"\nseed {seed}: {seen['kills']} kills in {time.monotonic() - started_s:.0f} s, "
        f"{seen['records']:,} records, {seen['of others']:,} of them made by others before; "
        + ", ".join(f"{seen[name]} {name}" for name in WRONG)
        + f"; {seen['own']:,} calls whose reply never arrived"
    )
    assert not any(seen[name] for name in WRONG), seen
