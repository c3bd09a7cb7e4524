"""`check` names what is wrong, what is odd, and what cutting does."""

import subprocess
import time
from typing import Any

import orjson
import pytest

from tests.support.cases import CASES
from tests.support.processes import ROOT, Job
from tests.support.topics import record


def checked(job: Job, path: Any, **settings: Any) -> tuple[int, dict[str, Any]]:
    done = job.run("check", path, "--json", **settings)
    return done.returncode, orjson.loads(done.stdout)


def test_names_with_nothing_to_see_are_problems(offline_job: Job) -> None:
    exit_code, found = checked(offline_job, CASES / "blank-names.jsonl")
    assert (exit_code, found["valid"], found["invalid"]) == (1, 0, 5)
    messages = [problem["message"] for problem in found["problems"]]
    assert "TopicName has nothing that people can see, only U+200B" in messages


def test_a_group_of_problems_shows_its_own_range(offline_job: Job) -> None:
    path = CASES / "names-to-cut.jsonl"
    output = offline_job.run("check", path).stdout.decode()
    assert "4 x TopicName has 36 to 50 bytes of UTF-8, 30 are allowed" in output
    _, found = checked(offline_job, path)
    (problem,) = found["problems"]
    assert problem["message"] == "TopicName has 36 to 50 bytes of UTF-8, 30 are allowed"
    assert len(problem["places"]) == 4


def test_conflicts_are_one_group(offline_job: Job) -> None:
    topic_id = {"TopicId": "@TGS#_a@TOPIC#_1"}
    rows = [{"GroupId": "@TGS#_a", "TopicName": f"n{n}", **topic_id} for n in range(3)]
    _, found = checked(offline_job, offline_job.write(rows))
    (problem,) = found["problems"]
    assert problem["count"] == 2
    assert "has the same TopicId with other content" in problem["message"]


def test_a_duplicate_is_named_with_the_record_that_it_doubles(offline_job: Job) -> None:
    first = offline_job.write([record(1), record(2)], "a.jsonl")
    second = offline_job.write([record(4), b"", record(2), record(4)], "b.jsonl")
    done = offline_job.run("check", first, second, first)
    assert done.returncode == 0
    output = done.stdout.decode()
    assert "2 x the same record as an earlier one, sent once\n" in output
    assert f"    {second}:3 (as {first}:2), 4 (as {second}:1)\n" in output
    assert "read 5 = valid 3 + invalid 0 + duplicate 2" in output, "a.jsonl is read once"
    found = orjson.loads(offline_job.run("check", first, second, "--json").stdout)
    assert found["duplicates"][0] == {"place": f"{second}:3", "same_as": f"{first}:2"}


def test_what_cutting_does_is_counted_and_named(offline_job: Job) -> None:
    path = CASES / "links-and-json-to-cut.jsonl"
    cutting: dict[str, Any] = {"RECORDS__ON_TOO_LONG": "truncate"}
    exit_code, found = checked(offline_job, path, **cutting)
    assert (exit_code, found["valid"], found["invalid"], found["cut"]) == (1, 2, 2, 2)
    assert {problem["message"] for problem in found["problems"]} == {
        "FaceUrl has 162 bytes of UTF-8, 100 are allowed",
        "CustomString has 4029 bytes of UTF-8, 3000 are allowed",
    }
    (warning,) = found["warnings"]
    assert (warning["count"], len(warning["places"])) == (2, 2)
    assert '"engineering-backend-services-e" 2 in @TGS#_@TGS#c0000000001' in warning["message"]
    (example,) = found["equal_names"]["examples"]
    assert example["topic_name"] == "engineering-backend-services-e"
    output = offline_job.run("check", path, **cutting).stdout.decode()
    assert "warning: 2 x TopicName became equal to another one of its community" in output
    assert "of the valid, 2 have a value that is cut to fit" in output


def test_warnings_change_no_exit_code(offline_job: Job) -> None:
    later = int(time.time()) + 86_400
    times = [0, 0, 1, 946_684_799, 946_684_800, later]
    rows = [record(1 + 3 * n, CreateTime=create_time) for n, create_time in enumerate(times)]
    path = offline_job.write([*rows, record(2, TopicName=" general ")])
    exit_code, found = checked(offline_job, path)
    assert (exit_code, found["problems"]) == (0, [])
    assert {
        warning["message"].split(":")[0]: warning["count"] for warning in found["warnings"]
    } == {
        "CreateTime is 0, which is the year 1970": 2,
        "CreateTime is before the year 2000": 2,
        "CreateTime is in the future": 1,
        "TopicName begins or ends with white space, which is sent": 1,
    }
    output = offline_job.run("check", path).stdout.decode()
    assert f"warning: 1 x CreateTime is in the future\n    {path}:6\n" in output


@pytest.mark.parametrize("kinds", [3, 300])
def test_the_number_of_kinds_is_bounded(offline_job: Job, kinds: int) -> None:
    letters = [f"{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(kinds)]
    path = offline_job.write([record(n, **{f"zz{word}": 1}) for n, word in enumerate(letters)])
    _, found = checked(offline_job, path)
    assert len(found["problems"]) == min(kinds, 201)
    assert sum(problem["count"] for problem in found["problems"]) == kinds


def test_only_cutting_imports_the_segmenter(offline_job: Job) -> None:
    code = """
import sys
from worker.rules.topic.topic import RecordRules, to_topic
rules = RecordRules(truncate=True)
imported = []
for name in ("fits 👍🏽 话题", "x" * 31):
    to_topic({"GroupId": "@TGS#_a", "TopicName": name}, rules)
    imported.append("regex" in sys.modules)
sys.exit(imported != [False, True])
"""
    command = [offline_job.command()[0], "-c", code]
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == 0
