"""Fixtures: a job in its own directory, and a simulated service without faults."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Job, Simulator, simulator


@pytest.fixture
def service() -> Iterator[Simulator]:
    with simulator("--quota", "0") as running:
        yield running


@pytest.fixture
def job(tmp_path: Path, service: Simulator) -> Job:
    return Job(tmp_path, service.url)


@pytest.fixture
def offline_job(tmp_path: Path) -> Job:
    """Return a job whose service address nobody listens on."""
    return Job(tmp_path)
