"""A line of `imported.jsonl` is read back, or is something else."""

from typing import Any

import orjson
import pytest

from worker.rules.outcome import Already
from worker.rules.result_lines import is_edit_of, read_imported_line

LINE: dict[str, Any] = {
    "source": "exports/topics.jsonl:17",
    "key": None,
    "group_id": "@TGS#_a",
    "topic_id": "@TGS#_a@TOPIC#_b",
    "topic_name": "n",
    "attempts": 1,
    "already": False,
    "truncated": [],
    "at": "2026-01-01T00:00:00.000Z",
}


def line(**changes: Any) -> bytes:
    return orjson.dumps(LINE | changes, option=orjson.OPT_APPEND_NEWLINE)


def test_a_line_names_its_topic_and_its_place() -> None:
    read = read_imported_line(line(already="own?", truncated=["TopicName"]))
    assert read is not None
    assert (read.topic_id, read.group_id) == ("@TGS#_a@TOPIC#_b", "@TGS#_a")
    assert (read.path, read.number) == ("exports/topics.jsonl", 17)
    assert (read.already, read.is_cut) == (Already.UNPROVEN, True)


@pytest.mark.parametrize(
    ("source", "path", "number"),
    [("-:3", "-", 3), ("a:b:4", "a:b", 4), ("no-line", "no-line", 0), (":5", ":5", 0),
     ("a:", "a:", 0), ("a:-1", "a:-1", 0), ("a:" + "9" * 19, "a:" + "9" * 19, 0)],
)  # fmt: skip
def test_the_place_is_the_path_before_the_last_colon(source: str, path: str, number: int) -> None:
    read = read_imported_line(line(source=source))
    assert read is not None
    assert (read.path, read.number) == (path, number)


@pytest.mark.parametrize(
    "content",
    [line()[:-1], line()[:40] + b"\n", b"a note\n", b"[]\n", b"3\n", b"\n", b"",
     line(topic_id=None), line(topic_id=""), line(topic_id=7), line(source=None),
     orjson.dumps({"topic_id": "a", "source": "b:1", "reason": "invalid"}) + b"\n"],
)  # fmt: skip
def test_a_torn_or_other_line_is_no_evidence(content: bytes) -> None:
    assert read_imported_line(content) is None


def test_a_line_without_community_time_or_kind_is_evidence() -> None:
    read = read_imported_line(line(group_id=None, at=None, already="later"))
    assert read is not None
    assert (read.group_id, read.at, read.already) == ("", None, Already.NO)


def test_an_edited_line_has_its_record_and_its_time() -> None:
    edited = read_imported_line(line(topic_id="other"))
    untimed = read_imported_line(line(at=None))
    assert edited is not None
    assert untimed is not None
    assert is_edit_of(edited, line())
    assert not is_edit_of(edited, line(at="2026-01-01T00:00:01.000Z"))
    assert not is_edit_of(edited, line(source="exports/topics.jsonl:18"))
    assert not is_edit_of(edited, b"a note\n")
    assert not is_edit_of(untimed, line(at=None))
