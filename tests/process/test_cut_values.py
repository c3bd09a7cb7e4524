"""A backfill that cuts texts: what the service gets, what the results and the report say."""

from typing import Any

from tests.support.cases import CASES
from tests.support.processes import Job, Simulator
from tests.support.topics import record

CUTTING: dict[str, Any] = {"RECORDS__ON_TOO_LONG": "truncate"}
LATER_S = 2**32 - 1


def test_links_and_data_are_refused_and_equal_names_are_named(job: Job) -> None:
    done = job.backfill(CASES / "links-and-json-to-cut.jsonl", **CUTTING)
    assert done.returncode == 1
    report = job.report()
    assert (report["imported"], report["dead"], report["cut"]) == (2, 2, 2)
    assert report["warnings"] == {"topic_names_equal_by_cutting": 2}
    (example,) = report["equal_names"]["examples"]
    assert example["topic_name"] == "engineering-backend-services-e"
    output = done.stdout.decode()
    assert "of the imported, 2 have a value that was cut to fit" in output
    assert "warning: 2 x TopicName became equal to another one of its community" in output
    assert {letter["message"] for letter in job.dead()} == {
        "FaceUrl has 162 bytes of UTF-8, 100 are allowed",
        "CustomString has 4029 bytes of UTF-8, 3000 are allowed",
    }


def test_names_are_cut_between_what_people_see_as_characters(job: Job, service: Simulator) -> None:
    done = job.backfill(CASES / "names-to-cut.jsonl", **CUTTING)
    assert done.returncode == 0
    assert sorted(line["topic_name"] for line in job.imported()) == sorted(
        ["团队讨论", "Caf\xe9 " + "e\u0301" * 8, "Thai กี่กี่", "Plans 👍🏽👍🏽👍🏽"]
    )
    assert all(line["truncated"] == ["TopicName"] for line in job.imported())
    assert job.report()["cut"] == 4
    assert job.status()["agree"]


def test_odd_times_are_warnings_of_the_report(job: Job) -> None:
    times = [0, 0, 1, LATER_S, 1_500_000_000]
    rows = [record(number, CreateTime=create_time) for number, create_time in enumerate(times)]
    done = job.backfill(job.write(rows))
    assert done.returncode == 0, "a warning, not a problem"
    assert job.report()["warnings"] == {
        "create_time_zero": 2,
        "create_time_before_2000": 1,
        "create_time_in_future": 1,
    }
    assert b"warning: 2 x CreateTime is 0" in done.stdout
    assert job.status()["agree"]


def test_names_with_nothing_to_see_are_dead_letters(job: Job, service: Simulator) -> None:
    assert job.backfill(CASES / "blank-names.jsonl").returncode == 1
    assert len(job.dead()) == 5
    assert service.ledger()["calls"] == 0
