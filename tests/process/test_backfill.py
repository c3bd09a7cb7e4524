"""The backfill command as a user runs it, against the simulator."""

from pathlib import Path
from typing import Any

import orjson

from tests.support.processes import FAST_RETRY, KEY, Job, Simulator, audit, simulator
from tests.support.topics import group, record, records

REPORT_KEYS = {
    "read", "queued", "imported", "already_own", "already_before", "dead", "duplicate", "calls",
    "retries", "throttled", "renewals", "seconds", "rate_per_s", "quota_per_s", "quota_used",
    "halted", "by_reason", "by_code", "by_community", "held", "unproven", "started", "ended",
    "cut", "warnings", "job", "dismissed", "skipped",
}  # fmt: skip


def test_backfill_imports_a_file_and_reports_correct_totals(job: Job, service: Simulator) -> None:
    done = job.backfill(job.write(records(300)), QUEUE__URL="sqlite:///out/queue.sqlite3")
    assert done.returncode == 0, done.stderr.decode()
    assert b"read 300 = queued 0 + imported 300 + dead 0 + duplicate 0" in done.stdout
    audit(job, service)
    report = job.report()
    assert report.keys() == REPORT_KEYS
    assert (report["imported"], report["calls"], report["halted"]) == (300, 300, None)
    line = job.imported()[0]
    assert list(line) == [
        "source", "key", "group_id", "topic_id", "topic_name", "attempts", "already",
        "truncated", "at",
    ]  # fmt: skip
    assert (line["attempts"], line["already"], line["truncated"]) == (1, False, [])
    for path in job.out.iterdir():
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} can be read by others"


def test_a_record_is_sent_as_it_was_read(job: Job, service: Simulator) -> None:
    full = record(
        1, Type="Community", From_Account=17, FaceUrl="u", Notification="n", Introduction="😀"
    )
    job.backfill(job.write([full]))
    (sent,) = service.ledger()["topics"]
    assert sent.pop("TopicId") == job.imported()[0]["topic_id"]
    assert sent == full | {"From_Account": "17"}


def test_no_kind_of_fault_loses_or_duplicates_a_record(tmp_path: Path) -> None:
    kinds = ("10002", "80005", "60008", "502", "html", "empty", "truncated", "reset-before",
             "reset-after", "60007", "70001")  # fmt: skip
    faults = [word for kind in kinds for word in ("--fault", f"{kind}=0.03")]
    with simulator("--quota", "0", *faults) as service:
        job = Job(tmp_path, service.url)
        # A quarter of all calls fail: one of 600 records may well fail eight times in a row.
        done = job.backfill(job.write(records(600)), RETRY__MAX_ATTEMPTS="30", **FAST_RETRY)
        assert done.returncode == 0, done.stderr.decode()
        audit(job, service)
        report = job.report()
        assert report["imported"] == 600
        assert report["already_own"] > 0
        assert report["throttled"] > 0
        assert report["renewals"] > 0
        assert report["calls"] == 600 + report["retries"]


