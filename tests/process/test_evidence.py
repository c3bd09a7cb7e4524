"""Queues that were lost, restored or exchanged beside result files that know more."""

import os
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.processes import PATIENCE_S, Job, Simulator, audit, simulator
from tests.support.topics import record, records
from tests.support.waiting import wait_until


def queue_files(job: Job) -> list[Path]:
    return list(job.out.glob("queue.sqlite3*"))


def lose_queue(job: Job) -> None:
    for path in queue_files(job):
        path.unlink()


def copy_queue(job: Job, to: Path) -> None:
    """Copy a queue as a backup program would, which knows how to copy SQLite."""
    with sqlite3.connect(job.out / "queue.sqlite3") as source, sqlite3.connect(to) as target:
        source.backup(target)
    source.close()
    target.close()


def restore_queue(job: Job, copy: Path) -> None:
    lose_queue(job)
    shutil.copy(copy, job.out / "queue.sqlite3")


def content(directory: Path) -> dict[str, bytes]:
    """Return what the files of a job hold, without the lock and the queue's own scratch files."""
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.name != "queue.lock" and not path.name.endswith(("-wal", "-shm"))
    }


def set_aside(job: Job, why: str) -> list[Path]:
    return list(job.out.glob(f"*.{why}-*"))


@pytest.fixture
def finished(job: Job) -> Job:
    """Return a job that imported 60 topics of `topics.jsonl`."""
    assert job.backfill(job.write(records(60))).returncode == 0
    return job


def test_a_lost_queue_stops_the_run_and_changes_nothing(finished: Job) -> None:
    lose_queue(finished)
    before = content(finished.out)
    done = finished.backfill("topics.jsonl")
    assert done.returncode == 3
    logged = done.stderr.decode()
    assert "imported.jsonl holds 60 topics that exist" in logged
    assert f"for example {finished.imported()[0]['topic_id']}" in logged
    assert "--adopt" in logged
    assert "Traceback" not in logged
    assert content(finished.out) == before
    shown = finished.run("status")
    assert shown.returncode == 1
    assert b"60 topics that exist" in shown.stdout
    assert finished.status()["files"]["imported.jsonl"] == "knows-more"
    assert content(finished.out) == before


def test_adopted_topics_are_read_again_and_counted_once(finished: Job, service: Simulator) -> None:
    path, lines = finished.directory / "topics.jsonl", content(finished.out)["imported.jsonl"]
    lose_queue(finished)
    for _ in range(2):
        done = finished.backfill(path, "--adopt")
        assert done.returncode == 0, done.stderr.decode()
        assert b"read 60 = queued 0 + imported 60 + dead 0 + duplicate 0" in done.stdout
    assert content(finished.out)["imported.jsonl"] == lines
    assert service.ledger()["calls"] == 60
    assert finished.run("status").returncode == 0
    audit(finished, service)


def test_adopting_needs_no_input(finished: Job, service: Simulator) -> None:
    lose_queue(finished)
    assert finished.backfill().returncode == 3
    assert finished.backfill("--adopt").returncode == 0
    assert finished.report()["imported"] == 60
    audit(finished, service)


def test_a_restored_queue_takes_over_what_the_file_knows(
    job: Job, service: Simulator, tmp_path: Path
) -> None:
    """Queued, dead and unknown records of the copy become the imported ones that they are."""
    job.backfill(job.write(records(20)))
    wrong = [record(n, GroupId="wrong") if n == 21 else record(n) for n in range(30)]
    assert job.run("enqueue", job.write(wrong)).returncode == 1
    copy_queue(job, tmp_path / "copy.sqlite3")
    lines = job.write(records(40))
    assert job.backfill(lines).returncode == 0
    imported = content(job.out)["imported.jsonl"]
    restore_queue(job, tmp_path / "copy.sqlite3")
    assert job.backfill(lines).returncode == 3
    assert content(job.out)["imported.jsonl"] == imported
    done = job.backfill(lines, "--adopt")
    assert done.returncode == 0, done.stderr.decode()
    assert job.report()["imported"] == job.report()["read"] == 40
    assert Counter(imported.splitlines()) == Counter(
        content(job.out)["imported.jsonl"].splitlines()
    )
    assert service.ledger()["calls"] == 40
    assert job.run("status").returncode == 0
    audit(job, service)


