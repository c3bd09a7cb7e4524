"""Dead letters that stay until they are mended or dismissed, on both queue engines."""

import signal
from pathlib import Path
from typing import Any

import orjson

from tests.support.cases import CASES
from tests.support.processes import Job, Simulator, audit
from tests.support.queues import DEAD
from tests.support.topics import record, records
from tests.support.waiting import wait_until
from worker.queues.sqlite.queue import SqliteQueue
from worker.queues.sqlite.store import SqliteStore
from worker.rules.outcome import History

FIRST_DAY = (CASES / "same-name-first-day.jsonl").read_bytes()
NEXT_DAY = (CASES / "same-name-next-day.jsonl").read_bytes()
TORN = (CASES / "torn.jsonl").read_bytes()
WHOLE = (CASES / "torn-whole.jsonl").read_bytes()
BAD = record(7, TopicName="x" * 31)


def read_next_day(job: Job, content: bytes = NEXT_DAY) -> Path:
    path = job.directory / "topics.jsonl"
    path.write_bytes(content)
    return path


def test_the_next_file_of_the_same_name_takes_no_dead_letter(job: Job) -> None:
    first = FIRST_DAY.replace(b"-gone", b"-missing")
    assert job.backfill(read_next_day(job, first).name).returncode == 1
    assert (job.report()["read"], job.report()["dead"]) == (3, 2)
    letters = job.dead()
    done = job.backfill(read_next_day(job).name)
    assert done.returncode == 1
    report = job.report()
    assert (report["read"], report["imported"], report["dead"]) == (6, 4, 2)
    assert job.dead() == letters
    assert b"2 dead letters of topics.jsonl stay" in done.stdout
    assert b"topic-import dismiss --source topics.jsonl" in done.stdout
    again = job.backfill("topics.jsonl")
    assert (again.returncode, job.report()["read"], job.report()["dead"]) == (1, 6, 2)
    assert job.run("dismiss", "--source", "topics.jsonl").returncode == 0
    assert job.backfill("topics.jsonl").returncode == 0
    report = job.report()
    assert (report["read"], report["dead"], report["dismissed"]) == (6, 0, 2)
    dismissed = job.lines("dismissed.jsonl")
    assert [line.pop("dismissed_at")[-1] for line in dismissed] == ["Z", "Z"]
    assert dismissed == letters
    assert job.status()["agree"]


def test_no_day_loses_its_dead_letters_in_a_queue(job: Job, settings: dict[str, Any]) -> None:
    serving = {"APP__BASE_URL": job.url, "ADMIN__LISTEN": "127.0.0.1:0"} | settings

    def standing() -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(job.run("status", "--json", **settings).stdout)
        assert found["agree"]
        return {name: found[name] for name in ("read", "imported", "dead", "dismissed")}

    first = FIRST_DAY.replace(b"-gone", b"-missing")
    job.run("enqueue", read_next_day(job, first).name, **settings)
    job.run("serve", "--until-empty", **serving)
    assert standing() == {"read": 3, "imported": 1, "dead": 2, "dismissed": 0}
    done = job.run("enqueue", read_next_day(job).name, **settings)
    assert b"2 dead letters of topics.jsonl stay" in done.stdout
    assert b"topic-import dismiss --source topics.jsonl" in done.stdout
    job.run("serve", "--until-empty", **serving)
    assert standing() == {"read": 6, "imported": 4, "dead": 2, "dismissed": 0}
    seen = job.run("dismiss", "--source", "topics.jsonl:3", "--dry-run", **settings)
    assert b"1 records would be dismissed: 1 dead letters, 0 queued" in seen.stdout
    for choice in (["--code", "10010"], ["--source", "topics.jsonl"]):
        assert job.run("dismiss", *choice, **settings).returncode == 0
        assert job.run("dismiss", *choice, **settings).returncode == 1
    assert standing() == {"read": 6, "imported": 4, "dead": 0, "dismissed": 2}
    job.run("enqueue", read_next_day(job).name, **settings)
    assert standing() == {"read": 6, "imported": 4, "dead": 0, "dismissed": 2}


