"""Show what an error code means and what the worker does about it."""

import sys
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from worker.jobs import Exit, print_columns, print_json, print_result
from worker.rules.codes import AT_THE_DOOR, CODES, Action, Code, lookup
from worker.rules.streaks import GATEWAY_REFUSALS

UNKNOWN_AT_THE_DOOR = "; ten in a row without a success between, or 20 s of them, halt the run"
UNKNOWN_ELSEWHERE = "; ten in a row with the same code halt it while nothing was imported"
HTTP_STATUSES = range(100, 600)
_WHAT_HAPPENS = {
    Action.IMPORTED: "the record is settled as imported",
    Action.EXISTS: "imported, if only we can have made it (a derived TopicId, or an earlier "
    "call whose reply never arrived); else a conflict, or what records.on_existing says",
    Action.RETRY: "the record waits (exponential back-off, full jitter) and is tried again",
    Action.THROTTLED: "the whole worker slows down; the record is tried again, no attempt counted",
    Action.RENEW: "a new signature for all in flight; tried again, no attempt counted",
    Action.REJECT: "the record is dead-lettered as rejected",
    Action.HALT: "the run halts (exit 3), all records are kept; a person must act",
    Action.HOLD: "the community is held: its records wait, and others are imported first; the "
    "record is dead-lettered once others show that it is the community's own trouble, else the "
    "run halts",
    Action.UNKNOWN: "tried again like a passing failure, then dead-lettered as exhausted",
}


def explain(code: int | None, *, as_json: bool) -> Exit:
    """Print one code or the whole table."""
    if code is not None and code in HTTP_STATUSES:
        return _explain_status(code, as_json=as_json)
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


def _explain_status(status: int, *, as_json: bool) -> Exit:
    """Print that this is an HTTP status, and what the worker does with it."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "not registered"
    meaning = f"an HTTP status ({phrase}), not an error code of the service"
    happens = _what_a_status_does(status)
    if as_json:
        facts = {"code": status, "meaning": meaning, "verdict": "http", "what_happens": happens}
        print_json(facts)
    else:
        print_result(f"{status}: {meaning}", f"what happens: {happens}")
    return Exit.DONE


def _what_a_status_does(status: int) -> str:
    if status == HTTPStatus.OK:
        return "every answer of the service has it; the code in the body says what it means"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return (
            "nothing was done: the whole worker pauses, for as long as Retry-After says where it "
            "is given"
        )
    if status in GATEWAY_REFUSALS:
        return (
            "the call never reached the service; it is tried again, and ten in a row halt the run: "
            "check app.base_url, app.path and the proxy"
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return (
            "a gateway answered in place of the service, and the topic may have been made: the "
            "record waits (back-off, or Retry-After) and is tried again; so many records in a row "
            "are an outage"
        )
    return "a gateway answered in place of the service: the record waits and is tried again"


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
    if entry.action is Action.UNKNOWN:
        text += UNKNOWN_AT_THE_DOOR if entry.code in AT_THE_DOOR else UNKNOWN_ELSEWHERE
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
