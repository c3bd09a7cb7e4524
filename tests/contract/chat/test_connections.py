"""The connections of the client on each transport: used again, cut, cancelled, out of time."""

import asyncio
import hashlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.raw_server import (
    IMPORTED,
    SIGNATURE,
    answering,
    client_of,
    import_one,
    request_of,
    response,
)
from tests.support.stand_in import SELF_SIGNED
from worker.chat import Endpoint, ImportTopicClient
from worker.rules.verdict import Reply, SetupFault

pytestmark = [
    pytest.mark.usefixtures("transport"),
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),  # on purpose
]

TOO_LATE = Reply(failure="no answer in time", may_have_taken_effect=True)
CUT = Reply(failure="the connection was cut before the answer", may_have_taken_effect=True)
OTHER = response(b'{"ErrorCode":10010,"ErrorInfo":"of another call"}')
SHORT_S = 1.0
"""Long enough for a call that is answered, also on a machine with much other work."""
LARGE = 30_000_000
"""More bytes than the system takes for a connection whose other end does not read."""


class Server:
    """Answers each request with the next function of a list; knows what became of connections."""

    def __init__(self, *answers: Callable[["Peer"], Awaitable[None]]) -> None:
        self._answers = list(answers)
        self.peers: list[Peer] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        try:
            while True:
                peer.requests.append(await request_of(reader))
                answer = self._answers.pop(0) if self._answers else say(response())
                await answer(peer)
        finally:
            peer.ended.set()

    @property
    def calls(self) -> list[int]:
        """How many requests came on each connection."""
        return [len(peer.requests) for peer in self.peers]


class Peer:
    """The server's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests: list[bytes] = []
        self.ended = asyncio.Event()


def say(content: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Send these bytes."""

    async def answer(peer: Peer) -> None:
        peer.writer.write(content)

    return answer


def never(
    begun: asyncio.Event | None = None, content: bytes = b""
) -> Callable[..., Awaitable[None]]:
    """Send these bytes, and nothing more until the client hangs up."""

    async def answer(peer: Peer) -> None:
        peer.writer.write(content)
        if begun:
            begun.set()
        await peer.reader.read()
        raise ConnectionError

    return answer


@asynccontextmanager
async def served(
    server: Server, *, total_timeout_s: float = 30.0
) -> AsyncIterator[ImportTopicClient]:
    async with client_of(server.handle, total_timeout_s=total_timeout_s) as client:
        yield client


# ---- used again


async def test_calls_one_after_the_other_share_a_connection() -> None:
    server = Server()
    async with served(server) as client:
        assert [await import_one(client) for _ in range(20)] == [IMPORTED] * 20
    assert server.calls == [20]


async def test_calls_at_once_have_a_connection_each() -> None:
    server = Server()
    async with served(server) as client:
        for _ in range(3):
            replies = await asyncio.gather(*(import_one(client) for _ in range(200)))
            assert set(replies) == {IMPORTED}
    assert sum(server.calls) == 600
    assert len(server.calls) == 200


async def test_each_call_has_its_own_random() -> None:
    server = Server()
    async with served(server) as client, ImportTopicClient(client._endpoint) as drawing:
        for _ in range(50):
            assert await import_one(drawing) == IMPORTED
    heads = [request.split(b"\r\n")[0] for peer in server.peers for request in peer.requests]
    drawn = {int(re.findall(rb"random=(\d+) HTTP", head)[0]) for head in heads}
    assert len(drawn) == 50
    assert max(drawn) < 2**32


async def test_an_idle_connection_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("connections", "direct"):
        monkeypatch.setattr(f"worker.transport.{module}.KEEP_ALIVE_S", 0.05)
    server = Server()
    async with served(server) as client:
        await asyncio.gather(*(import_one(client) for _ in range(3)))
        await asyncio.gather(*(peer.ended.wait() for peer in server.peers))
        assert await import_one(client) == IMPORTED
    assert server.calls == [1, 1, 1, 1]


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async def answer(peer: Peer) -> None:
        peer.writer.write(response())
        peer.writer.write_eof()

    server = Server(answer)
    async with served(server) as client:
        assert await import_one(client) == IMPORTED
        await server.peers[0].ended.wait()
        assert await import_one(client) == IMPORTED
    assert server.calls == [1, 1]


