"""What `report.json` and the summary hold of cut values and of warnings."""

from typing import Any

import orjson
import pytest

from worker.outputs.report import Report, summary
from worker.rules.counts import Counters, Counts
from worker.rules.topic.oddities import NO_EQUAL_NAMES, EqualName, EqualNames

EQUAL = EqualNames(
    names=7,
    topics=15,
    examples=tuple(
        EqualName("@TGS#_a", f"name {number}", 2, (f"a.jsonl:{number}", f"b.jsonl:{number}"))
        for number in range(7)
    ),
)


def report_of(counts: Counts, equal_names: EqualNames = NO_EQUAL_NAMES) -> Report:
    return Report(
        counts=counts,
        counters=Counters(calls=1),
        quota_per_s=200.0,
        seconds=1.0,
        started=0.0,
        ended=1.0,
        equal_names=equal_names,
    )


def content_of(report: Report) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads(report.as_json())
    return content


def test_a_report_without_oddities_has_empty_warnings() -> None:
    content = content_of(report_of(Counts(read=1, imported=1)))
    assert (content["cut"], content["warnings"]) == (0, {})
    assert "create_time_zero" not in content
    assert "equal_names" not in content
    assert not [line for line in summary(report_of(Counts())) if "warning" in line]


def test_warnings_stand_in_the_report_by_kind() -> None:
    counts = Counts(read=9, imported=9, cut=4, create_time_zero=2, create_time_before_2000=1)
    report = report_of(counts, EQUAL)
    content = content_of(report)
    assert content["cut"] == 4
    assert content["warnings"] == {
        "create_time_zero": 2,
        "create_time_before_2000": 1,
        "topic_names_equal_by_cutting": 15,
    }
    assert content["equal_names"]["examples"][0] == {
        "group_id": "@TGS#_a",
        "topic_name": "name 0",
        "topics": 2,
        "sources": ["a.jsonl:0", "b.jsonl:0"],
    }


def test_the_summary_names_what_was_cut_and_what_is_odd() -> None:
    counts = Counts(read=9, imported=9, cut=4, create_time_in_future=1200)
    lines = summary(report_of(counts, EQUAL))
    assert (
        "of the imported, 4 have a value that was cut to fit (`truncated` in imported.jsonl)"
        in (lines)
    )
    assert "warning: 1,200 x CreateTime is in the future" in lines
    (equal,) = (line for line in lines if "became equal" in line)
    assert equal.startswith("warning: 15 x TopicName became equal to another one of its community")
    assert '"name 0" 2 in @TGS#_a' in equal
    assert equal.endswith("and 2 more")


@pytest.mark.parametrize("names", [1, 5])
def test_a_few_equal_names_are_all_shown(names: int) -> None:
    equal = EqualNames(names, 2 * names, EQUAL.examples[:names])
    (line,) = (line for line in summary(report_of(Counts(), equal)) if "became equal" in line)
    assert line.count("@TGS#_a") == names
    assert "more" not in line
