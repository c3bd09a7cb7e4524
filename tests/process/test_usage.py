"""Usage mistakes: one clear sentence, exit code 2, nothing started."""

import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.processes import ROOT, Job
from tests.support.topics import record
from worker import __version__


def refused(job: Job, *words: str | Path, **settings: Any) -> str:
    """Assert that the command refuses to start. Returns its error output."""
    done = job.run(*words, **settings)
    output = done.stderr.decode()
    assert done.returncode == 2, output
    assert "Traceback" not in output
    assert not (job.out / "queue.sqlite3").exists(), "something was started"
    return output


URL = ("--base-url", "http://127.0.0.1:9")


def test_every_missing_input_is_named(offline_job: Job) -> None:
    output = refused(offline_job, "backfill", "no.jsonl", "nor-this.jsonl", *URL)
    assert "no.jsonl: No such file or directory" in output
    assert "nor-this.jsonl: No such file or directory" in output


def test_a_directory_is_refused_as_input(offline_job: Job) -> None:
    output = refused(offline_job, "backfill", "..", *URL)
    assert "..: a directory: name its files, for example '../*.jsonl'" in output


def test_a_database_is_refused_with_the_command_that_exports_it(offline_job: Job) -> None:
    path = offline_job.write([b"SQLite format 3\0"], "topics.db")
    assert f"sqlite3 -json {path}" in refused(offline_job, "backfill", path, *URL)


@pytest.mark.parametrize(
    ("settings", "message"),
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
def test_unusable_settings_are_named(
    offline_job: Job, settings: dict[str, Any], message: str
) -> None:
    path = offline_job.write([record(1)])
    assert message in refused(offline_job, "backfill", path, *URL, **settings)


@pytest.mark.parametrize("name", ["QUEUE__URL", "RATE__SHARED"])
@pytest.mark.parametrize("sign", ["/", "#", "?", "["])
def test_a_malformed_url_error_prints_no_part_of_the_password(
    offline_job: Job, name: str, sign: str
) -> None:
    settings = {name: f"redis://:hunter2{sign}tail@127.0.0.1:9/0"}
    output = refused(offline_job, "enqueue", offline_job.write([record(1)]), **settings)
    assert "must be a URL like redis://host:6379/0; in its password / is written %2F" in output
    assert "hunter2" not in output
    assert "tail" not in output


def test_an_unknown_redis_option_is_named(offline_job: Job) -> None:
    offline_job.write([record(1)])
    for command in (["enqueue", "topics.jsonl"], ["status"], ["replay"]):
        output = refused(offline_job, *command, QUEUE__URL="redis://127.0.0.1:9?foo=hunter2")
        assert "queue.url: " in output
        assert "foo" in output
        assert "hunter2" not in output


def test_the_version_is_printed(offline_job: Job) -> None:
    done = offline_job.run("--version")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"topic-import {__version__}\n"


def test_a_missing_host_is_reported(offline_job: Job) -> None:
    path = offline_job.write([record(1)])
    assert "no host: set app.region" in refused(offline_job, "backfill", path)


@pytest.mark.parametrize("url", ["127.0.0.1:9", "http://", "ftp://x", "https://u:p@x"])
def test_a_malformed_base_url_is_reported(offline_job: Job, url: str) -> None:
    path = offline_job.write([record(1)])
    assert "app.base_url" in refused(offline_job, "backfill", path, "--base-url", url)


def test_plain_http_to_another_machine_is_refused(offline_job: Job) -> None:
    path = offline_job.write([record(1)])
    output = refused(offline_job, "backfill", path, "--base-url", "http://192.0.2.1")
    assert "app.allow_http" in output


def test_an_unwritable_output_directory_is_reported(offline_job: Job) -> None:
    path = offline_job.write([record(1)])
    (offline_job.directory / "file").touch()
    output = refused(offline_job, "backfill", path, *URL, "--out", "file/out")
    assert "--out file/out: Not a directory" in output
    output = refused(offline_job, "backfill", path, *URL, "--out", "/proc/out")
    assert "--out /proc/out" in output


def test_a_backfill_without_input_is_refused(offline_job: Job) -> None:
    assert "nothing to import" in refused(offline_job, "backfill", *URL)


def test_mistyped_options_and_commands_are_refused(offline_job: Job) -> None:
    refused(offline_job, "backfill", "--limits", "3")
    refused(offline_job, "back-fill")
    refused(offline_job, "backfill", "x.jsonl", "--limit", "0")
    refused(offline_job, "backfill", "x.jsonl", "--log-level", "loud")
    refused(offline_job, "simulate", "--fault", "10002")
    refused(offline_job, "simulate", "--fault", "tea=0.1")
    refused(offline_job, "explain", "abc")


def test_a_file_that_is_not_a_queue_stays_unchanged(offline_job: Job) -> None:
    offline_job.out.mkdir()
    queue = offline_job.out / "queue.sqlite3"
    queue.write_bytes(b"my precious notes" * 100)
    done = offline_job.backfill(offline_job.write([record(1)]))
    assert done.returncode == 3
    assert b"not a database" in done.stderr
    assert queue.read_bytes() == b"my precious notes" * 100


def test_check_lists_every_problem_with_its_position(offline_job: Job) -> None:
    path = offline_job.write(
        [record(1), record(2, TopicName="x" * 31), record(4, TopicName="x" * 40), b"{", record(1)]
    )
    done = offline_job.run("check", path, APP__SDK_APP_ID="", APP__SECRET_KEY="")
    output = done.stdout.decode()
    assert done.returncode == 1
    assert "2 x TopicName has 31 to 40 bytes of UTF-8, 30 are allowed" in output
    assert f"{path}:2, 3\n" in output
    assert "read 5 = valid 1 + invalid 3 + duplicate 1" in output
    done = offline_job.run("check", path, "--json")
    problems = orjson.loads(done.stdout)["problems"]
    assert sum(problem["count"] for problem in problems) == 3
    assert "TopicName has 31 to 40 bytes of UTF-8, 30 are allowed" in {
        problem["message"] for problem in problems
    }
    assert not offline_job.out.exists()


def test_check_of_a_valid_file_exits_with_0(offline_job: Job) -> None:
    assert offline_job.run("check", offline_job.write([record(1)])).returncode == 0
    assert refused(offline_job, "check", "none.jsonl")


def test_explain_describes_one_code_or_all(offline_job: Job) -> None:
    output = offline_job.run("explain", "10021").stdout.decode()
    assert "topic ID in use" in output
    table = offline_job.run("explain").stdout.decode().splitlines()
    assert len(table) > 80
    as_json = orjson.loads(offline_job.run("explain", "10002", "--json").stdout)
    assert (as_json["verdict"], as_json["ambiguous"]) == ("retry", True)
    assert offline_job.run("explain", "424242").returncode == 0


def test_offline_commands_do_not_import_the_http_libraries(offline_job: Job) -> None:
    code = (
        "import sys, worker.cli; sys.exit(any(m in sys.modules for m in ('aiohttp', 'pydantic')))"
    )
    command = [offline_job.command()[0], "-c", code]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == 0
