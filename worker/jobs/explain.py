"""Show what error codes, HTTP statuses and reasons mean, and what the worker does about them."""

import sys
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from worker.jobs import Exit, UsageError, print_blocks, print_columns, print_json
from worker.logs import is_drawable
from worker.rules.codes import AT_THE_DOOR, CODES, Action, Code, lookup
from worker.rules.halts import HaltCode
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


_REASONS = {
    "invalid": (
        "a dead letter: the record cannot be sent as it is, and no call was made for it",
        "correct the line that `source` names, or the settings (records.*), and run the same "
        "command again; `topic-import check` shows every problem of a file",
    ),
    "rejected": (
        "a dead letter: the service refused the record, and says why by `code` and `message`; of a "
        "run: so many records in a row were refused that the mapping looks wrong",
        "`topic-import explain CODE` says what helps; after that, topic-import replay --code CODE",
    ),
    "exhausted": (
        "a dead letter: retry.max_attempts calls for the record failed while others were answered, "
        "or its community was held for longer than retry.patience",
        "see `code` and `message` for the last failure; topic-import replay --reason exhausted "
        "tries again (`may_exist`: the topic may be there already, which is found out then)",
    ),
    "conflict": (
        "a dead letter: its TopicId belongs to another topic, with other content",
        "give one of the two another TopicId, or no TopicId; if what exists is as good, set "
        'records.on_existing = "skip", then topic-import replay --reason conflict',
    ),
    HaltCode.STORAGE.value: (
        "a run halted: the queue or a result file cannot be read or written",
        "make room on the disk, or mend what the summary names; the same command continues",
    ),
    HaltCode.OUTAGE.value: (
        "a run halted: no call succeeded for as long as retry.patience allows, or the service was "
        "never reached",
        "`topic-import doctor` finds out why; the same command continues",
    ),
    HaltCode.INPUT.value: (
        "a run halted: an input cannot be read to its end",
        "replace the file that the summary names; the same command continues",
    ),
    HaltCode.DEFECT.value: (
        "a run halted: the program itself failed",
        "report it with the log; nothing is lost, and the same command continues",
    ),
}
"""Words that results and summaries hold in place of a code: what each means, and what helps."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of the explained entries are shown: those that match everything that is given.

    `verdict`: the first word of a verdict. `text`: a part of what is shown, in any case.
    """

    verdict: str | None = None
    text: str | None = None

    def matches(self, entry: "_Entry") -> bool:
        """Return whether an entry is shown."""
        has_verdict = self.verdict in {None, entry.verdict.partition(" ")[0]}
        shown = " ".join(entry.cells).casefold()
        return has_verdict and (self.text or "").casefold() in shown


@dataclass(frozen=True, slots=True)
class _Entry:
    """One thing that is explained: its cells in the table, its lines alone, its facts as JSON."""

    verdict: str
    cells: tuple[str, str, str, str, str]
    lines: tuple[str, ...]
    facts: dict[str, Any]


def explain(words: list[str], shown_if: Filter, *, as_json: bool) -> Exit:
    """Print what codes, HTTP statuses and reasons mean; without any, the table of all codes.

    Raises UsageError for a word that is none of these.
    """
    codes = sorted(CODES.values(), key=lambda code: code.code)
    entries = [_entry(word) for word in words] if words else [_of_code(code) for code in codes]
    shown = [entry for entry in entries if shown_if.matches(entry)]
    if as_json:
        facts = [entry.facts for entry in shown]
        print_json(facts[0] if len(words) == len(facts) == 1 else facts)
    elif words:
        print_blocks(*(entry.lines for entry in shown))
    else:
        _print_table(shown)
    return Exit.DONE


def _entry(word: str) -> _Entry:
    if word in _REASONS:
        meaning, help_ = _REASONS[word]
        lines = (f"{word}: {meaning}", f"what helps: {help_}")
        facts = {"reason": word, "meaning": meaning, "hint": help_}
        return _Entry("", (word, "", "", meaning, help_), lines, facts)
    try:
        code = int(word)
    except ValueError:
        raise UsageError(
            f"{word}: neither a code nor an HTTP status, nor one of {', '.join(_REASONS)}"
        ) from None
    return _of_status(code) if code in HTTP_STATUSES else _of_code(lookup(code))


def _of_code(code: Code) -> _Entry:
    verdict = code.action.value
    cells = (
        str(code.code), verdict, "yes" if code.ambiguous else "", code.meaning, code.hint,
    )  # fmt: skip
    return _Entry(verdict, cells, tuple(_lines(code)), _as_dict(code))


def _of_status(status: int) -> _Entry:
    """Return that this is an HTTP status, and what the worker does with it."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "not registered"
    meaning = f"an HTTP status ({phrase}), not an error code of the service"
    happens = _what_a_status_does(status)
    facts = {"code": status, "meaning": meaning, "verdict": "http", "what_happens": happens}
    lines = (f"{status}: {meaning}", f"what happens: {happens}")
    return _Entry("http", (str(status), "http", "", meaning, happens), lines, facts)


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


def _print_table(entries: list[_Entry]) -> None:
    header = ("code", "verdict", "may exist", "meaning", "hint")
    if not is_drawable(sys.stdout):
        print_columns(header, *(entry.cells for entry in entries))
        return
    from rich.console import Console  # noqa: PLC0415 - paid only where there is a terminal
    from rich.table import Table  # noqa: PLC0415

    table = Table(*header)
    for entry in entries:
        table.add_row(*entry.cells)
    Console().print(table, markup=False)