def test_a_dead_letter_of_standard_input_can_be_dismissed(job: Job, service: Simulator) -> None:
    assert job.backfill("-", stdin=TORN).returncode == 1
    (letter,) = job.dead()
    assert "hand it in again, mended, and dismiss this one" in letter["hint"]
    assert job.backfill("-", stdin=WHOLE).returncode == 1
    seen = job.run("dismiss", "--source", "-", "--dry-run")
    assert seen.returncode == 0
    assert b"-:3  invalid  unknown community" in seen.stdout
    assert b"1 records would be dismissed: 1 dead letters, 0 queued" in seen.stdout
    assert job.report()["dead"] == 1
    done = job.run("dismiss", "--source", "-:3")
    assert b"read 4 = queued 0 + imported 3 + dead 0 + duplicate 0 + dismissed 1" in done.stdout
    assert job.backfill().returncode == 0
    assert job.run("dismiss", "--source", "-").returncode == 1
    audit(job, service)


def test_dismissing_needs_a_choice(offline_job: Job) -> None:
    done = offline_job.run("dismiss")
    assert done.returncode == 2
    assert b"name what to dismiss: --reason, --code, --group or --source" in done.stderr


def test_a_dismissed_line_is_not_read_again_unless_it_changed(
    offline_job: Job, settings: dict[str, Any]
) -> None:
    job = offline_job
    path = job.write([record(1), BAD, record(2)])
    assert job.run("enqueue", path, **settings).returncode == 1
    assert job.run("dismiss", "--reason", "invalid", **settings).returncode == 0
    again = job.run("enqueue", path, **settings)
    assert b"read 3 = queued 2 + imported 0 + dead 0 + duplicate 0 + dismissed 1" in again.stdout
    mended = job.write([record(1), record(7), record(2)])
    done = job.run("enqueue", mended, **settings)
    assert b"read 4 = queued 3 + imported 0 + dead 0 + duplicate 0 + dismissed 1" in done.stdout


def test_queued_records_of_a_community_can_be_dismissed(
    offline_job: Job, settings: dict[str, Any]
) -> None:
    job = offline_job
    other = {"GroupId": "@TGS#_other", "TopicName": "a"}
    path = job.write([*records(3), other, {**other, "TopicName": "b"}])
    job.run("enqueue", path, **settings)
    chosen = ("dismiss", "--group", "@TGS#_other")
    seen = job.run(*chosen, "--dry-run", **settings)
    assert b"2 records would be dismissed: 0 dead letters, 2 queued" in seen.stdout
    assert job.run(*chosen, "--code", "10037", **settings).returncode == 1
    done = job.run(*chosen, **settings)
    assert b"2 records dismissed: 0 dead letters, 2 queued" in done.stdout
    assert b"read 5 = queued 3 + imported 0 + dead 0 + duplicate 0 + dismissed 2" in done.stdout
    if not settings:
        assert [line["reason"] for line in job.lines("dismissed.jsonl")] == [None, None]
    again = job.run("enqueue", path, **settings)
    assert b"5 records read: 0 new" in again.stdout


def test_dismissing_is_refused_while_another_process_takes(job: Job) -> None:
    serving: dict[str, Any] = {"APP__BASE_URL": job.url, "ADMIN__LISTEN": "127.0.0.1:0"}
    job.run("enqueue", job.write([BAD, record(1)]))
    running = job.start("serve", **serving)
    try:
        wait_until(lambda: job.status()["taker"] is not None)
        done = job.run("dismiss", "--reason", "invalid")
        assert done.returncode == 2
        assert b"another topic-import (process " in done.stderr
    finally:
        running.terminate()
        running.communicate()
    assert job.status()["dead"] == 1