@pytest.mark.parametrize("surplus", [OTHER, OTHER[:20], b"\r\n", b"x"])
async def test_what_comes_on_an_idle_connection_is_no_answer(surplus: bytes) -> None:
    server = Server()
    async with served(server) as client:
        assert await import_one(client) == IMPORTED
        server.peers[0].writer.write(surplus)
        await server.peers[0].ended.wait()
        assert await import_one(client) == IMPORTED
    assert server.calls == [1, 1]


async def test_a_used_connection_that_is_cut_after_the_next_request_may_have_taken_effect() -> None:
    async def cut(peer: Peer) -> None:
        peer.writer.transport.abort()

    server = Server(say(response()), cut)
    async with served(server) as client:
        assert await import_one(client) == IMPORTED
        assert await import_one(client) == CUT
        assert await import_one(client) == IMPORTED
    assert server.calls == [2, 1], "no call is sent twice"


async def test_an_answer_before_the_request_counts() -> None:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"", "503 Overloaded"))

    async with client_of(handler) as client:
        reply = await import_one(client)
    assert reply == Reply(status=503, failure="HTTP 503", may_have_taken_effect=True)


# ---- large bodies


async def test_a_large_body_arrives_whole_at_a_server_that_reads_slowly() -> None:
    body = bytes(range(256)) * 20_000
    received = hashlib.sha256()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = len(body)
        while left:
            piece = await reader.read(10_000)
            received.update(piece)
            left -= len(piece)
        writer.write(response())

    async with client_of(handler) as client:
        assert await import_one(client, body) == IMPORTED
    assert received.digest() == hashlib.sha256(body).digest()


async def test_an_answer_before_the_body_arrived_counts_and_the_connection_is_closed() -> None:
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if len(heads) == 1:
                writer.write(response())
                await closed.wait()
                return
            await reader.readexactly(2)
            writer.write(response())

    closed = asyncio.Event()
    async with client_of(handler) as client:
        assert await import_one(client, b"x" * LARGE) == IMPORTED
        closed.set()
        assert await import_one(client) == IMPORTED
    assert len(heads) == 2


async def test_a_body_that_nobody_reads_ends_in_time() -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await gone.wait()

    async with client_of(handler, total_timeout_s=SHORT_S) as client:
        assert await import_one(client, b"x" * LARGE) == TOO_LATE
        gone.set()


# ---- time


@pytest.mark.parametrize("earlier", [0, 1], ids=["new connection", "used connection"])
async def test_a_call_without_a_whole_answer_ends_in_time(earlier: int) -> None:
    async def call_in_vain(begins: bytes) -> None:
        server = Server(*[say(response())] * earlier, never(content=begins))
        async with served(server, total_timeout_s=SHORT_S) as client:
            for _ in range(earlier):
                assert await import_one(client) == IMPORTED
            assert await import_one(client) == TOO_LATE
            await server.peers[0].ended.wait()
            assert await import_one(client) == IMPORTED
        assert server.calls == [earlier + 1, 1]

    beginnings = [b"", b"HTTP/1.1 2", response()[:-1], b"HTTP/1.1 100 Continue\r\n\r\n"]
    await asyncio.gather(*(call_in_vain(begins) for begins in beginnings))


async def test_an_answer_of_single_bytes_ends_in_time() -> None:
    async def drip(peer: Peer) -> None:
        peer.writer.write(response(length=10**9))
        while not peer.writer.transport.is_closing():
            peer.writer.write(b" ")
            await asyncio.sleep(0.005)

    server = Server(say(response()), drip)
    async with served(server, total_timeout_s=SHORT_S) as client:
        assert await import_one(client) == IMPORTED
        assert await import_one(client) == TOO_LATE


