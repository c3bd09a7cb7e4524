"""The first ten minutes: what README and `make run` print works as it is printed."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import orjson
import pytest

from tests.support.processes import KEY, ROOT, Job, Simulator, environment
from tests.support.topics import records

SAMPLE = ROOT / "config/topics.sample.jsonl"
BIN = ROOT / ".venv/bin"
MAKE = ("make", "--no-print-directory", "--assume-old", ".venv/installed")
"""make, but the test installs nothing anew where a file of the installation was changed."""


def first_commands() -> list[str]:
    """Return the commands of README's first block, as they are printed."""
    block = (ROOT / "README.md").read_text().split("## Start\n")[1].split("\n\n")[0]
    return [line.strip() for line in block.splitlines()]


def in_shell(command: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command as it was pasted into a shell in which `.venv` is active."""
    env = environment(**settings) | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        ["/bin/sh", "-c", command], env=env, cwd=cwd, capture_output=True, text=True, check=False
    )


def fill_in(file: Path, url: str) -> None:
    """Do what a person does to the file that `init` wrote."""
    key = file.with_name("secret.key")
    key.write_text(f"{KEY}\n")
    key.chmod(0o600)
    text = file.read_text()
    text = text.replace("# sdk_app_id = 1400000000", "sdk_app_id = 1400000000")
    text = text.replace('# secret_key_file = "secret.key"', 'secret_key_file = "secret.key"')
    file.write_text(text.replace('# region = "singapore"', f'base_url = "{url}"'))


def test_the_first_commands_of_the_readme_work_as_printed(
    tmp_path: Path, service: Simulator
) -> None:
    install, *rest = first_commands()
    assert len(first_commands()) == 5
    installed = in_shell(install.replace("make", " ".join(MAKE), 1), ROOT)
    assert installed.returncode == 0, installed.stderr
    job = Job(tmp_path, service.url)
    job.write(records(5))
    nothing = {"APP__SDK_APP_ID": "", "APP__SECRET_KEY": ""}
    for command in rest:
        done = in_shell(command, tmp_path, **nothing)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        if command.startswith("topic-import init"):
            fill_in(tmp_path / "topic-import.toml", service.url)
    assert len(job.imported()) == service.ledger()["created"] == 5


def test_the_sample_is_valid_but_for_what_is_meant_to_be_refused(offline_job: Job) -> None:
    done = offline_job.run("check", SAMPLE, "--json")
    facts = orjson.loads(done.stdout)
    assert facts["valid"] >= 2000
    assert facts["invalid"] == sum(problem["count"] for problem in facts["problems"]) == 7


@pytest.mark.timeout(180)
def test_the_command_that_make_run_prints_works_when_pasted() -> None:
    done = in_shell(" ".join([*MAKE, "run"]), ROOT, APP__SDK_APP_ID="", APP__SECRET_KEY="")
    assert done.returncode == 0, done.stdout + done.stderr
    (command,) = re.findall(
        "^TOPIC_IMPORT_.* backfill .*sample-\\w+ --base-url .*$", done.stdout, re.MULTILINE
    )
    assert "imported 2,040 + dead 12 + duplicate 1" in done.stdout
    pasted = in_shell(command, ROOT, APP__SDK_APP_ID="", APP__SECRET_KEY="")
    assert pasted.returncode == 1, pasted.stderr
    assert "imported 2,040 + dead 12 + duplicate 1" in pasted.stdout
    # The last two lines make a service and import into it, here for fewer records.
    simulate, again = done.stdout.splitlines()[-2:]
    both = f"{simulate}\n{again} --limit 20; code=$?; kill $!; wait; exit $code"
    once_more = in_shell(both, ROOT, APP__SDK_APP_ID="", APP__SECRET_KEY="")
    assert once_more.returncode == 0, once_more.stderr
    assert "imported 20" in once_more.stdout
    for line in (command, again):
        shutil.rmtree(ROOT / line.partition(" --out ")[2].partition(" ")[0])


def test_init_writes_a_file_that_is_read_and_never_overwrites_one(
    tmp_path: Path, service: Simulator
) -> None:
    job = Job(tmp_path, service.url)
    rows = [
        {"group_id": r["GroupId"], "title": r["TopicName"], "id": n}
        for n, r in enumerate(records(4))
    ]
    path = job.write([*rows, {**rows[0], "title": "x" * 40, "id": 9}], "rooms.jsonl")
    done = job.run("init", path.name)
    assert done.returncode == 0, done.stderr
    assert b"topic-import check rooms.jsonl" in done.stdout
    file = tmp_path / "topic-import.toml"
    text = file.read_text()
    assert 'group_id = "GroupId"\ntitle = "TopicName"\n' in text
    assert 'key_field = "id"' in text
    assert "#   1 x TopicName has 40 bytes of UTF-8, 30 are allowed" in text
    checked = job.run("check", path.name)
    assert b"valid 4 + invalid 1" in checked.stdout
    assert b"settings were read" in checked.stderr
    assert b"topic-import.toml" in checked.stderr
    again = job.run("init", path.name)
    assert again.returncode == 2
    assert b"topic-import.toml is there already" in again.stderr
    assert file.read_text() == text
    assert job.backfill(path.name).returncode == 1
    assert {line["key"] for line in job.imported()} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("init", "none.jsonl"), "none.jsonl: No such file"),
        (("init", "empty.jsonl"), "records cannot be read"),
        (("init", "--config", "no/such.toml"), "no/such.toml: No such file or directory"),
    ],
)
def test_init_that_cannot_write_writes_nothing(
    offline_job: Job, words: tuple[str, ...], said: str
) -> None:
    offline_job.write([b"1", b"nothing"], "empty.jsonl")
    done = offline_job.run(*words)
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert [path.name for path in offline_job.directory.iterdir()] == ["empty.jsonl"]


def test_what_is_proposed_for_nested_records_is_toml(offline_job: Job) -> None:
    channel = {
        "id": "C1",
        "name": "general",
        "created_at": 1_600_000_000_000,
        "purpose": {"value": "For everyone"},
        'odd "name"': 1,
    }
    path = offline_job.write([channel], "channels.jsonl")
    assert offline_job.run("init", path.name).returncode == 0
    text = (offline_job.directory / "topic-import.toml").read_text()
    assert "#   1 x GroupId is missing" in text
    assert '# GroupId = "@TGS#_' in text
    assert tomllib.loads(text)["records"] == {
        "key_field": "id",
        "create_time": "milliseconds",
        "ignore": ['odd "name"'],
        "fields": {
            "name": "TopicName",
            "purpose.value": "Introduction",
            "created_at": "CreateTime",
        },
        "constants": {},
    }


def test_an_empty_proposal_shows_how_a_mapping_is_written(offline_job: Job) -> None:
    done = offline_job.run("init", "--config", "my.toml")
    assert done.returncode == 0
    assert b"topic-import doctor --config my.toml" in done.stdout
    assert "[records.fields]" in (offline_job.directory / "my.toml").read_text()
    assert offline_job.run("settings", "--config", "my.toml").returncode == 0


def test_a_mapping_is_proposed_for_the_list_in_a_document(offline_job: Job) -> None:
    zulip = {"zerver_stream": [{"id": 1, "name": "general", "description": "For everyone"}]}
    (offline_job.directory / "realm.json").write_bytes(
        orjson.dumps(zulip, option=orjson.OPT_INDENT_2)
    )
    refused = offline_job.run("init", "realm.json")
    assert refused.returncode == 2
    assert b"records.path" in refused.stderr
    done = offline_job.run("init", "realm.json", RECORDS__PATH="zerver_stream")
    assert done.returncode == 0, done.stderr
    text = (offline_job.directory / "topic-import.toml").read_text()
    assert 'path = "zerver_stream"\n' in text
    checked = offline_job.run("check", "realm.json", "--set", "GroupId=@TGS#_a")
    assert b"valid 1 + invalid 0" in checked.stdout
