"""Reading lines as records, and dead letters as the records in them."""

import gzip
from pathlib import Path

import orjson
import pytest

from tests.support.strategies import GROUP
from worker.intake.formats.json_lines import Line
from worker.intake.reader import BATCH_RECORDS, batches, read
from worker.intake.sources import InputError, resolve
from worker.rules.outcome import DeadLetter, History, Reason
from worker.rules.record import Record, content_hash
from worker.rules.result_lines import Subject, dead_letter_line
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, Topic

RULES = RecordRules()
RAW = b'{"GroupId":"%s",  "TopicName":"a",\t"CreateTime":1}' % GROUP.encode()


def line(content: bytes, number: int = 1) -> Line:
    return Line(number, content, content_hash(content))


def letter(raw: bytes, source: str = "in/x.jsonl:17", *, may_exist: bool = True) -> bytes:
    topic_id = f"{GROUP}@TOPIC#_fixed"
    subject = Subject(source, None, GROUP, topic_id, raw=raw, is_object=raw.startswith(b"{"))
    history = History(may_exist=may_exist)
    return dead_letter_line(
        subject, DeadLetter(1, Reason.EXHAUSTED, None, "message", "hint", history)
    ).strip()


def test_a_dead_letter_is_read_as_its_original_record() -> None:
    record = read("out/dead-letter.jsonl", line(letter(RAW)), RULES)
    assert (record.path, record.line) == ("in/x.jsonl", 17)
    assert (record.raw, record.content_hash) == (RAW, content_hash(RAW))
    assert record.asked_again
    assert record.may_exist
    assert isinstance(record.topic, Topic)
    assert record.topic.topic_id == f"{GROUP}@TOPIC#_fixed"


def test_a_dead_letter_edited_by_hand_is_a_mended_record() -> None:
    edited = orjson.loads(letter(RAW))
    edited["record"]["TopicName"] = "b"
    moved = {"record": edited.pop("record"), **edited}
    record = read("x", line(orjson.dumps(moved, option=orjson.OPT_INDENT_2)), RULES)
    assert isinstance(record.topic, Topic)
    assert record.topic.name == "b"
    assert record.content_hash != content_hash(RAW)


def test_a_dead_letter_without_object_is_read_from_its_raw_text() -> None:
    assert isinstance(read("x", line(letter(b"[")), RULES).topic, InvalidRecordError)
    mended = orjson.loads(letter(b"["))
    mended["raw"] = RAW.decode()
    assert isinstance(read("x", line(orjson.dumps(mended)), RULES).topic, Topic)


def test_a_dead_letter_without_source_gets_its_current_position() -> None:
    record = read("x", line(letter(RAW, source="nowhere"), 5), RULES)
    assert (record.path, record.line) == ("x", 5)


def read_all(path: Path) -> list[Record]:
    found: list[Record] = []
    for batch in batches(resolve(str(path)), RULES, 1000):
        found += batch
    return found


def test_batches_have_a_maximum_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes((RAW + b"\n") * 1000)
    sizes = [len(batch) for batch in batches(resolve(str(path)), RULES, 1000)]
    assert sum(sizes) == 1000
    assert max(sizes) == BATCH_RECORDS


def test_an_overlong_line_is_invalid_and_reading_continues(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 5_000_000 + b"\n" + RAW)
    long_one, sound = read_all(path)
    assert "5000000 bytes, too long" in str(long_one.topic)
    assert isinstance(sound.topic, Topic)
    assert sound.line == 2


def test_a_truncated_gzip_file_yields_complete_lines_then_an_error(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl.gz"
    lines = b"".join(b'{"n":%d}\n' % n for n in range(20_000))
    path.write_bytes(gzip.compress(lines)[:-200])
    found: list[Record] = []
    with pytest.raises(InputError, match="gzip file is cut off"):
        for batch in batches(resolve(str(path)), RULES, 1000):
            found += batch
    assert [record.raw for record in found[:2]] == [b'{"n":0}', b'{"n":1}']
    assert all(record.raw.endswith(b"}") for record in found), "no torn line is a record"


def test_a_gzip_name_with_other_content_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(RAW)
    with pytest.raises(InputError, match="not a sound gzip file"):
        read_all(path)


def test_an_input_that_disappears_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(RAW)
    source = resolve(str(path))
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        list(batches(source, RULES, 1000))


def test_lines_appended_during_a_read_are_left_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(RAW + b"\n")
    source = resolve(str(path))
    with path.open("ab") as file:
        file.write(RAW + b"\n")
    assert sum(len(batch) for batch in batches(source, RULES, 1000)) == 1
