"""One community in trouble: its own records wait or are dead letters, all others are imported."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from tests.support.cases import CASES, case_records
from tests.support.processes import PATIENCE_S, Job, simulator
from tests.support.stand_in import Call, Refusal, stand_in
from tests.support.waiting import wait_until

TOPICS_MAX = 5
FULL = "@TGS#_@TGS#c0000000000"
DOWN = "@TGS#_@TGS#c0000000003"
CALLS_TO_A_FULL_ONE_MAX = 15


def community(number: int, mark: str = "") -> str:
    return f"@TGS#_c{number:03d}{mark}"


def rows_of(group_id: str, count: int) -> list[dict[str, Any]]:
    return [{"GroupId": group_id, "TopicName": f"topic {n}"} for n in range(count)]


def by_group(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(line["group_id"] for line in lines)


def test_a_full_community_does_not_stop_the_others(tmp_path: Path) -> None:
    meant = Counter(record["GroupId"] for record in case_records("one-community-full.jsonl"))

    def answer(call: Call) -> Refusal | None:
        return Refusal(10037) if service.topics_in()[call.group_id] >= TOPICS_MAX else None

    with stand_in(answer) as service:
        job = Job(tmp_path, service.url)
        words = job.backfill_words(CASES / "one-community-full.jsonl")
        for run in range(2):
            done = job.run(*words, HTTP__MAX_IN_FLIGHT="5")
            assert done.returncode == 1, done.stderr.decode()
            assert b"10037: 7 records, all of community " + FULL.encode() in done.stdout
            assert len(service.refused) <= CALLS_TO_A_FULL_ONE_MAX, f"run {run}"
        assert service.topics_in() == Counter({**meant, FULL: TOPICS_MAX})
    assert by_group(job.dead()) == {FULL: meant[FULL] - TOPICS_MAX}
    assert {(line["reason"], line["code"]) for line in job.dead()} == {("rejected", 10037)}
    assert all("delete topics or buy more" in line["hint"] for line in job.dead())


def test_two_full_communities_do_not_stop_the_others(tmp_path: Path) -> None:
    groups = [community(n, "full5" if n in {2, 4} else "") for n in range(8)]
    with simulator("--quota", "0", "--latency", "0.02") as service:
        job = Job(tmp_path, service.url)
        path = job.write([row for group in groups for row in rows_of(group, 30)])
        done = job.backfill(path, HTTP__MAX_IN_FLIGHT="6")
        assert done.returncode == 1, done.stdout.decode()
        refused = service.ledger()["answers"]["10037"]
    assert by_group(job.imported()) == {group: 5 if "full5" in group else 30 for group in groups}
    assert refused <= 2 * CALLS_TO_A_FULL_ONE_MAX
    assert {line["code"] for line in job.dead()} == {10037}


def test_an_app_that_is_full_halts_and_keeps_the_rest(tmp_path: Path) -> None:
    def answer(call: Call) -> Refusal | None:
        return Refusal(10037) if len(service.topics) >= 40 else None

    with stand_in(answer) as service:
        job = Job(tmp_path, service.url)
        path = job.write([row for n in range(8) for row in rows_of(community(n), 10)])
        done = job.backfill(path, HTTP__MAX_IN_FLIGHT="5")
        assert done.returncode == 3
        assert b"HALTED (10037)" in done.stdout
        assert len(service.refused) <= CALLS_TO_A_FULL_ONE_MAX
    report = job.report()
    assert (report["imported"], report["queued"], report["dead"]) == (40, 40, 0)


def test_what_waits_for_a_full_community_can_be_dismissed_by_its_code(tmp_path: Path) -> None:
    full = {community(0), community(1)}

    def answer(call: Call) -> Refusal | None:
        return Refusal(10037) if call.group_id in full else None

    with stand_in(answer) as service:
        job = Job(tmp_path, service.url)
        path = job.write([row for n in range(8) for row in rows_of(community(n), 10)])
        assert job.backfill(path, HTTP__MAX_IN_FLIGHT="5").returncode == 3
    report = job.report()
    held = set(report["held"])
    assert held
    assert held <= full
    waiting = 10 * len(held)
    one_of_them = ("--code", "10037", "--group", min(held))
    assert b"10 records would be dismissed" in job.run("dismiss", *one_of_them, "--dry-run").stdout
    assert job.run("dismiss", "--code", "10010").returncode == 1
    seen = job.run("dismiss", "--code", "10037", "--dry-run")
    assert f"{waiting} records would be dismissed: 0 dead letters, {waiting} queued" in (
        seen.stdout.decode()
    )
    assert job.run("dismiss", "--code", "10037").returncode == 0
    assert by_group(job.lines("dismissed.jsonl")) == dict.fromkeys(held, 10)
    standing = job.status()
    assert standing["dismissed"] == waiting
    assert standing["queued"] == report["queued"] - waiting


def test_a_community_that_is_down_for_a_while_loses_no_record(tmp_path: Path) -> None:
    def answer(call: Call) -> Refusal | None:
        is_down = call.group_id == DOWN and call.at_s < 4.0
        return Refusal(10002) if is_down else None

    with stand_in(answer) as service:
        job = Job(tmp_path, service.url)
        done = job.run(*job.backfill_words(CASES / "one-community-down.jsonl", rate="60"))
        assert done.returncode == 0, done.stdout.decode()
        assert len(service.topics) == len(job.imported()) == 120
        assert len(service.refused) <= 12 + 8, "each record once, then a probe now and then"
    assert b"a community is held" in done.stderr


def test_a_community_that_stays_down_is_given_up_alone(tmp_path: Path) -> None:
    groups = [community(n, "down" if n == 1 else "") for n in range(6)]
    with simulator("--quota", "0", "--latency", "0.02") as service:
        job = Job(tmp_path, service.url)
        path = job.write([row for group in groups for row in rows_of(group, 40)])
        done = job.backfill(path, RETRY__PATIENCE="3", HTTP__MAX_IN_FLIGHT="5")
        assert done.returncode == 1, done.stdout.decode()
        assert service.ledger()["created"] == 200
    assert by_group(job.dead()) == {groups[1]: 40}
    assert {line["reason"] for line in job.dead()} == {"exhausted"}
    assert f"10002: 40 records, all of community {groups[1]}".encode() in done.stdout
    listed = orjson.loads((job.out / "report.json").read_bytes())["by_community"]
    assert groups[1] in str(listed)


def test_a_community_without_topics_at_the_head_stops_nobody(tmp_path: Path) -> None:
    groups = [community(n, "notopics" if n == 0 else "") for n in range(3)]
    with simulator("--quota", "0", "--latency", "0.02") as service:
        job = Job(tmp_path, service.url)
        path = job.write([row for group in groups for row in rows_of(group, 200)])
        done = job.backfill(path, HTTP__MAX_IN_FLIGHT="20")
        assert done.returncode == 1, done.stdout.decode()
        assert service.ledger()["answers"]["11000"] <= 3 * 20, (
            "in flight, once more, and others then"
        )
    assert by_group(job.imported()) == {groups[1]: 200, groups[2]: 200}
    assert by_group(job.dead()) == {groups[0]: 200}


def test_missing_communities_alone_halt_as_a_wrong_app(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--latency", "0.02") as service:
        job = Job(tmp_path, service.url)
        groups = [community(n, "missing") for n in range(60)]
        path = job.write([row for group in groups for row in rows_of(group, 5)])
        done = job.backfill(path, HTTP__MAX_IN_FLIGHT="10")
        assert done.returncode == 3
        assert b"20 communities in a row, and nothing was imported" in done.stdout
        assert b"check app.sdk_app_id and app.region" in done.stdout
        assert service.ledger()["calls"] <= 20 * 5 + 10


def test_a_record_that_alone_fails_holds_no_community(tmp_path: Path) -> None:
    def answer(call: Call) -> Refusal | None:
        return Refusal(10002) if call.topic["TopicName"] == "bad" else None

    with stand_in(answer) as service:
        job = Job(tmp_path, service.url)
        rows = [row for n in range(5) for row in rows_of(community(n), 60)]
        rows.insert(10, {"GroupId": community(0), "TopicName": "bad"})
        done = job.backfill(job.write(rows), RETRY__BASE_DELAY="0.01", RETRY__MAX_DELAY="0.05")
        assert done.returncode == 1, done.stdout.decode()
        assert len(service.topics) == 300
    assert b"a community is held" not in done.stderr
    assert [line["topic_id"] for line in job.dead()] == [service.refused[0].topic["TopicId"]]


def test_a_service_logs_that_rejections_stop_it_and_that_it_goes_on(tmp_path: Path) -> None:
    bad = [
        {**row, "TopicName": f"forbidden {n}"} for n, row in enumerate(rows_of(community(1), 60))
    ]
    bad += [{**row, "GroupId": community(2)} for row in bad]
    good = [row for n in range(3, 7) for row in rows_of(community(n), 20)]
    with simulator("--quota", "0", "--latency", "0.01") as service:
        job = Job(tmp_path, service.url)
        assert job.run("enqueue", job.write([*bad, *good])).returncode == 0
        running = job.start(
            "serve",
            APP__BASE_URL=service.url,
            ADMIN__LISTEN="127.0.0.1:0",
            HALT__SAME_REJECTION="70",
            HTTP__MAX_IN_FLIGHT="5",
        )
        wait_until(lambda: job.status()["queued"] == 0)
        running.terminate()
        _, logged = running.communicate(timeout=PATIENCE_S)
    assert by_group(job.dead()) == {community(1): 60, community(2): 60}
    assert len(job.imported()) == len(good)
    stops = [line for line in logged.splitlines() if "records in a row were refused" in line]
    assert len(stops) >= 1
    assert "code=80001" in stops[0]
    assert "records are imported again: calls go on at the full rate" in logged
    assert "a community is held" not in logged, "they wait, but in no trouble of their own"


def test_records_that_are_given_back_use_up_no_limit(tmp_path: Path) -> None:
    groups = [community(n, "full1" if n < 4 else "") for n in range(12)]
    rows = [{"GroupId": group, "TopicName": f"topic {n}"} for n in range(8) for group in groups]
    with simulator("--quota", "0", "--latency", "0.02") as service:
        job = Job(tmp_path, service.url)
        done = job.backfill(job.write(rows), "--limit", "60", HTTP__MAX_IN_FLIGHT="4")
    assert done.returncode == 1, done.stdout.decode()
    report = job.report()
    assert (report["read"], report["queued"]) == (60, 0)
    assert (report["imported"], report["dead"]) == (4 * 1 + 8 * 5, 4 * 4)
