"""A job in a folder of its own, and a service without faults."""

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
def lonely_job(tmp_path: Path) -> Job:
    """A job without a service to call."""
    return Job(tmp_path)