def test_a_call_that_hangs_times_out_and_is_retried(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--fault", "hang=0.1") as service:
        job = Job(tmp_path, service.url)
        done = job.backfill(job.write(records(60)), HTTP__TOTAL_TIMEOUT="0.3", **FAST_RETRY)
        assert done.returncode == 0
        audit(job, service)


def test_bad_records_become_dead_letters_with_position_and_reason(
    job: Job, service: Simulator
) -> None:
    lines: list[Any] = [
        record(1),
        record(2, TopicName="x" * 31, CreateTime=1448357837000),
        b'{"GroupId": ',
        b"",
        record(3, GroupId="@TGS#_missing", TopicId=None),
        record(4, TopicName="forbidden"),
        record(5),
        record(1),
        record(9, TopicName="another"),
        record(9),
    ]
    path = job.write(lines)
    done = job.backfill(path)
    assert done.returncode == 1
    audit(job, service)
    dead = {line["source"]: line for line in job.dead()}
    assert {source: line["reason"] for source, line in dead.items()} == {
        f"{path}:2": "invalid",
        f"{path}:3": "invalid",
        f"{path}:5": "rejected",
        f"{path}:6": "rejected",
        f"{path}:10": "conflict",
    }
    assert "31 bytes" in dead[f"{path}:2"]["message"]
    assert "milliseconds" in dead[f"{path}:2"]["message"]
    assert dead[f"{path}:2"]["record"] == lines[1]
    assert dead[f"{path}:3"]["raw"] == '{"GroupId":'
    assert dead[f"{path}:5"]["code"] == 10010
    assert dead[f"{path}:5"]["attempts"] == 1
    assert list(dead[f"{path}:6"]) == [
        "source", "key", "group_id", "topic_id", "reason", "code", "message", "hint",
        "attempts", "may_exist", "first_attempt", "last_attempt", "record",
    ]  # fmt: skip
    report = job.report()
    assert (report["read"], report["imported"], report["duplicate"]) == (9, 3, 1)
    assert report["by_code"] == {"10010": 1, "80001": 1}


def test_repeating_a_finished_backfill_imports_nothing_again(job: Job, service: Simulator) -> None:
    path = job.write(records(50))
    job.backfill(path)
    before = (job.out / "imported.jsonl").read_bytes()
    assert job.backfill(path).returncode == 0
    assert job.report()["calls"] == 0
    assert (job.out / "imported.jsonl").read_bytes() == before
    audit(job, service)


def test_limit_stops_after_n_records_and_the_next_run_continues(
    job: Job, service: Simulator
) -> None:
    path = job.write(records(30))
    assert job.backfill(path, "--limit", "10").returncode == 0
    assert (job.report()["read"], job.report()["imported"]) == (10, 10)
    assert job.backfill(path).returncode == 0
    assert job.report()["imported"] == 30
    audit(job, service)


def test_keys_appear_in_results_and_the_key_field_cannot_change(
    job: Job, service: Simulator
) -> None:
    path = job.write([{"gid": group(1), "title": "general", "id": 17}])
    settings: dict[str, Any] = {
        "RECORDS__KEY_FIELD": "id",
        "RECORDS__FIELDS__gid": "GroupId",
        "RECORDS__FIELDS__title": "TopicName",
    }
    assert job.backfill(path, **settings).returncode == 0
    (line,) = job.imported()
    assert (line["key"], line["topic_name"]) == (17, "general")
    again = job.backfill(path)
    assert again.returncode == 2
    assert b"records.key_field" in again.stderr


def test_a_wrong_key_halts_and_keeps_every_record_queued(job: Job) -> None:
    path = job.write(records(200))
    done = job.backfill(path, APP__SECRET_KEY="0" * 64)
    assert done.returncode == 3
    report = job.report()
    assert report["halted"]["code"] == 70009
    assert (report["imported"], report["dead"]) == (0, 0)
    assert b"HALTED (70009)" in done.stdout
    assert job.backfill(path).returncode == 0, "the same command continues"
    assert job.report()["imported"] == 200


def test_an_existing_topic_id_is_a_conflict_unless_set_to_skip(
    job: Job, service: Simulator, tmp_path: Path
) -> None:
    path = job.write([record(3), record(1)])
    job.backfill(path)
    (tmp_path / "again").mkdir()
    again = Job(tmp_path / "again", service.url)
    assert again.backfill(path).returncode == 0, "the same job once more, its queue lost"
    assert {line["already"] for line in again.imported()} == {"before"}
    (tmp_path / "second").mkdir()
    second = Job(tmp_path / "second", service.url)
    path = second.write([record(3, Introduction="another topic"), record(1)])
    assert second.backfill(path).returncode == 1
    (letter,) = second.dead()
    assert (letter["reason"], letter["code"], letter["may_exist"]) == ("conflict", 10021, False)
    assert [line["already"] for line in second.imported()] == ["before"]
    report = second.report()
    assert (report["already_before"], report["already_before_derived"]) == (1, 1)
    (tmp_path / "third").mkdir()
    third = Job(tmp_path / "third", service.url)
    assert third.backfill(path, RECORDS__ON_EXISTING="skip").returncode == 0
    assert {line["already"] for line in third.imported()} == {"before"}


def test_as_given_mode_counts_topics_that_may_exist_twice(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--fault", "reset-after=0.2") as service:
        job = Job(tmp_path, service.url)
        path = job.write([record(n) for n in range(1, 60) if n % 3])
        done = job.backfill(path, RECORDS__TOPIC_IDS="as-given", **FAST_RETRY)
        assert done.returncode == 0
        report = job.report()
        ledger = service.ledger()
        assert report["may_exist_twice"] > 0
        assert ledger["created"] - report["imported"] >= report["may_exist_twice"]


def test_no_output_contains_a_secret(job: Job) -> None:
    path = job.write([*records(20), b"{"])
    runs: list[dict[str, Any]] = [{}, {"APP__SECRET_KEY": "0" * 64}]
    for settings in runs:
        done = job.backfill(path, "--log-level", "debug", "--log-format", "json", **settings)
        output = done.stdout + done.stderr
        for file in job.out.glob("*.json*"):
            output += file.read_bytes()
        assert KEY.encode() not in output
        assert b"usersig=e" not in output
        assert b"eJ" not in output, "a UserSig begins so"


def test_json_logs_go_to_standard_error(job: Job) -> None:
    done = job.backfill(job.write([record(1)]), "--log-format", "json")
    logged = [orjson.loads(line) for line in done.stderr.splitlines()]
    assert logged
    assert all({"event", "level", "timestamp"} <= entry.keys() for entry in logged)
