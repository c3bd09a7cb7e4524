"""Outages, halts and warnings as the user sees them."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.processes import Job, Simulator, simulator
from tests.support.topics import records
from tests.support.waiting import free_port


def wait_for_created(service: Simulator, count: int) -> list[dict[str, Any]]:
    while True:
        topics: list[dict[str, Any]] = service.ledger()["topics"]
        if len(topics) >= count:
            return topics
        time.sleep(0.02)


def test_an_outage_loses_no_record_and_costs_few_calls(tmp_path: Path) -> None:
    port = free_port()
    job = Job(tmp_path, f"http://127.0.0.1:{port}")
    words = job.backfill_words(job.write(records(1000)), rate=None)
    options = ("--port", str(port), "--latency", "0.02")
    with simulator(*options) as service:
        running = job.start(*words, RETRY__MAX_ATTEMPTS="2")
        created = wait_for_created(service, 100)
    # Topics made after our last request for the ledger are missing from `created`.
    time.sleep(2.0)
    with simulator(*options) as service:
        output, logged = running.communicate(timeout=60)
        created += service.ledger()["topics"]
    assert running.returncode == 0, logged
    assert "read 1,000 = queued 0 + imported 1,000 + dead 0 + duplicate 0" in output
    assert "outage: the service fails for all" in logged
    assert "the service is back" in logged
    made = Counter(topic["TopicId"] for topic in created)
    imported = [line["topic_id"] for line in job.imported()]
    assert made.keys() <= set(imported)
    assert len(imported) == len(set(imported)) == 1000
    report = job.report()
    assert report["retries"] <= 10 + 20 + 10, "in flight, found out, and a probe now and then"


def test_80005_for_all_names_both_of_its_meanings(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--fault", "80005=1") as service:
        job = Job(tmp_path, service.url)
        done = job.backfill(job.write(records(100)), RETRY__PATIENCE="1")
    assert done.returncode == 3
    outage = next(line for line in done.stderr.splitlines() if b"outage: the service" in line)
    halted = next(line for line in done.stdout.splitlines() if b"HALTED (outage)" in line)
    for line in (outage, halted):
        assert b"the content check timed out" in line
        assert b"the service may be deactivated: edition expired or account in arrears" in line
    assert job.report()["queued"] == 100


def test_a_wrong_key_halts_at_once_and_prints_the_remedy(tmp_path: Path) -> None:
    with simulator("--latency", "0.1") as service:
        job = Job(tmp_path, service.url)
        words = job.backfill_words(job.write(records(500)), rate=None)
        done = job.run(*words, APP__SECRET_KEY="f" * 64)
        assert done.returncode == 3
        output = done.stdout.decode()
        assert "HALTED (70009)" in output
        assert "the key is wrong, or of another SDKAppID" in output
        assert "500 records are still queued; continue with: topic-import backfill" in output
        assert job.report()["halted"]["code"] == 70009
        assert service.ledger()["calls"] <= 100, "what was in flight, no more"
        assert job.run(*words).returncode == 0, "the same command with the right key"
        assert b"f" * 64 not in done.stdout + done.stderr


@pytest.mark.parametrize("count", [200, 201])
def test_more_than_200_topics_in_one_community_cause_a_warning(job: Job, count: int) -> None:
    rows = [{"GroupId": "@TGS#_full", "TopicName": f"topic {n}"} for n in range(count)]
    path = job.write([*rows, {"GroupId": "@TGS#_other", "TopicName": "topic"}])
    warning = b"more than 200 topics are meant for one community"
    checked = job.run("check", path)
    assert checked.returncode == 0, "a warning, not a problem"
    assert (warning in checked.stdout) == (count > 200)
    listed = orjson.loads(job.run("check", path, "--json").stdout)
    expected = {"limit": 200, "communities": 1, "topics": {"@TGS#_full": 201}}
    assert listed.get("crowded_communities") == (expected if count > 200 else None)
    done = job.backfill(path)
    assert done.returncode == 0
    assert (warning in done.stdout) == (count > 200)
    assert job.report().get("crowded_communities") == (expected if count > 200 else None)
