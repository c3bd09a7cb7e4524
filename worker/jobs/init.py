"""Write a settings file to fill in, with a mapping that the first records of an input propose."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from worker.intake.opening import lines_of
from worker.intake.sources import InputError
from worker.job_directory import DEFAULT_OUT
from worker.jobs import Exit, UsageError, print_result
from worker.jobs.feeding import resolve_inputs
from worker.jobs.next_command import next_command
from worker.rules.proposal import Proposal, propose
from worker.rules.topic.json_record import parse_record
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.visible_text import visible
from worker.settings.loading import OWN_FILE
from worker.settings.model import REGIONS, Records, variable

SAMPLE_RECORDS = 1000
LINE_BYTES_MAX = 1 << 20
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
APP = f"""\
# Settings of topic-import. `topic-import settings` shows what is in force, and where it comes from;
# `topic-import doctor` finds what is wrong with it. A # before a setting leaves it at its default.

[app]
# sdk_app_id = 1400000000  # required: the number of the app in the console
# region = "singapore"  # required: {", ".join(REGIONS)}
# secret_key_file = "secret.key"  # required: a file that holds the app's key and nothing else, or
#   instead of it the key itself in the environment: {variable("app", "secret_key")}
# admin = "administrator"  # the account that calls; it must be an administrator of the app
"""
NO_INPUT = """
[records]
# key_field = "id"  # your records' own key: with it a record that changed is found as a conflict

[records.fields]
# title = "TopicName"  # your name of a field = its name in the API
"""


def init(path: str | None, config: Path | None, records: Records) -> Exit:
    """Write the file. `path`: the input, None for no mapping. `config`: the file to write.

    `records`: where its records are in the input, and in which encoding, as far as that is set.

    Raises UsageError if the file is there already or cannot be written, or if the input holds no
    record; nothing was written then.
    """
    file = config or OWN_FILE
    if file.exists():
        raise UsageError(f"{file} is there already, and is never overwritten: move it away first")
    text = APP + (NO_INPUT if path is None else _mapping(path, records))
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None
    check = next_command("check", path or "topics.jsonl", out=DEFAULT_OUT)
    print_result(
        f"written: {file}",
        "fill in what is required there, then:",
        f"  {check}",
        f"  {next_command('doctor', out=DEFAULT_OUT)}",
    )
    return Exit.DONE


def _first_records(path: str, settings: Records) -> list[dict[str, Any]]:
    """Return the first records of an input, as they are in it. Raises UsageError without any."""
    records = []
    try:
        source = resolve_inputs([path], settings)[0]
        for line in islice(lines_of(source, LINE_BYTES_MAX), SAMPLE_RECORDS):
            try:
                records.append(parse_record(line.content))
            except InvalidRecordError:
                continue
    except InputError as error:
        raise UsageError(str(error)) from None
    if not records:
        raise UsageError(
            f"{path}: its first {SAMPLE_RECORDS:,} records cannot be read: see "
            f"`topic-import check {path}`"
        )
    return records


def _mapping(path: str, settings: Records) -> str:
    """Return the section `records` for an input."""
    proposal = propose(_first_records(path, settings))
    given = {"path": settings.path, "encoding": settings.encoding}
    kept = [f"{name} = {_text(value)}" for name, value in given.items() if value]
    return "\n".join(["", "[records]", *kept, *_lines(proposal, path), ""])


def _lines(proposal: Proposal, path: str) -> Iterator[str]:
    yield f"# Proposed from the first {proposal.records:,} records of {visible(path)}: check it."
    yield from _refused(proposal)
    if proposal.key_field:
        yield f"key_field = {_text(proposal.key_field)}  # echoed in the results, never sent"
    else:
        yield '# key_field = "id"  # none was found; without it a record that changed is a new one'
    if proposal.create_time:
        yield f"create_time = {_text(proposal.create_time)}"
    if any("bytes of UTF-8" in message for _, message in proposal.problems):
        yield '# on_too_long = "truncate"  # cuts names and texts that are too long'
    if proposal.ignored:
        yield f"ignore = [{', '.join(map(_text, proposal.ignored))}]  # never sent"
    if proposal.fields:
        yield ""
        yield "[records.fields]  # your name of a field = its name in the API"
        yield from (f"{_key(path)} = {_text(name)}" for path, name in proposal.fields.items())
    if proposal.missing:
        yield ""
        yield "[records.constants]  # the same in every record"
        yield from (f"# {name} = {_text(_EXAMPLES[name])}" for name in proposal.missing)


_EXAMPLES = {"GroupId": "@TGS#_@TGS#cQVLVHIM62CJ", "TopicName": "general"}


def _refused(proposal: Proposal) -> Iterator[str]:
    if not proposal.problems:
        return
    yield "# With it these records would be refused:"
    yield from (f"#   {count:,} x {visible(message)}" for count, message in proposal.problems)


def _text(text: str) -> str:
    """Return a text as TOML writes it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)
