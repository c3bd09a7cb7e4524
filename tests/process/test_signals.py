"""Signals during a backfill: calls drain, and the same command continues."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import FAST_RETRY, Job, Simulator, audit, environment, simulator
from tests.support.topics import records


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_drains_calls_and_the_same_command_continues(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with simulator("--quota", "0", "--latency", "0.2") as service:
        job = Job(tmp_path, service.url)
        path = job.write(records(400))
        words = job.backfill_words(path)
        running = job.start(*words, HTTP__MAX_IN_FLIGHT="20")
        wait_for_calls(service, 40)
        running.send_signal(number)
        output, _ = running.communicate(timeout=30)
        assert running.returncode == code
        assert "still queued; continue with: topic-import backfill" in output
        report = job.report()
        assert 0 < report["imported"] < 400
        assert report["imported"] == service.ledger()["created"], "what was in flight was settled"
        assert job.backfill(path).returncode == 0
        assert [line["already"] for line in job.imported()].count("own") == 0
        audit(job, service)


def test_a_second_signal_ends_the_run_without_losing_records(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--latency", "0.5") as service:
        job = Job(tmp_path, service.url)
        path = job.write(records(40))
        running = job.start(*job.backfill_words(path))
        wait_for_calls(service, 1)
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
        assert running.returncode in {130, 143}
        assert job.backfill(path).returncode == 0
        audit(job, service)


def wait_for_calls(service: Simulator, count: int) -> None:
    while service.ledger()["calls"] < count:
        pass


def test_an_unreachable_host_is_logged_and_creates_no_dead_letters(
    offline_job: Job,
) -> None:
    path = offline_job.write(records(20))
    running = offline_job.start(*offline_job.backfill_words(path), **FAST_RETRY)
    assert running.stderr is not None
    for line in running.stderr:
        if "cannot connect" in line:
            break
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=30)
    assert running.returncode == 143
    report = offline_job.report()
    assert (report["queued"], report["dead"]) == (20, 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_at_the_first_log_line_leaves_a_consistent_queue(
    job: Job, service: Simulator, number: signal.Signals, code: int
) -> None:
    path = job.write(records(300))
    for _ in range(4):
        running = job.start(*job.backfill_words(path), RATE__CALLS_PER_SECOND="0")
        assert running.stderr is not None
        first = running.stderr.readline()
        assert "no quota is kept" in first
        running.send_signal(number)
        _, logged = running.communicate(timeout=30)
        assert running.returncode == code, logged
        assert "Traceback" not in logged
    assert job.backfill(path).returncode == 0
    audit(job, service)


def test_a_signal_that_nobody_drains_at_ends_at_once(offline_job: Job) -> None:
    pipe = offline_job.directory / "pipe.jsonl"
    os.mkfifo(pipe)
    running = offline_job.start("check", pipe)
    with pipe.open("wb"):  # returns once the command reads the other end
        running.send_signal(signal.SIGTERM)
        assert running.communicate(timeout=30) == ("", "")
    assert running.returncode == 143


def test_a_hangup_that_is_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--latency", "0.2") as service:
        job = Job(tmp_path, service.url)
        path = job.write(records(200))
        running = subprocess.Popen(
            ["nohup", *job.command(*job.backfill_words(path))],
            env=environment(HTTP__MAX_IN_FLIGHT="20"),
            cwd=job.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_for_calls(service, 40)
        running.send_signal(signal.SIGHUP)
        _, logged = running.communicate(timeout=60)
        assert running.returncode == 0
        assert b"stopping" not in logged
        audit(job, service)
