"""Fixtures: a job in its own directory, and a simulated service without faults."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Job, Simulator, simulator
from tests.support.redis_server import RedisServer, binaries


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


@pytest.fixture(params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Return the settings of each queue engine."""
    if request.param == "sqlite":
        yield {}
        return
    directory = tmp_path / "redis"
    directory.mkdir()
    server = RedisServer(binaries()[0], directory)
    server.start()
    yield {"QUEUE__URL": f"{server.url}?stream=topics&group=importers"}
    server.kill()
