"""`docs/architecture.md` names the floors that `pyproject.toml` enforces."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def floors_enforced() -> list[list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer.split(" | ") for layer in layers]


def floors_section() -> str:
    page = (ROOT / "docs/architecture.md").read_text()
    return page.split("\n## Floors\n")[1].split("\n## ")[0]


def test_the_floors_in_the_documentation_are_the_enforced_ones() -> None:
    numbered = re.findall(r"^\d+\. (.+)$", floors_section(), re.MULTILINE)

    assert [re.findall(r"`(\w+)`", floor) for floor in numbered] == floors_enforced()


def test_each_module_of_a_floor_has_its_sentence() -> None:
    described = re.findall(r"^ +- `(\w+)`: \S.+\.$", floors_section(), re.MULTILINE)

    assert described == [module for floor in floors_enforced() for module in floor]
