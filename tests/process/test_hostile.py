"""Hostile inputs and a hostile machine: each line accounted for, nothing lost."""

import contextlib
import gzip
import os
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.processes import Job, Simulator, audit, environment, simulator
from tests.support.topics import group, record, records
from tests.support.waiting import wait_until
from worker.outputs.files import write_whole
from worker.queues.sqlite.file import FIRST_PAGE_BYTES

HOSTILE = [
    b"\xef\xbb\xbf" + orjson.dumps(record(1)) + b"\r",
    b"",
    b"   \t \r",
    b"x" * 3000,
    b'{"GroupId":"\x00"}',
    b"\x00\x00\x00",
    b'{"GroupId":"@TGS#_a","GroupId":"@TGS#_b","TopicName":"twice"}',
    b'{"GroupId":"@TGS#_a","TopicName":"big","From_Account":123456789012345678901234567890}',
    b'{"GroupId":"@TGS#_a","TopicName":"late","CreateTime":99999999999999999999}',
    b"[" * 2000,
    b'{"a":' * 900 + b"1" + b"}" * 900,
    b'{"GroupId":"@TGS#_a","TopicName":"\\ud83d"}',
    b'{"GroupId":"@TGS#_a","TopicName":"\xff\xfe"}',
    b'"text"',
    orjson.dumps(record(2)) + b"\x00",
    orjson.dumps(record(4)),
]


def test_every_hostile_line_is_accounted_for(job: Job, service: Simulator) -> None:
    path = job.directory / "hostile.jsonl"
    path.write_bytes(b"\n".join(HOSTILE))
    for _ in range(2):
        done = job.backfill(path, RECORDS__MAX_LINE_BYTES="2500")
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
    audit(job, service)
    report = job.report()
    assert (report["read"], report["imported"], report["dead"]) == (14, 2, 12)
    dead = {int(line["source"].rsplit(":")[-1]): line for line in job.dead()}
    assert dead.keys() == set(range(4, 16))
    assert "3000 bytes, too long" in dead[4]["message"]
    assert "GroupId stands more than once" in dead[7]["message"]
    assert "64 bits" in dead[8]["message"]
    assert {line["reason"] for line in dead.values()} == {"invalid"}
    assert all(("record" in line) != ("raw" in line) for line in dead.values())


def test_an_input_that_grew_changed_and_moved_is_read_for_what_is_new(
    job: Job, service: Simulator
) -> None:
    path = job.write([record(1), record(2), b"{"])
    job.backfill(path)
    job.write([record(1), record(2, TopicName="changed", TopicId=None), record(4), record(5)])
    assert job.backfill(path).returncode == 0
    report = job.report()
    assert (report["read"], report["imported"], report["dead"]) == (5, 5, 0)
    moved = path.rename(job.directory / "moved.jsonl")
    assert job.backfill(moved).returncode == 0
    report = job.report()
    assert (report["read"], report["imported"], report["duplicate"]) == (9, 5, 4)
    audit(job, service)


def test_the_same_file_named_twice_is_read_once(job: Job, service: Simulator) -> None:
    path = job.write(records(20))
    assert job.backfill(path, path).returncode == 0
    assert job.report()["read"] == 20
    audit(job, service)


