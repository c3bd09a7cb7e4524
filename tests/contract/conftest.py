"""Real Redis servers, one of each binary, and every engine of the queue on them."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import Queue, SqliteUnderTest, flush, open_redis, running
from tests.support.redis_server import RedisServer, binaries

Run = Callable[[Coroutine[Any, Any, Any]], Any]
SERVERS = {f"redis-{n}": binary for n, binary in enumerate(binaries())}


@pytest.fixture
def run() -> Iterator[Run]:
    """One loop for a test and what it opens."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="session", params=SERVERS)
def running_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    with running(SERVERS[request.param], tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running_server: RedisServer) -> RedisServer:
    flush(running_server)
    return running_server


@pytest.fixture(scope="session")
def all_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RedisServer]]:
    started: dict[str, RedisServer] = {}
    try:
        for name, binary in SERVERS.items():
            started[name] = RedisServer(binary, tmp_path_factory.mktemp("redis"))
            started[name].start()
        yield started
    finally:
        for server in started.values():
            server.kill()


@pytest.fixture(params=["sqlite", *SERVERS])
def queue(
    request: pytest.FixtureRequest, tmp_path: Path, run: Run, all_servers: dict[str, RedisServer]
) -> Iterator[Queue]:
    """Each engine in turn."""
    opened: Queue
    if request.param == "sqlite":
        opened = SqliteUnderTest(tmp_path)
    else:
        server = all_servers[request.param]
        flush(server)
        opened = run(open_redis(server))
    yield opened
    run(opened.end())
