"""Which communities' queued records a choice of `dismiss` reaches."""

from pathlib import Path

import orjson
import pytest

from worker.jobs.communities_reached import communities_reached
from worker.jobs.engine import Choice
from worker.rules.communities import Trouble

HELD = {
    "full 2": Trouble.FULL.value,
    "full 1": Trouble.FULL.value,
    "without topics": Trouble.NO_TOPICS.value,
    "failing": Trouble.FAILURES.value,
}


@pytest.mark.parametrize(
    ("choice", "groups"),
    [
        (Choice(group="any"), ["any"]),
        (Choice(group="any", source="topics.jsonl"), ["any"]),
        (Choice(group="any", reason="rejected"), []),
        (Choice(source="topics.jsonl"), []),
        (Choice(code=10037), ["full 1", "full 2"]),
        (Choice(code=10037, group="full 2"), ["full 2"]),
        (Choice(code=10037, group="failing"), []),
        (Choice(code=10037, reason="rejected"), []),
        (Choice(code=11000), ["without topics"]),
        (Choice(code=10010), []),
        (Choice(code=10015), []),
        (Choice(code=10002), []),
    ],
)
def test_a_code_reaches_what_was_held_for_it(
    tmp_path: Path, choice: Choice, groups: list[str]
) -> None:
    (tmp_path / "report.json").write_bytes(orjson.dumps({"held": HELD}))
    assert communities_reached(choice, tmp_path) == groups


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"held": 1}'])
def test_without_a_report_a_code_reaches_nothing_queued(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    assert communities_reached(Choice(code=10037), tmp_path) == []
