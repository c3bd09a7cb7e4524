"""Problems, or warnings, by their kind."""

import re
from dataclasses import dataclass, field
from typing import Any

from worker.rules.topic.grouping import MessageGroup

PLACES_SHOWN = 5
KINDS_KEPT = 200
_PLACE = re.compile(r"(.+?):[0-9]+( \(|$)", re.DOTALL)
OTHERS = "problems of other kinds"


@dataclass(slots=True)
class Groups:
    """Groups of messages; beyond KINDS_KEPT kinds there is one for all others."""

    by_kind: dict[str, MessageGroup] = field(default_factory=dict)

    def add(self, kind: str, message: str, place: str) -> None:
        """Add a message to the group of its kind."""
        if kind not in self.by_kind and len(self.by_kind) >= KINDS_KEPT:
            kind = message = OTHERS
        self.by_kind.setdefault(kind, MessageGroup(message)).add(message, place)

    def in_json(self, places: int) -> list[dict[str, Any]]:
        """Return the groups for JSON, each with at most so many places."""
        return [
            {"message": group.message, "count": group.count, "places": group.places[:places]}
            for group in self.by_kind.values()
        ]

    def lines(self, prefix: str = "") -> list[str]:
        """Return the groups as lines for people, the largest first."""
        lines: list[str] = []
        for group in sorted(self.by_kind.values(), key=lambda group: -group.count):
            shown = on_paths(group.places[:PLACES_SHOWN])
            more = group.count - PLACES_SHOWN
            rest = f" and {more:,} more (--json lists them)" if more > 0 else ""
            lines += [f"{prefix}{group.count:,} x {group.message}", f"    {shown}{rest}"]
        return lines


def on_paths(places: list[str]) -> str:
    """Return places (`path:line`) in one text; a path that follows itself is not repeated."""
    shown: list[str] = []
    last = None
    for place in places:
        found = _PLACE.match(place)
        path = found[1] if found else None
        shown.append(place[len(path) + 1 :] if path and path == last else place)
        last = path
    return ", ".join(shown)
