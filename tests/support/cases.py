"""The small inputs in `tests/cases/`, made after public bug reports of other importers."""

from pathlib import Path
from typing import Any

import orjson

CASES = Path(__file__).parents[1] / "cases"


def case_records(name: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (CASES / name).read_bytes().splitlines()]
