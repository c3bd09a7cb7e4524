"""Mistakes of a user: one clear sentence, exit 2, nothing started."""

import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.processes import ROOT, Job
from tests.support.topics import record
from worker import __version__


def refused(job: Job, *words: str | Path, **settings: Any) -> str:
    done = job.run(*words, **settings)
    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert not (job.out / "queue.sqlite3").exists(), "something was started"
    return said


URL = ("--base-url", "http://127.0.0.1:9")


def test_a_missing_input_is_named(lonely_job: Job) -> None:
    said = refused(lonely_job, "backfill", "no.jsonl", "nor-this.jsonl", *URL)
    assert "no.jsonl: No such file or directory" in said
    assert "nor-this.jsonl: No such file or directory" in said


def test_a_directory_is_no_input(lonely_job: Job) -> None:
    assert "Is a directory" in refused(lonely_job, "backfill", ".", *URL)


def test_a_format_that_is_not_read_is_said(lonely_job: Job) -> None:
    path = lonely_job.write([record(1)], "topics.csv")
    assert "CSV is not read by this version" in refused(lonely_job, "backfill", path, *URL)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"APP__SECRET_KEY": ""}, "no key: set TOPIC_IMPORT_APP__SECRET_KEY"),
        ({"APP__SDK_APP_ID": ""}, "app.sdk_app_id is not set"),
        ({"APP__SDK_APP_ID": "abc"}, "TOPIC_IMPORT_APP__SDK_APP_ID: app.sdk_app_id"),
        ({"RATE__CALL_PER_SECOND": "1"}, "unknown setting rate.call_per_second"),
        ({"RATE__SHARED": "http://x"}, "rate.shared: must be a URL like redis://"),
        ({"QUEUE__URL": "redis://x/abc"}, "queue.url: must be a URL like redis://"),
        ({"QUEUE__URL": "redis://x"}, "for a queue in Redis use `topic-import enqueue`"),
        ({"QUEUE__URL": "sqlite:///other/queue.sqlite3"}, "the embedded queue of this job is"),
        ({"APP__SECRET_KEY": "", "APP__SECRET_KEY_FILE": "none.key"}, "none.key: No such file"),
        ({"HTTP__CA_FILE": "topics.jsonl"}, "no certificates in it"),
        ({"HTTP__CA_FILE": "none.pem"}, "none.pem: No such file"),
    ],
)
def test_settings_that_cannot_work_are_named(
    lonely_job: Job, settings: dict[str, Any], said: str
) -> None:
    path = lonely_job.write([record(1)])
    assert said in refused(lonely_job, "backfill", path, *URL, **settings)


@pytest.mark.parametrize("name", ["QUEUE__URL", "RATE__SHARED"])
@pytest.mark.parametrize("sign", ["/", "#", "?", "["])
def test_no_part_of_a_password_is_told_where_a_url_cannot_be_taken_apart(
    lonely_job: Job, name: str, sign: str
) -> None:
    settings = {name: f"redis://:hunter2{sign}tail@127.0.0.1:9/0"}
    said = refused(lonely_job, "enqueue", lonely_job.write([record(1)]), **settings)
    assert "must be a URL like redis://host:6379/0; in its password / is written %2F" in said
    assert "hunter2" not in said
    assert "tail" not in said


def test_an_option_of_redis_that_there_is_not_is_said(lonely_job: Job) -> None:
    lonely_job.write([record(1)])
    for command in (["enqueue", "topics.jsonl"], ["status"], ["replay"]):
        said = refused(lonely_job, *command, QUEUE__URL="redis://127.0.0.1:9?foo=hunter2")
        assert "queue.url: " in said
        assert "foo" in said
        assert "hunter2" not in said


def test_the_version_is_printed(lonely_job: Job) -> None:
    done = lonely_job.run("--version")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"topic-import {__version__}\n"


def test_no_host_is_said(lonely_job: Job) -> None:
    path = lonely_job.write([record(1)])
    assert "no host: set app.region" in refused(lonely_job, "backfill", path)