def test_an_adopted_line_wins_over_a_dead_letter(
    job: Job, service: Simulator, tmp_path: Path
) -> None:
    path = job.write([*records(5), b"{"])
    with simulator("--fault", "10004=1") as refusing:
        at_refusing = Job(job.directory, refusing.url)
        assert at_refusing.backfill(path).returncode == 1
        assert len(job.dead()) == 6
    copy_queue(job, tmp_path / "copy.sqlite3")
    job.run("replay", "--reason", "rejected")
    assert job.backfill(path).returncode == 1
    assert len(job.imported()) == 5
    restore_queue(job, tmp_path / "copy.sqlite3")
    done = job.backfill(path, "--adopt")
    assert done.returncode == 1, done.stderr.decode()
    report = job.report()
    assert (report["read"], report["imported"], report["dead"]) == (6, 5, 1)
    assert report["by_code"] == {}
    assert job.run("status").returncode == 0
    audit(job, service)


def test_an_adopted_topic_is_its_record_whatever_the_content(
    finished: Job, service: Simulator
) -> None:
    lose_queue(finished)
    changed = [record(n, Introduction="new") if n % 3 == 0 else record(n) for n in range(60)]
    path = finished.write(changed, "renamed.jsonl")
    for _ in range(2):
        assert finished.backfill(path, "--adopt").returncode == 0
        report = finished.report()
        assert (report["read"], report["imported"], report["duplicate"]) == (60, 60, 0)
    audit(finished, service)


def test_a_second_record_of_an_adopted_topic_is_a_duplicate_or_conflict(
    finished: Job, service: Simulator
) -> None:
    lose_queue(finished)
    path = finished.write([*records(60), record(3), record(6, Introduction="other")])
    assert finished.backfill(path, "--adopt").returncode == 1
    report = finished.report()
    assert (report["read"], report["imported"]) == (62, 60)
    assert (report["duplicate"], report["by_reason"]) == (1, {"conflict": 1})
    audit(finished, service)


def test_topics_without_their_own_ids_are_adopted_by_place(job: Job, service: Simulator) -> None:
    path = job.write([record(n) for n in range(40) if n % 3])
    as_given: dict[str, Any] = {"RECORDS__TOPIC_IDS": "as-given"}
    assert job.backfill(path, **as_given).returncode == 0
    lose_queue(job)
    assert job.backfill(path, **as_given).returncode == 3
    for words in (["--adopt"], []):
        assert job.backfill(path, *words, **as_given).returncode == 0
        assert job.report()["read"] == job.report()["imported"] == 26
    assert service.ledger()["calls"] == 26
    audit(job, service)


def test_text_and_torn_lines_are_set_aside_and_the_run_goes_on(
    finished: Job, service: Simulator
) -> None:
    imported = finished.out / "imported.jsonl"
    whole = imported.read_bytes()
    added = whole + b"a note\n" + whole.splitlines(keepends=True)[3] + b'{"source":"topics.js'
    imported.write_bytes(added)
    assert finished.status()["files"]["imported.jsonl"] == "longer"
    assert finished.run("status").returncode == 1
    assert finished.backfill("topics.jsonl").returncode == 0
    assert imported.read_bytes() == whole
    (aside,) = set_aside(finished, "longer")
    assert aside.read_bytes() == added
    audit(finished, service)


