"""Malformed, changed and unusual inputs: every line is accounted for."""

import gzip
import os

import orjson

from tests.support.processes import Job, Simulator, audit
from tests.support.topics import group, record, records

HOSTILE = [
    b"\xef\xbb\xbf" + orjson.dumps(record(1)) + b"\r",
    b"",
    b"   \t \r",
    b"x" * 3000,
    b'{"GroupId":"\x00"}',
    b"\x00\x00\x00",
    b'{"GroupId":"@TGS#_a","GroupId":"@TGS#_b","TopicName":"twice"}',
    b'{"GroupId":"@TGS#_a","TopicName":"big","From_Account":123456789012345678901234567890}',
    b'{"GroupId":"@TGS#_a","TopicName":"late","CreateTime":99999999999999999999}',
    b"[" * 2000,
    b'{"a":' * 900 + b"1" + b"}" * 900,
    b'{"GroupId":"@TGS#_a","TopicName":"\\ud83d"}',
    b'{"GroupId":"@TGS#_a","TopicName":"\xff\xfe"}',
    b'"text"',
    orjson.dumps(record(2)) + b"\x00",
    orjson.dumps(record(4)),
]


def test_every_malformed_line_is_counted_once(job: Job, service: Simulator) -> None:
    path = job.directory / "hostile.jsonl"
    path.write_bytes(b"\n".join(HOSTILE))
    for _ in range(2):
        done = job.backfill(path, RECORDS__MAX_LINE_BYTES="2500")
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
    audit(job, service)
    report = job.report()
    assert (report["read"], report["imported"], report["dead"]) == (14, 2, 12)
    dead = {int(line["source"].rsplit(":")[-1]): line for line in job.dead()}
    assert dead.keys() == set(range(4, 16))
    assert "3000 bytes, too long" in dead[4]["message"]
    assert "GroupId stands more than once" in dead[7]["message"]
    assert "64 bits" in dead[8]["message"]
    assert {line["reason"] for line in dead.values()} == {"invalid"}
    assert all(("record" in line) != ("raw" in line) for line in dead.values())


def test_only_new_records_of_a_changed_or_moved_input_are_imported(
    job: Job, service: Simulator
) -> None:
    path = job.write([record(2), record(1), b"{"])
    job.backfill(path)
    job.write([record(2, TopicName="changed", TopicId=None), record(1), record(4), record(5)])
    assert job.backfill(path).returncode == 0
    report = job.report()
    assert (report["read"], report["imported"], report["dead"]) == (5, 5, 0)
    moved = path.rename(job.directory / "moved.jsonl")
    assert job.backfill(moved).returncode == 0
    report = job.report()
    assert (report["read"], report["imported"], report["duplicate"]) == (9, 5, 4)
    audit(job, service)


def test_a_file_given_twice_is_read_once(job: Job, service: Simulator) -> None:
    path = job.write(records(20))
    assert job.backfill(path, path).returncode == 0
    assert job.report()["read"] == 20
    audit(job, service)


def test_a_truncated_gzip_file_halts_after_its_readable_records(
    job: Job, service: Simulator
) -> None:
    path = job.write(records(3000), "a.jsonl.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    done = job.backfill(path)
    assert done.returncode == 3
    assert b"the gzip file is cut off" in done.stdout
    report = job.report()
    assert report["halted"]["code"] == "input"
    assert 0 < report["imported"] < 3000
    assert report["dead"] == 0
    path.write_bytes(gzip.compress(gzip.decompress(whole)))
    assert job.backfill(path).returncode == 0
    assert job.report()["imported"] == 3000
    audit(job, service)


def test_file_names_may_hold_any_bytes(job: Job, service: Simulator) -> None:
    for number, name in enumerate([b"a b:7.jsonl", "话题.jsonl".encode(), b"\xff\xfe.jsonl"]):
        (job.directory / os.fsdecode(name)).write_bytes(orjson.dumps(record(number)))
        done = job.backfill(os.fsdecode(name))
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
    sources = [line["source"] for line in job.imported()]
    assert sources == ["a b:7.jsonl:1", "话题.jsonl:1", "\\xff\\xfe.jsonl:1"]
    audit(job, service)


def test_a_named_pipe_is_read_completely(job: Job, service: Simulator) -> None:
    pipe = job.directory / "pipe"
    os.mkfifo(pipe)
    running = job.start(*job.backfill_words(pipe))
    with pipe.open("wb") as writing:
        writing.write(b"\n".join(orjson.dumps(r) for r in records(10)))
    running.communicate(timeout=30)
    assert running.returncode == 0
    audit(job, service)


def test_corrected_settings_make_invalid_records_importable(job: Job, service: Simulator) -> None:
    path = job.write([{"gid": group(1), "title": "general", "id": "k"}])
    assert job.backfill(path).returncode == 1
    fields = orjson.dumps({"gid": "GroupId", "title": "TopicName"}).decode()
    done = job.backfill(path, RECORDS__FIELDS=fields, RECORDS__KEY_FIELD="id")
    assert done.returncode == 0, done.stderr
    assert job.report()["read"] == 1
    audit(job, service)


def test_gzip_files_and_standard_input_are_read(job: Job, service: Simulator) -> None:
    packed = job.write([record(1), record(2)], "a.jsonl.gz")
    piped = b"\xef\xbb\xbf" + orjson.dumps(record(4)) + b"\r\n\n" + orjson.dumps(record(5))
    assert job.backfill(packed, "-", stdin=piped).returncode == 0
    assert {line["source"] for line in job.imported()} == {
        f"{packed}:1", f"{packed}:2", "-:1", "-:3",
    }  # fmt: skip
    audit(job, service)
