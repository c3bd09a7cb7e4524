"""Show what an error code means and what the worker does about it."""

import sys
from dataclasses import asdict
from typing import Any

from worker.jobs import Exit, print_columns, print_json, print_result
from worker.rules.codes import CODES, Action, Code, lookup

_WHAT_HAPPENS = {
    Action.IMPORTED: "the record is settled as imported",
    Action.EXISTS: "imported, if only we can have made it (a derived TopicId, or an earlier "
    "call whose reply never arrived); else a conflict, or what records.on_existing says",
    Action.RETRY: "the record waits (exponential back-off, full jitter) and is tried again",
    Action.THROTTLED: "the whole worker slows down; the record is tried again, no attempt counted",
    Action.RENEW: "a new signature for all in flight; tried again, no attempt counted",
    Action.REJECT: "the record is dead-lettered as rejected",
    Action.HALT: "the run halts (exit 3), all records are kept; a person must act",
    Action.UNKNOWN: "tried again like a passing failure, then dead-lettered as exhausted",
}


def explain(code: int | None, *, as_json: bool) -> Exit:
    """Print one code or the whole table."""
    entries = list(CODES.values()) if code is None else [lookup(code)]
    if as_json:
        content: Any = [_as_dict(entry) for entry in entries]
        shown = content if code is None else content[0]
        print_json(shown)
    elif code is None:
        _print_table(entries)
    else:
        print_result(*_lines(entries[0]))
    return Exit.DONE


def _as_dict(entry: Code) -> dict[str, Any]:
    facts = asdict(entry)
    return {
        "code": facts.pop("code"),
        "meaning": facts.pop("meaning"),
        "verdict": facts.pop("action").value,
        "what_happens": _what_happens(entry),
        **facts,
    }


def _what_happens(entry: Code) -> str:
    text = _WHAT_HAPPENS[entry.action]
    if entry.once:
        text += "; if that does not help the run halts"
    if entry.tries:
        text += f"; after {entry.tries} tries it is dead-lettered as rejected"
    if entry.pauses_s:
        pauses = ", ".join(f"{pause_s:g}" for pause_s in entry.pauses_s)
        text += f"; no calls for {pauses} s while it lasts"
    if entry.halt_after_pauses:
        text += ", then the run halts"
    return text


def _lines(entry: Code) -> list[str]:
    lines = [
        f"{entry.code}: {entry.meaning}",
        f"verdict: {entry.action.value}: {_what_happens(entry)}",
        f"hint: {entry.hint}",
    ]
    if entry.ambiguous:
        lines.append("ambiguous: the topic may have been made although the call failed")
    return lines


def _print_table(entries: list[Code]) -> None:
    if not sys.stdout.isatty():
        columns = (
            (e.code, e.action.value, "ambiguous" if e.ambiguous else "", e.meaning, e.hint)
            for e in sorted(entries, key=lambda e: e.code)
        )
        print_columns(*columns)
        return
    from rich.console import Console  # noqa: PLC0415 - paid only where there is a terminal
    from rich.table import Table  # noqa: PLC0415

    table = Table("code", "verdict", "may exist", "meaning", "hint")
    for entry in sorted(entries, key=lambda e: e.code):
        table.add_row(
            str(entry.code),
            entry.action.value,
            "yes" if entry.ambiguous else "",
            entry.meaning,
            entry.hint,
        )
    Console().print(table, markup=False)
