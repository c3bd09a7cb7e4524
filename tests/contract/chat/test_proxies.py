"""Calls through a proxy: they take the transport of aiohttp's session, with the same replies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.raw_server import IMPORTED, import_one, request_of, response
from tests.support.waiting import free_port
from worker.chat import Endpoint, ImportTopicClient
from worker.rules.verdict import Reply, SetupFault
from worker.transport.contract import Destination
from worker.transport.direct import is_served_directly


@asynccontextmanager
async def calling_through(proxy: str, url: str) -> AsyncIterator[ImportTopicClient]:
    endpoint = Endpoint(url, "v4/x/y", 1400000000, "administrator", proxy=proxy)
    async with ImportTopicClient(endpoint) as client:
        yield client


async def test_a_call_goes_through_the_proxy() -> None:
    lines: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            lines.append((await request_of(reader)).split(b"?")[0])
            writer.write(response())
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with calling_through(f"http://127.0.0.1:{port}", "http://service.example") as client:
        assert [await import_one(client) for _ in range(2)] == [IMPORTED] * 2
    server.close()
    assert lines == [b"POST http://service.example/v4/x/y"] * 2


async def test_a_proxy_that_refuses_had_no_effect() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"CONNECT service.example:443 ")
        writer.write(response(b"", "407 Proxy Authentication Required"))
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with calling_through(f"http://127.0.0.1:{port}", "https://service.example") as client:
        reply = await import_one(client)
    server.close()
    fault = SetupFault.ADDRESS
    assert reply == Reply(failure="the proxy answered HTTP 407", setup_fault=fault)


async def test_a_proxy_that_cannot_be_reached_had_no_effect() -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    async with calling_through(proxy, "https://service.example") as client:
        reply = await import_one(client)
    failure = "the proxy cannot be reached: Connection refused"
    assert reply == Reply(failure=failure, setup_fault=SetupFault.ADDRESS)


@pytest.mark.parametrize(
    ("origin", "proxy", "is_direct"),
    [
        ("https://console.tim.qq.com", None, True),
        ("http://127.0.0.1:8080", None, True),
        ("http://[::1]:8080", None, True),
        ("https://console.tim.qq.com", "http://proxy.example:3128", False),
        ("https://user:password@service.example", None, False),
        ("https://service.example\r\nX: y", None, False),
        ("https://service.example:99999", None, False),
        ("ftp://service.example", None, False),
        ("nothing", None, False),
    ],
)
def test_what_is_not_plain_is_left_to_the_session(
    origin: str, proxy: str | None, is_direct: object
) -> None:
    assert is_served_directly(Destination(origin, 5.0, 10.0, proxy)) is is_direct
