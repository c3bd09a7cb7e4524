"""A server that says what a test makes it say, byte by byte, and a client that calls it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from worker.chat import Endpoint, ImportTopicClient
from worker.rules.usersig import Signature
from worker.rules.verdict import Reply

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SIGNATURE = Signature("eJsecret*-_", 1)
OK_BODY = b'{"ActionStatus":"OK","ErrorCode":0,"TopicId":"t"}'
IMPORTED = Reply(status=200, code=0, topic_id="t", action_status="OK")


def response(
    body: bytes = OK_BODY,
    status: str = "200 OK",
    *,
    headers: str = "",
    length: int | None = None,
    version: str = "1.1",
) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/{version} {status}\r\n{headers}Content-Length: {size}\r\n\r\n".encode() + body


def chunked(
    body: bytes = OK_BODY, *, step: int = 7, headers: str = "", trailers: bytes = b""
) -> bytes:
    pieces = [body[start : start + step] for start in range(0, len(body), step)]
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    head = f"HTTP/1.1 200 OK\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"
    return head.encode() + b"".join(chunks) + b"0\r\n" + trailers + b"\r\n"


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """Read one request, to the end of its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


def answering(content: bytes) -> Handler:
    """Answer every request with the same bytes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            writer.write(content)
            await writer.drain()

    return handler


@asynccontextmanager
async def client_of(
    handler: Handler,
    *,
    connect_timeout_s: float = 5.0,
    total_timeout_s: float = 5.0,
    path: str = "v4/x/y",
    tls: ssl.SSLContext | None = None,
    ca_file: str | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[ImportTopicClient]:
    """Run a server, each of whose connections is handled once, and yield a client that calls it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    endpoint = Endpoint(
        f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}/",
        path,
        1400000000,
        "ad min",
        connect_timeout_s,
        total_timeout_s,
        ca_file=ca_file,
    )
    async with ImportTopicClient(endpoint, chance=lambda low, high: high) as client:
        yield client
    server.close()


async def import_one(client: ImportTopicClient, body: bytes = b"{}") -> Reply:
    """Make one call."""
    return await client.import_topic(body, SIGNATURE)