def test_the_queue_of_another_job_is_a_stranger(finished: Job, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Job(tmp_path / "other", finished.url)
    other.backfill(other.write(records(10), "other.jsonl"), RECORDS__ON_EXISTING="skip")
    copy_queue(other, tmp_path / "copy.sqlite3")
    restore_queue(finished, tmp_path / "copy.sqlite3")
    before = content(finished.out)
    done = finished.backfill("topics.jsonl")
    assert done.returncode == 3
    assert b"belong to another job" in done.stderr
    assert {**content(finished.out), "queue.sqlite3": b""} == {**before, "queue.sqlite3": b""}
    assert finished.run("status").returncode == 1
    assert finished.backfill("topics.jsonl", "--adopt").returncode == 0
    assert finished.run("status").returncode == 0
    made = Counter(line["topic_id"] for line in finished.imported())
    assert len(made) == sum(made.values()) == 60


def test_queue_files_and_report_carry_one_job_id(finished: Job) -> None:
    (mark,) = (finished.out / ".job").read_text().split()
    assert finished.report()["job"] == mark
    with sqlite3.connect(finished.out / "queue.sqlite3") as db:
        db.execute("DELETE FROM job WHERE name = 'id'")
    (finished.out / ".job").unlink()
    assert finished.backfill("topics.jsonl").returncode == 0, "as a job of an older version"
    assert (finished.out / ".job").read_text().strip() == finished.report()["job"]


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_queue_that_vanishes_halts_the_run_within_seconds(tmp_path: Path, how: str) -> None:
    with simulator("--quota", "0", "--fault", "502=1") as service:
        job = Job(tmp_path, service.url)
        running = job.start(
            *job.backfill_words(job.write(records(50))),
            RETRY__BASE_DELAY="60",
            RETRY__MAX_DELAY="60",
        )
        wait_until(lambda: service.ledger()["calls"] > 0)
        shutil.copy(job.out / "queue.sqlite3", tmp_path / "copy")
        (job.out / "queue.sqlite3").unlink()
        if how == "replaced":
            shutil.copy(tmp_path / "copy", job.out / "queue.sqlite3")
        try:
            said, logged = running.communicate(timeout=PATIENCE_S)
        finally:
            running.kill()
        assert running.returncode == 3, logged
        assert "was removed or replaced while it was in use" in said
        assert "Traceback" not in logged


@pytest.mark.parametrize("name", ["imported.jsonl", "dead-letter.jsonl", "report.json", ".job"])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_regular_file_is_refused_before_the_start(
    offline_job: Job, name: str, kind: str
) -> None:
    offline_job.out.mkdir()
    path, elsewhere = offline_job.out / name, offline_job.directory / "elsewhere"
    elsewhere.write_bytes(b"precious\n")
    match kind:
        case "link":
            path.symlink_to(elsewhere)
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()
    for words in (["topics.jsonl"], []):
        offline_job.write(records(1))
        done = offline_job.backfill(*words)
        assert done.returncode == 2
        assert f"out/{name}: it is a ".encode() in done.stderr
    assert elsewhere.read_bytes() == b"precious\n"
    assert [found.name for found in offline_job.out.iterdir()] == [name]


def test_a_service_whose_queue_was_lost_adopts_rotated_files(job: Job, service: Simulator) -> None:
    settings: dict[str, Any] = {"APP__BASE_URL": service.url, "ADMIN__LISTEN": "127.0.0.1:0"}
    words = ("serve", "--until-empty")
    job.run("enqueue", job.write(records(60)))
    job.run(*words, OUTPUTS__MAX_BYTES="4000", **settings)
    rotated = sorted(job.out.glob("imported.0*.jsonl"))
    assert rotated
    lose_queue(job)
    stopped = job.run(*words, **settings)
    assert stopped.returncode == 3
    assert b"holds 60 topics that exist" in stopped.stderr
    assert sorted(job.out.glob("imported.0*.jsonl")) == rotated
    assert job.run(*words, "--adopt", **settings).returncode == 0
    assert job.report()["imported"] == 60
    assert len({line["topic_id"] for line in job.imported()}) == len(job.imported()) == 60
    assert len(set_aside(job, "rotated")) == len(rotated)
    job.run("enqueue", job.write(records(70)))
    assert job.run(*words, **settings).returncode == 0
    audit(job, service)
    assert orjson.loads((job.out / "report.json").read_bytes())["job"]
