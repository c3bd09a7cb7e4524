"""One line of JSON becomes a record."""

import json
import re
from collections import Counter
from contextlib import suppress
from typing import Any

import orjson

from worker.rules.topic.problems import PROBLEMS_MAX, InvalidRecordError, kind_of, shown

_JSON_KEY = re.compile(rb'"\s*:')


def parse_record(line: bytes) -> dict[str, Any]:
    """Parse one line of JSON.

    Raises InvalidRecordError for what is no JSON object, and for a name that stands twice
    (parsers keep the last and forget the first: a choice nobody made).
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidRecordError([_describe_json_error(line, error)], is_object=False) from None
    if not isinstance(record, dict):
        kind = kind_of(record)
        raise InvalidRecordError(
            [f"the line is {kind}, a record is a JSON object"], is_object=False
        )
    if len(_JSON_KEY.findall(line)) > len(record):
        twice = _names_that_stand_twice(line)
        if twice:
            problems = [f"{name} stands more than once in the record" for name in twice]
            raise InvalidRecordError(problems, is_object=False)
    return record


def _describe_json_error(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        if line.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "not UTF-8: this looks like UTF-16, save the file as UTF-8"
        return f"not UTF-8: byte 0x{line[broken.start]:02x} at byte {broken.start + 1} of the line"
    if "surrogate" in error.msg:
        return f"not JSON: half a surrogate pair, which UTF-8 cannot hold ({error.msg})"
    return f"not JSON: {error.msg} at character {error.colno}"


def _names_that_stand_twice(line: bytes) -> list[str]:
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(name for name, _ in pairs)
        twice.extend(name for name, count in counts.items() if count > 1)
        return dict(pairs)

    # The standard library's parser, and only for the few lines that may hold such a name:
    # orjson cannot tell. What it finds too deep the field checks refuse.
    with suppress(RecursionError):
        json.loads(line, object_pairs_hook=note)
    return [shown(name) for name in twice[:PROBLEMS_MAX]]
