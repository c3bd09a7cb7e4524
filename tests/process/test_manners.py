"""How commands behave to those who type them: help, settings, completion, plain terminals."""

import os
import pty
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.support.processes import KEY, ROOT, Job, Simulator, environment
from tests.support.topics import records
from worker.manual import PAGES


def test_the_list_of_commands_is_whole_sentences_in_80_columns(offline_job: Job) -> None:
    said = offline_job.run("--help").stdout.decode()
    assert max(map(len, said.splitlines())) <= 80
    for name, page in PAGES.items():
        assert any(line.split() == [name, *page.sentence.split()] for line in said.splitlines())


@pytest.mark.parametrize("name", PAGES)
def test_the_help_of_a_command_stands_alone(offline_job: Job, name: str) -> None:
    said = offline_job.run(name, "--help").stdout.decode()
    for example in PAGES[name].examples:
        assert f"\n    {example}\n" in said
    assert "Exit codes:" in said
    assert "Settings it reads: " in said
    for option in ("--config", "--log-format", "--log-level", "--quiet"):
        assert option in said


def test_help_loads_nothing_that_it_does_not_show(offline_job: Job) -> None:
    heavy = ("aiohttp", "pydantic", "rich", "structlog", "redis", "sqlite3", "asyncio")
    code = (
        "import sys, worker.cli as cli\n"
        "sys.argv = ['topic-import', '--help']\n"
        "try: cli.main()\n"
        f"finally: print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [offline_job.command()[0], "-c", code], capture_output=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, b"[]\n")


def test_settings_shows_values_and_where_they_come_from(offline_job: Job) -> None:
    file = offline_job.directory / "topic-import.toml"
    file.write_text(
        '[app]\nregion = "seoul"\n[records]\nkey_field = "id"\n[records.fields]\nt = "TopicName"\n'
        '[queue]\nurl = "redis://:hunter2@127.0.0.1:9"\n'
    )
    done = offline_job.run("settings", "--json", "--rate", "5", "--base-url", "https://x.example")
    assert done.returncode == 0
    assert KEY.encode() not in done.stdout
    assert b"hunter2" not in done.stdout
    shown = orjson.loads(done.stdout)
    assert shown["file"] == "topic-import.toml"
    assert len(shown["settings"]) > 40
    expected = {
        "app.sdk_app_id": (1400000000, "environment", "TOPIC_IMPORT_APP__SDK_APP_ID"),
        "app.secret_key": ("set", "environment", "TOPIC_IMPORT_APP__SECRET_KEY"),
        "app.admin": ("administrator", "default", None),
        "app.base_url": ("https://x.example", "option", "--base-url"),
        "app.region": (None, "default", "replaced by app.base_url"),
        "rate.calls_per_second": (5.0, "option", "--rate"),
        "records.key_field": ("id", "file", "topic-import.toml:4"),
        "records.fields": ({"t": "TopicName"}, "file", "topic-import.toml:6"),
        "queue.url": ("set", "file", "topic-import.toml:8"),
    }
    for name, (value, source, place) in expected.items():
        assert shown["settings"][name] == {"value": value, "from": source, "place": place}, name


def test_settings_names_what_is_missing(offline_job: Job) -> None:
    done = offline_job.run("settings", APP__SDK_APP_ID="", APP__SECRET_KEY="")
    assert done.returncode == 0
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert rows[0] == ["settings file: none was read"]
    assert rows[1] == ["setting", "value", "from"]
    assert ["app.sdk_app_id", "missing", "required"] in rows
    assert ["app.region", "missing", "required or app.base_url"] in rows
    wrong = offline_job.run("settings", RATE__X="1")
    assert wrong.returncode == 2, "as in every other command"


def test_two_alternatives_in_one_source_are_wrong_in_every_command(offline_job: Job) -> None:
    done = offline_job.run("status", APP__REGION="china", APP__BASE_URL="https://x.example")
    assert done.returncode == 2
    assert b"app.region and app.base_url are set: exactly one may be" in done.stderr


def test_quiet_logs_nothing_but_errors(tmp_path: Path, service: Simulator) -> None:
    job = Job(tmp_path, service.url)
    (tmp_path / "topic-import.toml").write_text("[rate]\ncalls_per_second = 500\n")
    words = ("backfill", job.write(records(3)), "--base-url", service.url)
    loud, quiet = job.run(*words, "--out", "a"), job.run(*words, "--out", "b", "--quiet")
    assert b"rate.calls_per_second is 500" in loud.stderr
    assert (quiet.returncode, quiet.stderr) == (0, b"")
    assert b"imported 3" in quiet.stdout


def test_the_shell_completes_commands(offline_job: Job) -> None:
    completing = {
        "_TOPIC_IMPORT_COMPLETE": "complete_bash", "COMP_WORDS": "topic-import ba",
        "COMP_CWORD": "1",
    }  # fmt: skip
    done = subprocess.run(
        [ROOT / ".venv/bin/topic-import"],
        env=environment() | completing, capture_output=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.split() == [b"backfill"]


@pytest.mark.parametrize("terminal", ["dumb", "xterm"])
def test_a_terminal_that_cannot_draw_gets_plain_lines(
    tmp_path: Path, service: Simulator, terminal: str
) -> None:
    job = Job(tmp_path, service.url)
    words = ("backfill", job.write(records(30)), "--base-url", service.url, "--rate", "60")
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        job.command(*words), env=environment() | {"TERM": terminal}, cwd=tmp_path,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:
        pass  # the program closed the terminal
    assert running.wait(timeout=60) == 0
    os.close(ours)
    assert (b"\x1b" in shown) is (terminal == "xterm")


def test_explain_takes_codes_reasons_and_statuses(offline_job: Job) -> None:
    said = offline_job.run("explain", "10010", "exhausted", "502").stdout.decode()
    for part in ("10010: group missing", "exhausted: a dead letter", "502: an HTTP status"):
        assert part in said
    facts = orjson.loads(offline_job.run("explain", "10010", "conflict", "--json").stdout)
    assert [fact.get("code", fact.get("reason")) for fact in facts] == [10010, "conflict"]
    wrong = offline_job.run("explain", "teapot")
    assert wrong.returncode == 2
    assert b"teapot: neither a code nor an HTTP status, nor one of invalid" in wrong.stderr


def test_the_table_of_codes_has_a_header_and_can_be_filtered(offline_job: Job) -> None:
    def rows(*words: str) -> list[list[str]]:
        said = offline_job.run("explain", *words).stdout.decode()
        return [line.split("\t") for line in said.splitlines()]

    assert rows()[0] == ["code", "verdict", "may exist", "meaning", "hint"]
    assert {row[1] for row in rows("--verdict", "hold")[1:]} == {"hold the community"}
    assert [row[0] for row in rows("--find", "DATA CENTRES")[1:]] == ["60026"]
    assert rows("--verdict", "hold", "--find", "clock")[1:] == []
    assert offline_job.run("explain", "--verdict", "tea").returncode == 2
