"""Plays the service of each scenario file and checks the expected ranges."""

from pathlib import Path

import pytest

from tests.simulation.scenario import misses, play, read

FILES = sorted((Path(__file__).parent / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_scenario_stays_within_its_expected_ranges(path: Path) -> None:
    scenario = read(path)
    figures = play(scenario.service, scenario.job).figures()
    assert not misses(scenario, figures)
    assert figures["most_in_a_second"] <= scenario.job.calls_per_s, "the quota holds in all of them"


def test_at_least_twelve_scenarios_exist() -> None:
    assert len(FILES) >= 12