async def test_each_of_many_open_calls_has_its_own_time() -> None:
    calls = 30
    server = Server(*[say(response())] * calls, *[never()] * calls)
    loop = asyncio.get_running_loop()
    ended_s: list[float] = []
    async with served(server, total_timeout_s=SHORT_S) as client:

        async def call(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            started_s = loop.time()
            assert await import_one(client) == TOO_LATE
            ended_s.append(loop.time() - started_s)

        await asyncio.gather(*(import_one(client) for _ in range(calls)))
        await asyncio.gather(*(call(number / 100) for number in range(calls)))
        assert await import_one(client) == IMPORTED
    assert min(ended_s) > SHORT_S - 0.01


async def test_a_call_whose_time_is_over_leaves_those_that_began_later_alone() -> None:
    release = asyncio.Event()

    async def answer_late(peer: Peer) -> None:
        await release.wait()
        peer.writer.write(response())

    server = Server(say(response()), say(response()), never(), answer_late)
    async with served(server, total_timeout_s=SHORT_S) as client:
        await asyncio.gather(import_one(client), import_one(client))
        early = asyncio.ensure_future(import_one(client))
        await asyncio.sleep(SHORT_S / 2)
        late = asyncio.ensure_future(import_one(client))
        assert await early == TOO_LATE
        release.set()
        assert await late == IMPORTED


# ---- cancellation


@pytest.mark.parametrize("earlier", [0, 1], ids=["new connection", "used connection"])
@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", response()[:-3]])
async def test_a_cancelled_call_closes_its_connection(earlier: int, begins: bytes) -> None:
    begun = asyncio.Event()
    server = Server(*[say(response())] * earlier, never(begun, begins))
    async with served(server) as client:
        for _ in range(earlier):
            assert await import_one(client) == IMPORTED
        call = asyncio.ensure_future(import_one(client))
        await begun.wait()
        for _ in range(5):  # rounds of the loop in which the client reads the beginning
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.peers[0].ended.wait()
        assert await import_one(client) == IMPORTED
    assert server.calls == [earlier + 1, 1]


async def test_calls_cancelled_at_any_moment_leave_the_others_alone() -> None:
    server = Server()
    async with served(server) as client:
        for rounds in range(30):
            cancelled = [asyncio.ensure_future(import_one(client)) for _ in range(5)]
            others = [asyncio.ensure_future(import_one(client)) for _ in range(5)]
            for _ in range(rounds):
                await asyncio.sleep(0)
            for call in cancelled:
                call.cancel()
            await asyncio.gather(*cancelled, return_exceptions=True)
            assert await asyncio.gather(*others) == [IMPORTED] * 5


# ---- no connection


async def test_a_handshake_without_an_end_ends_in_time() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with client_of(silent) as client:
        url = client._endpoint.base_url.replace("http:", "https:")
        for connect_s, total_s, reply in (
            (0.1, 5.0, Reply(failure="cannot connect: timed out")),
            (5.0, 0.1, TOO_LATE),
        ):
            async with ImportTopicClient(
                Endpoint(url, "p", 1, "a", connect_s, total_s)
            ) as impatient:
                assert await import_one(impatient) == reply


async def test_a_name_that_leads_nowhere_had_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with ImportTopicClient(Endpoint("https://nowhere.example", "p", 1, "a")) as client:
        replies = await asyncio.gather(*(import_one(client) for _ in range(3)))
    failure = "cannot connect: Name or service not known"
    assert set(replies) == {Reply(failure=failure, setup_fault=SetupFault.ADDRESS)}


@pytest.mark.parametrize("url", ["http://127.1:80", "http://", "nothing"])
async def test_an_address_that_is_none_had_no_effect(url: str) -> None:
    async with ImportTopicClient(Endpoint(url, "p", 1, "a")) as client:
        reply = await import_one(client)
    failure = "cannot connect: the address is not valid"
    assert reply == Reply(failure=failure, setup_fault=SetupFault.ADDRESS)


async def test_a_certificate_is_checked_and_may_be_named() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(SELF_SIGNED)
    async with client_of(answering(response()), tls=tls) as client:
        assert await import_one(client) == Reply(
            failure="TLS failed: self-signed certificate", setup_fault=SetupFault.CERTIFICATE
        )
    server = Server()
    async with client_of(server.handle, tls=tls, ca_file=str(SELF_SIGNED)) as client:
        assert [await import_one(client) for _ in range(3)] == [IMPORTED] * 3
    assert server.calls == [3]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_an_ipv6_address_may_be_called() -> None:
    server = Server()
    async with client_of(server.handle, host="::1") as client:
        assert await import_one(client) == IMPORTED
    assert re.search(rb"\r\nHost: \[::1\]:\d+\r\n", server.peers[0].requests[0])


async def test_a_call_after_the_signature_was_renewed_uses_the_new_one() -> None:
    server = Server()
    async with served(server) as client:
        await import_one(client)
        renewed = type(SIGNATURE)("eJnew", 2)
        await client.import_topic(b"{}", renewed)
    assert [b"eJnew" in request for request in server.peers[0].requests] == [False, True]
