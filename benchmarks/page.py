"""Writes what was measured into `docs/performance.md`, each benchmark into its own section."""

import importlib.metadata
import os
import platform
import sqlite3
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.support.redis_server import binaries

PAGE = Path("docs/performance.md")
LIBRARIES = ("aiohttp", "uvloop", "orjson", "redis")


def write_section(name: str, lines: Iterable[str]) -> None:
    """Replace what stands between the two marks of the section; the rest of the page is kept.

    Raises SystemExit if the marks are not there.
    """
    begin, end = f"<!-- begin of {name} -->\n", f"<!-- end of {name} -->"
    page = PAGE.read_text(encoding="utf-8")
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{PAGE}: the marks around the section {name!r} are missing or doubled")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    text = "\n".join(lines)
    PAGE.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", encoding="utf-8")
    print(text)
    print(f"\nwritten to {PAGE}")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def machine() -> str:
    """Return a sentence on this machine and the versions in use."""
    versions = [f"{name} {_version(name)}" for name in LIBRARIES]
    return (
        f"Measured with topic-import {_version('topic-import-worker')} on "
        f"{os.cpu_count()} cores of {_processor()}, "
        f"{_memory_gb():.0f} GB of memory, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {_redis()}, "
        f"{', '.join(versions)}."
    )


def spread(figures: Sequence[float], shown: str, unit: str = "") -> str:
    """Return the median, and in parentheses the least and the most; `shown` is like ".2f"."""
    median = f"{statistics.median(figures):{shown}}{unit}"
    if len(figures) == 1:
        return median
    return f"{median} ({min(figures):{shown}} to {max(figures):{shown}})"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    names = _lines_of("/proc/cpuinfo", "model name")
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _lines_of(path: str, key: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(key)]


def _redis() -> str:
    answer = subprocess.run(
        [binaries()[0], "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    words = [word for word in answer.stdout.split() if word.startswith("v=")]
    return f"Redis {words[0].removeprefix('v=')}" if words else "Redis"
