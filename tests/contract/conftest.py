"""Real Redis servers, one of each binary, and every engine of the queue on them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.engines import Queue, SqliteUnderTest, flush, open_redis, running
from tests.support.redis_server import RedisServer, binaries
from tests.support.redis_streams import KEEPS_EVERYTHING, Streams

SERVERS = {f"redis-{n}": binary for n, binary in enumerate(binaries())}


@pytest.fixture(scope="session", params=SERVERS)
def running_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    with running(SERVERS[request.param], tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running_server: RedisServer) -> RedisServer:
    """Each server in turn, emptied for this test."""
    flush(running_server)
    return running_server


@pytest.fixture(params=SERVERS)
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """Each server in turn, for this test alone; it loses nothing once it has replied."""
    with running(SERVERS[request.param], tmp_path, *KEEPS_EVERYTHING) as server:
        yield server


@pytest.fixture
def streams(server: RedisServer) -> Iterator[Streams]:
    """The streams of the queue on `server`, as a producer and a reader of results see them."""
    streams = Streams(server)
    yield streams
    streams.close()


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


AHEAD = {f"{name}-ahead": name for name in SERVERS}
"""Redis engines that take more than they are asked for."""


@pytest.fixture(params=["sqlite", *SERVERS, *AHEAD])
async def queue(
    request: pytest.FixtureRequest, tmp_path: Path, all_servers: dict[str, RedisServer]
) -> AsyncIterator[Queue]:
    """Each engine in turn, empty and open."""
    opened: Queue
    if request.param == "sqlite":
        opened = SqliteUnderTest(tmp_path)
    else:
        server = all_servers[AHEAD.get(request.param, request.param)]
        flush(server)
        opened = await open_redis(server, ahead_max=50 if request.param in AHEAD else 0)
    yield opened
    await opened.end()
