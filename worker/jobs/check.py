"""Validate everything, send nothing: what a backfill would dead-letter before its first call."""

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from worker.intake.reader import batches
from worker.intake.sources import InputError
from worker.jobs import Exit, parts, say
from worker.outputs.report import COMMUNITY_TOPICS_MAX, crowded_dict, crowded_line
from worker.queues.sqlite.store import SqliteStore
from worker.settings.model import Settings

PLACES_SHOWN = 5
PLACES_KEPT = 1000
KINDS_KEPT = 200
PAGE = 1000
_NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class Problem:
    """Problems of one kind: an example, how many, and where."""

    example: str
    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.places) < PLACES_KEPT:
            self.places.append(place)


def check(settings: Settings, inputs: list[str], *, as_json: bool) -> Exit:
    """Put the records into a queue that is thrown away, and tell what it refused.

    Raises UsageError for an input that cannot be opened.
    """
    sources = parts.resolve_inputs(inputs)
    rules = parts.record_rules(settings)
    problems: dict[str, Problem] = {}
    with tempfile.TemporaryDirectory(prefix="topic-import-check-") as directory:
        store = SqliteStore(Path(directory) / "queue.sqlite3", synchronous="OFF")
        try:
            for source in sources:
                try:
                    for batch in batches(source, rules, settings.records.max_line_bytes):
                        store.put(batch)
                except InputError as error:
                    problems.setdefault(str(error), Problem(str(error))).add(source.name)
            _gather(store, problems)
            counts = store.counts()
            crowded = store.crowded_communities(COMMUNITY_TOPICS_MAX)
        finally:
            store.close()
    totals = {
        "read": counts.read,
        "valid": counts.queued,
        "invalid": counts.dead,
        "duplicate": counts.duplicate,
    }
    _print(totals, list(problems.values()), crowded, as_json=as_json)
    return Exit.PROBLEMS if problems else Exit.DONE


def _gather(store: SqliteStore, problems: dict[str, Problem]) -> None:
    seq = 0
    while rows := store.lines("dead", seq, PAGE):
        seq = rows[-1][0]
        for _, line in rows:
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
        say(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())
        return
    for problem in sorted(problems, key=lambda p: -p.count):
        shown = ", ".join(problem.places[:PLACES_SHOWN])
        more = problem.count - PLACES_SHOWN
        rest = f" and {more:,} more (--json lists them)" if more > 0 else ""
        say(f"{problem.count:,} x {problem.example}\n    {shown}{rest}")
    if crowded:
        say(crowded_line(crowded))
    say(
        f"read {totals['read']:,} = valid {totals['valid']:,} + invalid {totals['invalid']:,} "
        f"+ duplicate {totals['duplicate']:,}"
    )
