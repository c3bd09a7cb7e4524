"""Exports as they come, each imported by one command, without a script."""

import gzip
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.cases import CASES
from tests.support.processes import Job, Simulator, audit
from tests.support.topics import group, record

GROUP = group(1)
IN_GROUP = ("--set", f"GroupId={GROUP}")


def checked(job: Job, *words: Any, **settings: Any) -> tuple[int, dict[str, Any]]:
    done = job.run("check", *words, "--json", **settings)
    assert done.stdout, done.stderr.decode()
    return done.returncode, orjson.loads(done.stdout)


def topics(service: Simulator) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.ledger()["topics"]
    return sorted(found, key=lambda topic: str(topic["TopicName"]))


def test_a_slack_export_is_imported_as_it_comes(job: Job, service: Simulator) -> None:
    command = (CASES / "slack-channels.json", "--recipe", "slack", *IN_GROUP)
    assert job.backfill(*command).returncode == 0
    audit(job, service)
    assert {line["key"] for line in job.imported()} == {f"C0000000{n}" for n in range(4)}
    first = next(topic for topic in topics(service) if topic["TopicName"] == "general")
    assert first["Introduction"] == "For everyone"
    assert first["Notification"] == "Company news"
    assert first["CreateTime"] == 1_500_000_000


def test_options_map_what_no_recipe_does(offline_job: Job) -> None:
    words = ["--field", "name=TopicName", "--field", "created=CreateTime", "--key-field", "id"]
    path = CASES / "slack-channels.json"
    exit_code, found = checked(offline_job, path, *words, *IN_GROUP)
    assert (exit_code, found["valid"]) == (1, 0)
    assert "unknown field is_archived" in {one["message"] for one in found["problems"]}
    exit_code, found = checked(offline_job, path, *words, *IN_GROUP, "--ignore-unknown")
    assert (exit_code, found["valid"], found["communities"]) == (0, 4, 1)


def test_only_the_channels_of_a_bulk_export_are_read(job: Job, service: Simulator) -> None:
    path = CASES / "mattermost-bulk.jsonl"
    done = job.backfill(path, "--recipe", "mattermost", *IN_GROUP)
    assert done.returncode == 0
    assert b"skipped 4 records" in done.stdout
    report = job.report()
    assert (report["read"], report["imported"], report["skipped"]) == (2, 2, 4)
    assert {topic["TopicName"] for topic in topics(service)} == {"Authoring", "Futures"}
    _, found = checked(job, path, "--recipe", "mattermost", *IN_GROUP)
    assert (found["read"], found["valid"], found["skipped"]) == (2, 2, 4)
    done = job.run("enqueue", path, "--recipe", "mattermost", *IN_GROUP)
    assert b"skipped 4 records" in done.stdout


def test_channels_of_two_teams_with_one_name_are_two_topics(offline_job: Job) -> None:
    channel = {"name": "town-square", "display_name": "Town Square", "type": "O", "header": ""}
    lines = [{"type": "channel", "channel": {"team": team, **channel}} for team in ("red", "blue")]
    _, found = checked(offline_job, offline_job.write(lines), "--recipe", "mattermost", *IN_GROUP)
    assert (found["valid"], found["duplicate"]) == (2, 0)


@pytest.mark.parametrize(
    ("recipe", "name", "keys", "names"),
    [
        ("discord", "discord-channel.json", ["100000000000000002"], ["general"]),
        ("telegram", "telegram-forum.json", [2, 4], ["Plans", "Questions"]),
        ("zulip", "zulip-realm.json", [8, 9], ["general", "core team"]),
    ],
)
def test_each_recipe_reads_what_its_tool_writes(
    job: Job, recipe: str, name: str, keys: list[Any], names: list[str]
) -> None:
    done = job.backfill(CASES / name, "--recipe", recipe, *IN_GROUP)
    assert done.returncode == 0, done.stdout
    found = {line["key"]: line["topic_name"] for line in job.imported()}
    assert found == dict(zip(keys, names, strict=True))


def test_a_channel_without_a_name_is_refused(offline_job: Job) -> None:
    path = CASES / "stream-channels.json"
    exit_code, found = checked(offline_job, path, "--recipe", "stream", *IN_GROUP)
    assert (exit_code, found["valid"], found["invalid"]) == (1, 1, 1)
    (problem,) = found["problems"]
    assert problem == {"message": "TopicName is missing", "count": 1, "places": [f"{path}:2"]}


