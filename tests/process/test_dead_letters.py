"""Records that become dead letters, and dead letters read again as input."""

from pathlib import Path
from typing import Any

from tests.support.processes import FAST_RETRY, Job, Simulator, audit, simulator
from tests.support.topics import record, records


def test_records_that_use_up_their_attempts_become_dead_letters(tmp_path: Path) -> None:
    with simulator("--quota", "0") as service:
        job = Job(tmp_path, service.url)
        failing = [{"GroupId": f"@TGS#_down-{n}", "TopicName": "alone"} for n in range(3)]
        mixed = [*records(100), *failing, *records(300)[100:]]
        done = job.backfill(
            job.write(mixed), "--rate", "400", RETRY__MAX_ATTEMPTS="2", **FAST_RETRY
        )
        assert done.returncode == 1
        letters = job.dead()
        assert {letter["reason"] for letter in letters} == {"exhausted"}
        assert len(letters) == 3
        assert all(letter["attempts"] >= 2 for letter in letters)
        assert job.report()["read"] == 303


def test_a_dead_letter_file_as_input_keeps_ids_and_sources(
    job: Job, service: Simulator, tmp_path: Path
) -> None:
    job.backfill(job.write([record(1, TopicName="forbidden", TopicId=None), b"{"]))
    (letter,) = (line for line in job.dead() if line["reason"] == "rejected")
    letter["record"]["TopicName"] = "allowed"
    letter["may_exist"] = True
    mended = job.write([letter], "mended.jsonl")
    assert job.backfill(mended).returncode == 1, "the broken line is still there"
    (line,) = job.imported()
    assert line["topic_id"] == letter["topic_id"]
    assert line["source"] == letter["source"]
    assert [line["raw"] for line in job.dead()] == ["{"]
    report = job.report()
    assert (report["read"], report["imported"], report["dead"]) == (2, 1, 1)
    audit(job, service)


def test_a_job_can_retry_its_own_dead_letters(job: Job, service: Simulator) -> None:
    job.backfill(job.write([record(1, TopicName="forbidden"), record(2)]))
    assert job.backfill(job.out / "dead-letter.jsonl").returncode == 1
    assert job.report()["calls"] == 1
    assert (job.report()["read"], job.report()["dead"]) == (2, 1)
    audit(job, service)


def test_dead_letters_edited_in_place_are_read_before_being_rebuilt(
    job: Job, service: Simulator
) -> None:
    path = job.write([record(1, TopicName="forbidden"), record(4, TopicName="forbidden")])
    job.backfill(path)
    letters = job.out / "dead-letter.jsonl"
    letters.write_bytes(letters.read_bytes().replace(b"forbidden", b"fine"))
    assert job.backfill("out/dead-letter.jsonl").returncode == 0
    assert job.report()["read"] == 2
    assert [line["topic_name"] for line in job.imported()] == ["fine", "fine"]
    assert job.backfill(path).returncode == 0, "the old lines are not read again"
    assert job.report()["read"] == 2
    audit(job, service)


def test_a_deeply_nested_value_becomes_a_dead_letter(job: Job, service: Simulator) -> None:
    deep = b'{"GroupId":"@TGS#_a","TopicName":"a","Type":' + b"[" * 300 + b"]" * 300 + b"}"
    assert job.backfill(job.write([deep, record(1)])).returncode == 1
    audit(job, service)
    letters = (job.out / "dead-letter.jsonl").read_bytes()
    (job.directory / "again.jsonl").write_bytes(letters)
    assert job.backfill("again.jsonl").returncode == 1
    audit(job, service)


def test_a_bad_account_rejects_the_record_instead_of_halting(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--fault", "60004=0.3") as service:
        job = Job(tmp_path, service.url)
        path = job.write([record(n, From_Account="somebody") for n in range(200)])
        # At this rate, a first success confirms the signature before the next call starts.
        done = job.backfill(path, "--rate", "400")
        assert done.returncode == 1, done.stdout
        report = job.report()
        assert report["by_reason"].keys() == {"rejected"}
        assert report["halted"] is None
        audit(job, service)


def test_faults_never_replace_a_topic_by_its_conflicting_record(tmp_path: Path) -> None:
    with simulator("--quota", "0", "--fault", "reset-after=0.3", "--fault", "10002=0.2") as service:
        job = Job(tmp_path, service.url)
        given: list[Any] = []
        for number in range(0, 120, 3):
            given += [record(number), record(number, TopicName="another")]
        path = job.write(given)
        fast = {"RETRY__BASE_DELAY": "0.01", "RETRY__MAX_ATTEMPTS": "50"}
        done = job.backfill(path, stdin=None, **fast)
        assert done.returncode == 1
        report = job.report()
        assert (report["imported"], report["by_reason"]) == (40, {"conflict": 40})
        names = {topic["TopicName"] for topic in service.ledger()["topics"]}
        assert "another" not in names
        audit(job, service)
