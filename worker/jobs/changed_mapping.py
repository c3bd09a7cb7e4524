"""A job that is run again with another mapping: what that changes, said before the run begins."""

import orjson

from worker.settings.model import Records

WHAT_IS_SENT = ("fields", "constants", "create_time", "encoding", "on_too_long")
"""The settings of `records` that decide what is sent for a record; key and ID mode belong to the
job's identity, and may not change at all."""


def mapping_text(records: Records) -> str:
    """Return what decides what is sent, as a queue remembers it."""
    content = records.model_dump(include=set(WHAT_IS_SENT))
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()


def changed_mapping(before: str | None, now: str) -> str | None:
    """Return a sentence about what another mapping does, None if it is the same or the first one.

    Both as `mapping_text` returns them.
    """
    if before is None or before == now:
        return None
    old, new = orjson.loads(before), orjson.loads(now)
    changed = [name for name in WHAT_IS_SENT if old.get(name) != new.get(name)]
    if not changed:
        return None
    return (
        f"this job was run with other settings ({', '.join(f'records.{n}' for n in changed)}): "
        "records that were read stay as they were mapped then, queued ones included; invalid ones "
        "whose inputs are read again are mapped anew; the same record from another input is a "
        "conflict if it is sent differently now"
    )
