"""Validate all records and send nothing: find what a backfill would dead-letter unsent."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from worker.intake.reader import batches
from worker.intake.sources import InputError
from worker.jobs import Exit, print_json, print_result
from worker.jobs.embedded import dead_letters, throwaway_store
from worker.jobs.feeding import resolve_inputs
from worker.jobs.from_settings import record_rules
from worker.outputs.report import COMMUNITY_TOPICS_MAX, crowded_dict, crowded_line
from worker.settings.model import Settings

PLACES_SHOWN = 5
PLACES_KEPT = 1000
KINDS_KEPT = 200
_NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class Problem:
    """Problems of one kind: an example, how many, and the first places (`path:line`)."""

    example: str
    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Count one more, at this place."""
        self.count += 1
        if len(self.places) < PLACES_KEPT:
            self.places.append(place)


def check(settings: Settings, inputs: list[str], *, as_json: bool) -> Exit:
    """Put the records into a queue that is thrown away, and print what it refused.

    Returns PROBLEMS if there is one. Raises UsageError for an input that cannot be opened.
    """
    sources = resolve_inputs(inputs)
    rules = record_rules(settings)
    problems: dict[str, Problem] = {}
    with throwaway_store() as store:
        for source in sources:
            try:
                for batch in batches(source, rules, settings.records.max_line_bytes):
                    store.put(batch)
            except InputError as error:
                problems.setdefault(str(error), Problem(str(error))).add(source.name)
        _gather(dead_letters(store), problems)
        counts = store.counts()
        crowded = store.crowded_communities(COMMUNITY_TOPICS_MAX)
    totals = {
        "read": counts.read,
        "valid": counts.queued,
        "invalid": counts.dead,
        "duplicate": counts.duplicate,
    }
    _print(totals, list(problems.values()), crowded, as_json=as_json)
    return Exit.PROBLEMS if problems else Exit.DONE


def _gather(lines: Iterator[bytes], problems: dict[str, Problem]) -> None:
    """Add the problems that dead letters name, by their kind: the message without its numbers."""
    for line in lines:
        letter = orjson.loads(line)
        for message in letter["message"].split("; "):
            kind = _NUMBER.sub("N", message) if letter["reason"] == "invalid" else "conflict"
            problem = problems.setdefault(kind, Problem(message))
            if len(problems) > KINDS_KEPT:
                del problems[kind]
                problem = problems.setdefault("", Problem("problems of other kinds"))
            problem.add(letter["source"])


def _print(
    totals: dict[str, int],
    problems: list[Problem],
    crowded: list[tuple[str, int]],
    *,
    as_json: bool,
) -> None:
    if as_json:
        content: dict[str, Any] = {
            **totals,
            "problems": [
                {"message": p.example, "count": p.count, "places": p.places} for p in problems
            ],
        }
        if crowded:
            content["crowded_communities"] = crowded_dict(crowded)
        print_json(content)
        return
    for problem in sorted(problems, key=lambda p: -p.count):
        shown = ", ".join(problem.places[:PLACES_SHOWN])
        more = problem.count - PLACES_SHOWN
        rest = f" and {more:,} more (--json lists them)" if more > 0 else ""
        print_result(f"{problem.count:,} x {problem.example}", f"    {shown}{rest}")
    if crowded:
        print_result(crowded_line(crowded))
    print_result(
        f"read {totals['read']:,} = valid {totals['valid']:,} + invalid {totals['invalid']:,} "
        f"+ duplicate {totals['duplicate']:,}"
    )
