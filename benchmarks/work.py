"""The work that is measured: files of records, and our commands that import them."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.demo import PROGRAM
from benchmarks.processes import Process

IN_FLIGHT = 64
TOPICS_A_COMMUNITY = 150
"""Below the 200 that a community holds."""
SETTINGS = {
    "TOPIC_IMPORT_APP__SDK_APP_ID": "1400000000",
    "TOPIC_IMPORT_APP__SECRET_KEY": hashlib.sha256(b"a benchmark").hexdigest(),
    "TOPIC_IMPORT_HTTP__MAX_IN_FLIGHT": str(IN_FLIGHT),
    "TOPIC_IMPORT_ADMIN__LISTEN": "127.0.0.1:0",
}


def number(name: str, default: int) -> int:
    """Return a whole number from the environment. Raises SystemExit if it is none."""
    text = os.environ.get(name, "") or str(default)
    if not text.isdecimal() or not int(text):
        raise SystemExit(f"{name}={text}: a whole number above 0 is needed")
    return int(text)


@contextmanager
def workplace() -> Iterator[Path]:
    """Yield a directory for inputs and jobs, on the disk of the repository; /tmp may be memory."""
    Path("out").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir="out") as directory:
        yield Path(directory).resolve()


def write_records(path: Path, count: int) -> Path:
    """Write `count` records as JSON Lines, about 165 bytes each, no two alike; return the path."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            record = {
                "GroupId": f"@TGS#_@TGS#cBENCH{n // TOPICS_A_COMMUNITY:06d}",
                "TopicName": f"话题 {n}",
                "CustomString": f"old-{n}",
                "Introduction": "Moved from the old system",
                "CreateTime": 1448357837 + n,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return path


def command(
    *words: object,
    records: int,
    directory: Path,
    program: Sequence[object] = PROGRAM,
    **settings: str,
) -> Process:
    """Start one of our commands; `settings` are more variables of the environment."""
    return Process(
        [*program, *words, "--log-level", "error"],
        records=records,
        settings=SETTINGS | settings,
        directory=directory,  # where no settings file is
    )


def calling(url: str, rate_per_s: int = 0) -> dict[str, str]:
    """Return the settings of a command that calls the service at `url`; rate 0: no quota."""
    return {
        "TOPIC_IMPORT_APP__BASE_URL": url,
        "TOPIC_IMPORT_RATE__CALLS_PER_SECOND": str(rate_per_s),
    }


def backfill(
    *inputs: object,
    url: str,
    out: Path,
    records: int,
    rate_per_s: int = 0,
    program: Sequence[object] = PROGRAM,
) -> Process:
    """Start `topic-import backfill` against the service at `url`."""
    return command(
        "backfill",
        *inputs,
        "--out",
        out,
        "--no-progress",
        records=records,
        directory=out.parent,
        program=program,
        **calling(url, rate_per_s),
    )