def test_a_cut_off_gzip_file_halts_after_what_could_be_read(job: Job, service: Simulator) -> None:
    path = job.write(records(3000), "a.jsonl.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = job.backfill(path)
    assert done.returncode == 3
    assert b"the gzip file is cut off" in done.stdout
    report = job.report()
    assert report["halted"]["code"] == "input"
    assert 0 < report["imported"] < 3000
    assert report["dead"] == 0
    path.write_bytes(gzip.compress(gzip.decompress(whole)))
    assert job.backfill(path).returncode == 0
    assert job.report()["imported"] == 3000
    audit(job, service)


def test_edited_and_deleted_result_files_are_written_anew(job: Job, service: Simulator) -> None:
    path = job.write([*records(20), b"{"])
    job.backfill(path)
    imported = job.out / "imported.jsonl"
    whole = imported.read_bytes()
    imported.write_bytes(whole.replace(b"own-3", b"own-X"))
    (job.out / "dead-letter.jsonl").unlink()
    assert job.run("status").returncode == 1
    assert job.status()["files"] == {"imported.jsonl": "other", "dead-letter.jsonl": "shorter"}
    assert job.backfill().returncode == 1
    assert imported.read_bytes() == whole
    assert len(list(job.out.glob("imported.jsonl.edited-*"))) == 1
    assert job.run("status").returncode == 0
    audit(job, service)


def test_status_without_a_job_and_of_one_that_runs(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--latency", "0.3") as service:
        job = Job(tmp_path, service.url)
        assert job.run("status").returncode == 2
        path = job.write(records(300))
        running = job.start(*job.backfill_words(path), HTTP__MAX_IN_FLIGHT="10")
        while not service.ledger()["calls"]:
            time.sleep(0.01)
        status = job.status()
        assert status["taker"].startswith("process ")
        assert status["agree"]
        second = job.backfill(path)
        assert second.returncode == 2
        assert b"another topic-import (process" in second.stderr
        running.kill()
        running.communicate()
        assert job.status()["taker"] is None


@pytest.mark.parametrize("moment", ["the file was made", "its first page was being written"])
def test_status_of_a_job_that_was_killed_before_its_queue_had_tables(
    job: Job, service: Simulator, moment: str
) -> None:
    job.out.mkdir()
    queue = job.out / "queue.sqlite3"
    queue.touch()
    if "page" in moment:
        leave_a_hot_journal(job.directory / "other", queue)
    status = job.status()
    assert {status[name] for name in ("read", "queued", "imported", "dead", "duplicate")} == {0}
    assert status["agree"]
    assert job.backfill(job.write(records(10))).returncode == 0
    audit(job, service)


def leave_a_hot_journal(other: Path, queue: Path) -> None:
    """Make a file as SQLite leaves it where the first write to an empty one is cut off."""
    with contextlib.closing(sqlite3.connect(other, isolation_level=None)) as db:
        for statement in ("PRAGMA cache_size = 1", "BEGIN", "CREATE TABLE filler (content)"):
            db.execute(statement)
        db.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
        for ending in ("", "-journal"):
            source = other.with_name(other.name + ending)
            shutil.copy(source, queue.with_name(queue.name + ending))
    os.truncate(queue, FIRST_PAGE_BYTES)


def run_limited(job: Job, path: Path, kind: int, limit: int) -> subprocess.CompletedProcess[bytes]:
    """Run the backfill with a limit of the system's on one of its resources."""
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
def test_a_full_disk_halts_and_the_same_command_continues_once_there_is_room(
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


@pytest.mark.parametrize("name", ["imported.jsonl", "dead-letter.jsonl"])
def test_a_result_file_that_cannot_grow_halts_and_is_completed_later(
    job: Job, service: Simulator, name: str
) -> None:
    job.out.mkdir()
    (job.out / name).symlink_to("/dev/full")
    path = job.write([*records(100), b"{"])
    done = job.backfill(path)
    assert done.returncode == 3
    assert b"No space left on device" in done.stdout
    (job.out / name).unlink()
    assert job.backfill(path).returncode == 1
    audit(job, service)


def test_few_file_descriptors_mean_fewer_calls_at_once(job: Job, service: Simulator) -> None:
    path = job.write(records(300))
    done = run_limited(job, path, resource.RLIMIT_NOFILE, 40)
    assert done.returncode == 0
    assert b"raise ulimit -n" in done.stderr
    audit(job, service)


def test_one_poisoned_line_does_not_hold_up_the_memory(job: Job, service: Simulator) -> None:
    path = job.directory / "long.jsonl"
    with path.open("wb") as file:
        for _ in range(200):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + orjson.dumps(record(1)))
    done = run_limited(job, path, resource.RLIMIT_AS, 1 << 30)
    assert done.returncode == 1, done.stderr.decode()
    assert "200000000 bytes, too long" in job.dead()[0]["message"]
    audit(job, service)


def test_ids_of_one_s_own_and_faults_meet_without_a_mix_up(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--fault", "reset-after=0.3", "--fault", "10002=0.2") as service:
        job = Job(tmp_path, service.url)
        given: list[Any] = []
        for number in range(0, 120, 3):
            given += [record(number), record(number, TopicName="another")]
        path = job.write(given)
        fast = {"RETRY__BASE_DELAY": "0.01", "RETRY__MAX_ATTEMPTS": "50"}
        done = job.backfill(path, stdin=None, **fast)
        assert done.returncode == 1
        report = job.report()
        assert (report["imported"], report["by_reason"]) == (40, {"conflict": 40})
        names = {topic["TopicName"] for topic in service.ledger()["topics"]}
        assert "another" not in names
        audit(job, service)


def test_file_names_of_any_bytes_are_read(job: Job, service: Simulator) -> None:
    for number, name in enumerate([b"a b:7.jsonl", "话题.jsonl".encode(), b"\xff\xfe.jsonl"]):
        (job.directory / os.fsdecode(name)).write_bytes(orjson.dumps(record(number)))
        done = job.backfill(os.fsdecode(name))
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
    sources = [line["source"] for line in job.imported()]
    assert sources == ["a b:7.jsonl:1", "话题.jsonl:1", "\\xff\\xfe.jsonl:1"]
    audit(job, service)


def test_a_named_pipe_is_read_once_and_whole(job: Job, service: Simulator) -> None:
    pipe = job.directory / "pipe"
    os.mkfifo(pipe)
    running = job.start(*job.backfill_words(pipe))
    with pipe.open("wb") as writing:
        writing.write(b"\n".join(orjson.dumps(r) for r in records(10)))
    running.communicate(timeout=30)
    assert running.returncode == 0
    audit(job, service)


def test_a_deeply_nested_value_is_a_bad_record_like_any_other(job: Job, service: Simulator) -> None:
    deep = b'{"GroupId":"@TGS#_a","TopicName":"a","Type":' + b"[" * 300 + b"]" * 300 + b"}"
    assert job.backfill(job.write([deep, record(1)])).returncode == 1
    audit(job, service)
    letters = (job.out / "dead-letter.jsonl").read_bytes()
    (job.directory / "again.jsonl").write_bytes(letters)
    assert job.backfill("again.jsonl").returncode == 1
    audit(job, service)


def test_dead_letters_mended_in_place_are_read_before_the_file_is_made_anew(
    job: Job, service: Simulator
) -> None:
    path = job.write([record(1, TopicName="forbidden"), record(4, TopicName="forbidden")])
    job.backfill(path)
    letters = job.out / "dead-letter.jsonl"
    letters.write_bytes(letters.read_bytes().replace(b"forbidden", b"fine"))
    assert job.backfill("out/dead-letter.jsonl").returncode == 0
    assert job.report()["read"] == 2
    assert [line["topic_name"] for line in job.imported()] == ["fine", "fine"]
    assert job.backfill(path).returncode == 0, "the old lines are not read again"
    assert job.report()["read"] == 2
    audit(job, service)


def test_settings_mended_after_a_first_try_are_enough(job: Job, service: Simulator) -> None:
    path = job.write([{"gid": group(1), "title": "general", "id": "k"}])
    assert job.backfill(path).returncode == 1
    fields = orjson.dumps({"gid": "GroupId", "title": "TopicName"}).decode()
    done = job.backfill(path, RECORDS__FIELDS=fields, RECORDS__KEY_FIELD="id")
    assert done.returncode == 0, done.stderr
    assert job.report()["read"] == 1
    audit(job, service)


def test_an_input_not_read_to_its_end_is_named(job: Job, service: Simulator) -> None:
    path = job.write(records(3000))
    done = job.backfill(path, APP__SECRET_KEY="0" * 64)
    assert done.returncode == 3
    if job.report()["read"] < 3000:
        assert b"topics.jsonl was not read to its end" in done.stdout
        assert job.status()["unfinished_inputs"] == [str(path)]
    job.backfill(path, "--limit", "5")
    assert job.backfill(path).returncode == 0
    assert job.status()["unfinished_inputs"] == []


def test_an_unwritable_standard_output_or_error_changes_no_result(
    job: Job, service: Simulator
) -> None:
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


def test_an_account_at_fault_is_not_taken_for_the_signature(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--fault", "60004=0.1") as service:
        job = Job(tmp_path, service.url)
        path = job.write([record(n, From_Account="somebody") for n in range(200)])
        # Slow enough that a signature is proven by an answer before the next call goes out.
        done = job.backfill(path, "--rate", "400")
        assert done.returncode == 1, done.stdout
        report = job.report()
        assert report["by_reason"].keys() == {"rejected"}
        assert report["halted"] is None
        audit(job, service)


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


def test_a_clock_that_jumps_an_hour_either_way_changes_nothing_but_the_times(
    job: Job, service: Simulator
) -> None:
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
        _, told = running.communicate(timeout=60)
    assert running.returncode == 0, told
    assert told.count(b"the wall clock jumped") == 2
    audit(job, service)
    report = job.report()
    assert (report["imported"], report["renewals"]) == (600, 0)
    assert 2 < report["seconds"] < 30
