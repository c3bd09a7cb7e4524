"""Validate all records and send nothing: find what a backfill would dead-letter unsent."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from worker.intake.reader import batches
from worker.intake.sources import InputError
from worker.jobs import Exit, print_json, print_result
from worker.jobs.embedded import dead_letters, throwaway_store
from worker.jobs.feeding import resolve_inputs
from worker.jobs.from_settings import record_rules
from worker.outputs.report import (
    COMMUNITY_TOPICS_MAX,
    crowded_dict,
    crowded_line,
    equal_names_message,
)
from worker.queues.sqlite.store import SqliteStore
from worker.rules.record import Record
from worker.rules.topic.grouping import PLACES_KEPT, MessageGroup, kind_of_message
from worker.rules.topic.oddities import (
    NO_EQUAL_NAMES,
    SENTENCES,
    EqualNames,
    Oddity,
    name_oddity,
    time_oddity,
)
from worker.rules.topic.topic import Topic
from worker.settings.model import Settings

PLACES_SHOWN = 5
KINDS_KEPT = 200
CONFLICTS = "another record has the same TopicId with other content"
OTHERS = "problems of other kinds"


@dataclass(slots=True)
class _Groups:
    """Problems, or warnings, by their kind."""

    by_kind: dict[str, MessageGroup] = field(default_factory=dict)

    def add(self, kind: str, message: str, place: str, *, summary: str | None = None) -> None:
        if kind not in self.by_kind and len(self.by_kind) >= KINDS_KEPT:
            kind = message = OTHERS
        group = self.by_kind.setdefault(kind, MessageGroup(message, summary))
        group.add(message, place)

    def in_json(self) -> list[dict[str, Any]]:
        return [
            {"message": group.message, "count": group.count, "places": group.places}
            for group in self.by_kind.values()
        ]

    def lines(self, prefix: str = "") -> list[str]:
        lines: list[str] = []
        for group in sorted(self.by_kind.values(), key=lambda group: -group.count):
            shown = ", ".join(group.places[:PLACES_SHOWN])
            more = group.count - PLACES_SHOWN
            rest = f" and {more:,} more (--json lists them)" if more > 0 else ""
            lines += [f"{prefix}{group.count:,} x {group.message}", f"    {shown}{rest}"]
        return lines


@dataclass(frozen=True, slots=True)
class _Findings:
    """What was found in all inputs."""

    totals: dict[str, int]
    cut: int
    problems: _Groups
    warnings: _Groups
    equal_names: EqualNames
    crowded: list[tuple[str, int]]


def check(settings: Settings, inputs: list[str], *, as_json: bool) -> Exit:
    """Put the records into a queue that is thrown away, and print what it refused.

    Returns PROBLEMS if there is one. Raises UsageError for an input that cannot be opened.
    """
    sources = resolve_inputs(inputs)
    rules = record_rules(settings)
    problems, warnings = _Groups(), _Groups()
    with throwaway_store() as store:
        for source in sources:
            try:
                for batch in batches(source, rules, settings.records.max_line_bytes):
                    store.put(batch)
                    _gather_oddities(batch, time.time(), warnings)
            except InputError as error:
                problems.add(str(error), str(error), source.name)
        _gather_problems(dead_letters(store), problems)
        findings = _findings(store, problems, warnings)
    if as_json:
        print_json(_in_json(findings))
    else:
        print_result(*_lines(findings))
    return Exit.PROBLEMS if problems.by_kind else Exit.DONE


def _gather_problems(lines: Iterable[bytes], problems: _Groups) -> None:
    """Add the problems that dead letters name."""
    for line in lines:
        letter = orjson.loads(line)
        source, message = letter["source"], letter["message"]
        if letter["reason"] != "invalid":
            problems.add("conflict", message, source, summary=CONFLICTS)
            continue
        for problem in message.split("; "):
            problems.add(kind_of_message(problem), problem, source)


def _gather_oddities(records: list[Record], now_s: float, warnings: _Groups) -> None:
    """Add what is odd about valid records."""
    for record in records:
        if not isinstance(record.topic, Topic):
            continue
        create_time = orjson.loads(record.topic.body).get("CreateTime")
        for oddity in (name_oddity(record.topic.name), time_oddity(create_time, now_s)):
            if oddity is not None:
                warnings.add(oddity, SENTENCES[oddity], record.source)


def _findings(store: SqliteStore, problems: _Groups, warnings: _Groups) -> _Findings:
    counts = store.counts()
    cut = store.queued_cut()
    equal_names = store.equal_names() if cut else NO_EQUAL_NAMES
    if equal_names.names:
        places = [place for name in equal_names.examples for place in name.sources][:PLACES_KEPT]
        warnings.by_kind[Oddity.NAMES_EQUAL] = MessageGroup(
            equal_names_message(equal_names), count=equal_names.topics, places=places
        )
    return _Findings(
        totals={
            "read": counts.read,
            "valid": counts.queued,
            "invalid": counts.dead,
            "duplicate": counts.duplicate,
        },
        cut=cut,
        problems=problems,
        warnings=warnings,
        equal_names=equal_names,
        crowded=store.crowded_communities(COMMUNITY_TOPICS_MAX),
    )


def _in_json(findings: _Findings) -> dict[str, Any]:
    content: dict[str, Any] = {
        **findings.totals,
        "cut": findings.cut,
        "problems": findings.problems.in_json(),
        "warnings": findings.warnings.in_json(),
    }
    if findings.equal_names.names:
        content["equal_names"] = asdict(findings.equal_names)
    if findings.crowded:
        content["crowded_communities"] = crowded_dict(findings.crowded)
    return content


def _lines(findings: _Findings) -> list[str]:
    lines = [*findings.problems.lines(), *findings.warnings.lines("warning: ")]
    if findings.crowded:
        lines.append(crowded_line(findings.crowded))
    if findings.cut:
        lines.append(f"of the valid, {findings.cut:,} have a value that is cut to fit")
    totals = findings.totals
    lines.append(
        f"read {totals['read']:,} = valid {totals['valid']:,} + invalid {totals['invalid']:,} "
        f"+ duplicate {totals['duplicate']:,}"
    )
    return lines
