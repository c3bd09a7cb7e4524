"""One line of an input becomes a JSON object."""

import json
from collections import Counter
from contextlib import suppress
from typing import Any

import orjson

from worker.rules.topic.problems import PROBLEMS_MAX, InvalidRecordError, kind_of, shortened

_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def parse_record(line: bytes) -> dict[str, Any]:
    """Parse one line of JSON into an object with unchecked values.

    Raises InvalidRecordError if the line is not a JSON object in UTF-8, or if a name occurs twice
    in an object: parsers keep one of the two values without a word, and not all the same one.
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InvalidRecordError([_describe_json_error(line, error)], is_object=False) from None
    if not isinstance(record, dict):
        problem = f"the line is {kind_of(record)}, a record is a JSON object"
        raise InvalidRecordError([problem], is_object=False)
    # Counting is cheap; only a line with more colons than the object explains is parsed once more.
    colons = line.count(b":")
    if colons > len(record) and (colons > _colons_of(record) or b"\\u003" in line):
        repeated = _repeated_names(line)
        if repeated:
            problems = [f"{name} stands more than once in the record" for name in repeated]
            raise InvalidRecordError(problems, is_object=False)
    return record


def _colons_of(record: dict[str, Any]) -> int:
    """Return how many colons an object has as JSON, if no escape and no name in it holds one."""
    colons = 0
    containers: list[Any] = [record.values()]
    for values in containers:
        for value in values:
            if isinstance(value, str):
                if ":" in value:
                    colons += value.count(":")
            elif isinstance(value, dict):
                colons += len(value)
                containers.append(value.values())
            elif isinstance(value, list):
                containers.append(value)
    return colons + len(record)


def _describe_json_error(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as broken:
        if line.startswith(_UTF_16_MARKS):
            return "not UTF-8: this looks like UTF-16, save the file as UTF-8"
        return f"not UTF-8: byte 0x{line[broken.start]:02x} at byte {broken.start + 1} of the line"
    if "surrogate" in error.msg:
        return f"not JSON: half a surrogate pair, which UTF-8 cannot hold ({error.msg})"
    return f"not JSON: {error.msg} at character {error.colno}"


def _repeated_names(line: bytes) -> list[str]:
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(name for name, _ in pairs)
        repeated.extend(name for name, count in counts.items() if count > 1)
        return dict(pairs)

    # orjson does not report repeated names, the standard library's parser does. It gives up on
    # deep nesting; the checks of the fields refuse such a record.
    with suppress(RecursionError):
        json.loads(line, object_pairs_hook=note)
    return [shortened(name) for name in repeated[:PROBLEMS_MAX]]
