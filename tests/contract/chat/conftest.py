"""Each transport in turn, on each event loop that the program may run on."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from worker.transport.contract import Destination, Transport
from worker.transport.direct import DirectTransport
from worker.transport.session import SessionTransport


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=[DirectTransport, SessionTransport])
def transport(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Destination], Transport]:
    """Each transport in turn, which every client of this test then uses without a proxy."""
    kind: Callable[[Destination], Transport] = request.param
    monkeypatch.setattr("worker.chat.DirectTransport", kind)
    return kind