@pytest.mark.parametrize("url", ["127.0.0.1:9", "http://", "ftp://x", "https://u:p@x"])
def test_a_malformed_url_is_said(lonely_job: Job, url: str) -> None:
    path = lonely_job.write([record(1)])
    assert "app.base_url" in refused(lonely_job, "backfill", path, "--base-url", url)


def test_plain_http_goes_no_further_than_this_machine(lonely_job: Job) -> None:
    path = lonely_job.write([record(1)])
    said = refused(lonely_job, "backfill", path, "--base-url", "http://192.0.2.1")
    assert "app.allow_http" in said


def test_an_out_that_cannot_be_written_is_said(lonely_job: Job) -> None:
    path = lonely_job.write([record(1)])
    (lonely_job.directory / "file").touch()
    said = refused(lonely_job, "backfill", path, *URL, "--out", "file/out")
    assert "--out file/out: Not a directory" in said
    said = refused(lonely_job, "backfill", path, *URL, "--out", "/proc/out")
    assert "--out /proc/out" in said


def test_nothing_to_import_is_said(lonely_job: Job) -> None:
    assert "nothing to import" in refused(lonely_job, "backfill", *URL)


def test_a_mistyped_option_and_command_are_refused(lonely_job: Job) -> None:
    refused(lonely_job, "backfill", "--limits", "3")
    refused(lonely_job, "back-fill")
    refused(lonely_job, "backfill", "x.jsonl", "--limit", "0")
    refused(lonely_job, "backfill", "x.jsonl", "--log-level", "loud")
    refused(lonely_job, "simulate", "--fault", "10002")
    refused(lonely_job, "simulate", "--fault", "tea=0.1")
    refused(lonely_job, "explain", "abc")


def test_a_file_that_is_no_queue_is_left_alone(lonely_job: Job) -> None:
    lonely_job.out.mkdir()
    queue = lonely_job.out / "queue.sqlite3"
    queue.write_bytes(b"my precious notes" * 100)
    done = lonely_job.backfill(lonely_job.write([record(1)]))
    assert done.returncode == 3
    assert b"not a database" in done.stderr
    assert queue.read_bytes() == b"my precious notes" * 100


def test_check_names_every_problem_with_its_place_and_sends_nothing(lonely_job: Job) -> None:
    path = lonely_job.write(
        [record(1), record(2, TopicName="x" * 31), record(4, TopicName="x" * 40), b"{", record(1)]
    )
    done = lonely_job.run("check", path, APP__SDK_APP_ID="", APP__SECRET_KEY="")
    said = done.stdout.decode()
    assert done.returncode == 1
    assert "2 x TopicName has 31 bytes" in said
    assert f"{path}:2, {path}:3" in said
    assert "read 5 = valid 1 + invalid 3 + duplicate 1" in said
    done = lonely_job.run("check", path, "--json")
    problems = orjson.loads(done.stdout)["problems"]
    assert sum(problem["count"] for problem in problems) == 3
    assert not lonely_job.out.exists()


def test_check_of_a_sound_file_is_0(lonely_job: Job) -> None:
    assert lonely_job.run("check", lonely_job.write([record(1)])).returncode == 0
    assert refused(lonely_job, "check", "none.jsonl")


def test_explain_tells_one_code_and_all(lonely_job: Job) -> None:
    said = lonely_job.run("explain", "10021").stdout.decode()
    assert "topic ID in use" in said
    table = lonely_job.run("explain").stdout.decode().splitlines()
    assert len(table) > 80
    as_json = orjson.loads(lonely_job.run("explain", "10002", "--json").stdout)
    assert (as_json["verdict"], as_json["ambiguous"]) == ("retry", True)
    assert lonely_job.run("explain", "424242").returncode == 0


def test_commands_that_need_no_service_start_without_its_libraries(lonely_job: Job) -> None:
    code = (
        "import sys, worker.cli; sys.exit(any(m in sys.modules for m in ('aiohttp', 'pydantic')))"
    )
    command = [lonely_job.command()[0], "-c", code]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == 0