def test_an_unknown_recipe_is_refused_with_those_that_exist(offline_job: Job) -> None:
    done = offline_job.run("check", CASES / "slack-channels.json", "--recipe", "slak")
    assert done.returncode == 2
    assert b"one of discord, mattermost, slack, stream, telegram, zulip" in done.stderr


def test_a_file_that_powershell_wrote_is_read_by_its_mark(job: Job, service: Simulator) -> None:
    assert job.backfill(CASES / "utf-16.jsonl").returncode == 0
    assert [topic["TopicName"] for topic in topics(service)] == [
        "Ankündigungen", "general", "产品讨论",
    ]  # fmt: skip


def test_nothing_of_an_archive_enters_the_queue(offline_job: Job) -> None:
    path = CASES / "slack-export.zip"
    for words in (("check", path), offline_job.backfill_words(path), ("enqueue", path)):
        done = offline_job.run(*words)
        assert done.returncode == 2
        assert f"{path}: a zip archive: unpack it (unzip {path})".encode() in done.stderr
    assert not offline_job.out.exists()
    done = offline_job.backfill("-", stdin=path.read_bytes())
    assert done.returncode == 2
    assert b"-: a zip archive" in done.stderr


@pytest.mark.parametrize(
    ("form", "valid"), [("seconds", 5), ("milliseconds", 6), ("iso8601", 2), ("auto", 7)]
)
def test_times_are_read_as_the_export_writes_them(offline_job: Job, form: str, valid: int) -> None:
    path = CASES / "times-of-six-exports.jsonl"
    _, found = checked(offline_job, path, RECORDS__CREATE_TIME=form)
    assert found["valid"] == valid, found["problems"]


def test_a_table_of_a_spreadsheet_is_read(job: Job, service: Simulator) -> None:
    path = job.directory / "topics.csv"
    path.write_bytes(
        f"\ufeffid;GroupId;TopicName;Introduction;CreateTime\r\n"
        f'1;{GROUP};general;"two\r\nlines";1500000000\r\n'
        f"\r\n2;{GROUP};plans;;\r\n3;#NAME?;x;;\r\n4;{GROUP};short\r\n".encode()
    )
    done = job.backfill(path, "--key-field", "id")
    assert done.returncode == 1
    audit(job, service)
    assert [topic.get("Introduction") for topic in topics(service)] == ["two\r\nlines", None]
    assert {line["source"] for line in job.imported()} == {f"{path}:2", f"{path}:5"}
    first, second = job.dead()
    assert "a spreadsheet took the @ of the ID for a formula" in first["message"]
    assert first["source"] == f"{path}:6"
    assert "the row has 3 cells, the header has 5" in second["message"]
    assert job.backfill(path, "--key-field", "id").returncode == 1
    assert job.report()["read"] == 4, "read once"


def test_an_export_in_another_encoding_is_named(offline_job: Job) -> None:
    path = offline_job.directory / "topics.csv"
    path.write_bytes(f"GroupId,TopicName\n{GROUP},Käse\n".encode("cp1252"))
    done = offline_job.run("check", path)
    assert done.returncode == 1
    assert b'name its encoding, for example records.encoding = "cp1252"' in done.stdout
    exit_code, found = checked(offline_job, path, RECORDS__ENCODING="cp1252")
    assert (exit_code, found["valid"]) == (0, 1)


def test_patterns_and_several_inputs_are_read(offline_job: Job) -> None:
    for number in range(3):
        offline_job.write([record(number)], f"part-{number}.jsonl")
    (offline_job.directory / "other.csv").write_text(f"GroupId,TopicName\n{GROUP},a\n")
    exit_code, found = checked(offline_job, "part-*.jsonl", "other.csv")
    assert (exit_code, found["read"]) == (0, 4)
    done = offline_job.run("check", "none-*.jsonl")
    assert done.returncode == 2
    assert b"none-*.jsonl: No such file" in done.stderr


def test_a_list_in_an_object_needs_its_path(offline_job: Job) -> None:
    path = offline_job.directory / "export.json"
    path.write_bytes(
        orjson.dumps({"users": [], "channels": [record(1)]}, option=orjson.OPT_INDENT_2)
    )
    done = offline_job.run("check", path)
    assert done.returncode == 2
    assert b"name it with records.path (it holds users, channels)" in done.stderr
    exit_code, found = checked(offline_job, path, RECORDS__PATH="channels")
    assert (exit_code, found["valid"]) == (0, 1)
    done = offline_job.run("check", path, RECORDS__PATH="rooms")
    assert done.returncode == 2
    assert b"there is no list at records.path rooms" in done.stderr


