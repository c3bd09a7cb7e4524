"""Runs thousands of random schedules of the whole data path and checks every guarantee."""

import os

import pytest

from tests.simulation.flow import check, play

SEEDS = int(os.environ.get("SEEDS", "600"))
GROUPS = 20


@pytest.mark.parametrize("group", range(GROUPS))
def test_faults_crashes_and_restarts_break_no_guarantee(group: int) -> None:
    for seed in range(group, SEEDS, GROUPS):
        try:
            check(play(seed))
        except Exception as error:
            raise AssertionError(f"repeat with: python -m tests.simulation.flow {seed}") from error


@pytest.mark.parametrize("seed", range(5))
def test_equal_seeds_produce_equal_runs(seed: int) -> None:
    assert play(seed).trace == play(seed).trace