def test_replay_leaves_what_is_invalid_or_in_conflict_still(
    offline_job: Job, settings: dict[str, Any]
) -> None:
    job = offline_job
    job.run("enqueue", job.write([record(3), record(3, TopicName="other"), BAD]), **settings)
    seen, done = job.run("replay", "--dry-run", **settings), job.run("replay", **settings)
    for ended in (seen, done):
        assert ended.returncode == 0
        assert b"0 dead letters " in ended.stdout
        assert b"2 are still invalid or in conflict" in ended.stdout
        assert b"read 3 = queued 1 + imported 0 + dead 2" in ended.stdout
    done = job.run("replay", **settings, RECORDS__LIMITS__TOPIC_NAME="100")
    assert b"1 dead letters put back into the queue, 1 are still invalid" in done.stdout
    assert b"import what is queued with: topic-import " in done.stdout


def test_replay_lists_on_request_and_names_the_next_command(job: Job) -> None:
    missing = {"GroupId": "@TGS#_missing", "TopicName": "a"}
    job.backfill(job.write([missing, BAD, record(1)]), "--out", "my job")
    letters = (job.directory / "my job" / "dead-letter.jsonl").read_bytes()
    seen = job.run("replay", "--dry-run", "--out", "my job")
    assert b"1 dead letters would be put back into the queue, 1 are still invalid" in seen.stdout
    assert b"topics.jsonl:1  rejected 10010  @TGS#_missing" in seen.stdout
    assert (job.directory / "my job" / "dead-letter.jsonl").read_bytes() == letters
    assert job.run("replay", "--source", "none.jsonl", "--out", "my job").returncode == 1
    done = job.run("replay", "--out", "my job")
    assert b"import what is queued with: topic-import backfill --out 'my job'" in done.stdout


def test_a_killed_replay_leaves_no_file_that_looks_edited(job: Job) -> None:
    bad = [{"GroupId": "@TGS#_missing", "TopicName": f"{n}"} for n in range(3000)]
    assert job.backfill(job.write([record(1), *bad])).returncode == 1
    store = SqliteStore(job.out / "queue.sqlite3", read_only=True)
    for n in (1, 600, 1100, 2100):
        running = job.start("replay")
        while running.poll() is None and store.counts().queued < n:
            pass  # a replay takes a fraction of a second
        running.send_signal(signal.SIGKILL)
        running.communicate()
        counts = store.counts()
        assert counts.is_balanced
        assert counts.read == 3001
    store.close()
    assert job.run("replay", "--reason", "invalid").returncode == 1
    assert job.status()["agree"]
    assert not list(job.out.glob("*.edited-*"))


async def test_a_mended_letter_whose_topic_exists_as_it_was_is_a_conflict(job: Job) -> None:
    first = {"GroupId": "@TGS#_a", "TopicName": "first"}
    path = job.write([first])
    assert job.backfill(path, "--out", "other").returncode == 0
    assert job.run("enqueue", path).returncode == 0
    # As if the reply to the call above had been lost, and all attempts after it had failed.
    queue = SqliteQueue(job.out)
    (taken,) = await queue.take(1)
    await queue.settle([DEAD(taken.id, History(attempts=8, may_exist=True))])
    queue.close()
    assert job.run("replay", "--dry-run").returncode == 0
    letters = job.out / "dead-letter.jsonl"
    assert job.run("status").returncode == 1
    assert job.run("replay", "--reason", "invalid").returncode == 1, "it completes the file"
    letters.write_bytes(letters.read_bytes().replace(b'"first"', b'"mended"'))
    done = job.backfill("out/dead-letter.jsonl")
    assert done.returncode == 1, done.stdout
    (letter,) = job.dead()
    assert (letter["reason"], letter["may_exist"]) == ("conflict", True)
    assert 'TopicName (sent "mended", found "first")' in letter["message"]
