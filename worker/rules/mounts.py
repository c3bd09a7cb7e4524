"""Which file system holds a path, by the table that Linux keeps of them."""

import re

_ESCAPED = re.compile(r"\\([0-7]{3})")


def kind_of(path: str, mounts: str) -> str | None:
    """Return the kind of file system (`ext4`, `nfs4`) that holds an absolute path without links.

    `mounts`: the lines of /proc/self/mounts; of several that hold the path the longest counts, and
    of equal ones the last. None if no line does.
    """
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:  # noqa: PLR2004 - device, place, kind
            continue
        place = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[1])
        is_above = path == place or path.startswith(f"{place.rstrip('/')}/")
        if is_above and (best is None or len(place) >= best[0]):
            best = len(place), fields[2]
    return best[1] if best else None