def test_a_dead_letter_of_a_mapped_record_is_mapped_again(job: Job, service: Simulator) -> None:
    path = CASES / "slack-channels.json"
    words = ("--recipe", "slack", *IN_GROUP)
    job.backfill(path, *words, RECORDS__LIMITS__TOPIC_NAME="8", RECORDS__ON_TOO_LONG="reject")
    assert len(job.dead()) == 2
    done = job.backfill(job.out / "dead-letter.jsonl", *words)
    assert done.returncode == 0, done.stderr
    assert len(topics(service)) == 4
    audit(job, service)


def test_another_mapping_of_a_job_is_told_before_it_is_used(job: Job, service: Simulator) -> None:
    path = job.write([{"id": 1, "name": "plans", "topic": "all"}, {"id": 2, "topic": "none"}])
    words = ("--field", "name=TopicName", "--key-field", "id", *IN_GROUP)
    job.backfill(path, *words, "--ignore-unknown")
    assert job.report()["imported"] == 1
    done = job.backfill(path, "--field", "topic=Introduction", *words)
    assert b"this job was run with other settings (records.fields)" in done.stderr
    assert b"records that were read stay as they were mapped then" in done.stderr
    assert [topic.get("Introduction") for topic in topics(service)] == [None]
    again = job.backfill(path, "--field", "topic=Introduction", *words)
    assert b"other settings" not in again.stderr
    copy = job.write([{"id": 1, "name": "plans", "topic": "all"}], "copy.jsonl")
    job.backfill(copy, "--field", "topic=Introduction", *words)
    assert job.dead()[-1]["reason"] == "conflict"


def test_letters_of_a_mapped_job_are_replayed_with_its_mapping(
    job: Job, service: Simulator
) -> None:
    words = ("--recipe", "slack", *IN_GROUP)
    path = CASES / "slack-channels.json"
    job.backfill(path, *words, RECORDS__LIMITS__TOPIC_NAME="8", RECORDS__ON_TOO_LONG="reject")
    done = job.run("replay", "--reason", "invalid", *words)
    assert b"2 dead letters put back into the queue" in done.stdout
    assert f"topic-import backfill --recipe slack --set 'GroupId={GROUP}'".encode() in done.stdout
    assert job.run("dismiss", "--reason", "rejected", *words).returncode == 1
    assert job.backfill(*words).returncode == 0
    assert len(topics(service)) == 4


def test_the_plan_says_how_long_it_takes_and_what_to_type(offline_job: Job) -> None:
    rows = [record(number) for number in range(600)]
    path = offline_job.write(rows)
    found = orjson.loads(offline_job.run("check", path, "--places=7", "--json").stdout)
    assert found["seconds_at_quota"] == 3.0
    output = offline_job.run("check", path, "--places", "7").stdout.decode()
    assert "600 topics in 20 communities, 30.0 each; 3 s at 200 calls a second\n" in output
    assert f"next: topic-import backfill {path}\n" in output
    dry = offline_job.run("backfill", path, "--dry-run")
    assert dry.returncode == 0
    assert dry.stdout.decode() == output


def test_an_empty_file_is_said_to_be_empty(offline_job: Job) -> None:
    path = offline_job.write([b""])
    output = offline_job.run("check", path).stdout.decode()
    assert f"warning: {path} is empty: it holds no record\n" in output


def test_json_lists_no_more_places_than_asked_for(offline_job: Job) -> None:
    path = offline_job.write([record(n, TopicName="x" * 31) for n in range(200)])
    for words, places in (((), 100), (("--places", "3"), 3), (("--places", "1000"), 200)):
        _, found = checked(offline_job, path, *words)
        (problem,) = found["problems"]
        assert (problem["count"], len(problem["places"])) == (200, places)


def test_a_pipe_of_any_format_is_read(job: Job, service: Simulator) -> None:
    rows = [record(1), record(2)]
    for content in (orjson.dumps(rows), gzip.compress(orjson.dumps(rows))):
        assert job.backfill("-", stdin=content).returncode == 0
    assert len(topics(service)) == 2


def test_a_compressed_file_needs_no_certain_name(offline_job: Job, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"odd\xff")
    path.write_bytes(gzip.compress(orjson.dumps(record(1))))
    assert checked(offline_job, path)[1]["valid"] == 1
