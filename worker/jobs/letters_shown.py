"""One line for people for a dead letter."""

import orjson

from worker.jobs import print_result


def show_letter(line: bytes) -> None:
    """Print where a dead letter was read, why it is one, and of which community."""
    letter = orjson.loads(line)
    code = "" if letter["code"] is None else f" {letter['code']}"
    group = letter["group_id"] or "unknown community"
    print_result(f"{letter['source']}  {letter['reason']}{code}  {group}  {letter['message']}")
