"""The dead letters of each community: names under which Redis counts them, and the worst (R25)."""

from collections import Counter

import orjson

from worker.rules.counts import CommunityLetters

SEPARATOR = "|"
"""Between the GroupId, the reason and the code; a GroupId may contain it."""
Tally = dict[str, int]
"""How many letters there are, by `<GroupId>|<reason>|<code>`; the code is empty for none."""


def code_text(code: int | None) -> str:
    """Return an error code as the scripts keep it; empty for none."""
    return "" if code is None else str(code)


def tally_name(line: bytes) -> str:
    """Return the name under which the dead letter of a line is counted."""
    letter = orjson.loads(line)
    return SEPARATOR.join([letter["group_id"] or "", letter["reason"], code_text(letter["code"])])


def worst(numbers: Tally, count: int) -> list[CommunityLetters]:
    """Return the communities with the most letters, the worst first, at most `count`.

    Letters without a community are left out; numbers below 1 are.
    """
    known = {tuple(name.rsplit(SEPARATOR, 2)): n for name, n in numbers.items() if n > 0}
    owners = Counter((reason, code) for _, reason, code in known)
    named = [
        CommunityLetters(
            group_id, reason, int(code) if code else None, n, is_all=owners[reason, code] == 1
        )
        for (group_id, reason, code), n in known.items()
        if group_id
    ]
    return sorted(named, key=lambda one: (-one.count, one.group_id, one.reason))[:count]
