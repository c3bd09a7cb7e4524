"""Whatever a server answers: the reply, and whether its connection is used again.

All of it on each transport. A call is never repeated, and a failure never claims that a call had no
effect which the server may have read.
"""

import asyncio
import gzip
import zlib
from dataclasses import dataclass

import pytest

from tests.support.raw_server import (
    IMPORTED,
    OK_BODY,
    answering,
    chunked,
    client_of,
    import_one,
    request_of,
    response,
)
from worker.rules.verdict import Reply
from worker.transport.connections import INTERIM_ANSWERS_MAX

pytestmark = pytest.mark.usefixtures("transport")

CUT = Reply(failure="the connection was cut before the answer", may_have_taken_effect=True)
CUT_SHORT = Reply(failure="the answer was cut short", may_have_taken_effect=True)
UNREADABLE = Reply(
    failure="the answer could not be read (ClientResponseError)", may_have_taken_effect=True
)
NO_CODE = Reply(status=200, failure="an answer without an ErrorCode", may_have_taken_effect=True)
FLOODED = Reply(
    failure="more than 32 interim answers (HTTP 1xx) and no answer", may_have_taken_effect=True
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
LARGE = b'{"ErrorCode":0,"x":"' + b"y" * 300_000 + b'"}'
BOMB = gzip.compress(b"0" * 30_000_000)


def refused(status: int, *, reached: bool = False) -> Reply:
    return Reply(status=status, failure=f"HTTP {status}", may_have_taken_effect=reached)


def compressed(body: bytes, encoding: str = "gzip") -> bytes:
    return response(body, headers=f"Content-Encoding: {encoding}\r\n")


def headed(*lines: str, body: bytes = OK_BODY) -> bytes:
    """Return an answer with these headers and no others."""
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Case:
    """What a server sends after a request, whether it hangs up then, and what is to come of it."""

    sends: bytes
    reply: Reply = IMPORTED
    hangs_up: bool = False
    is_reused: bool = False


CASES = {
    # complete answers
    "with a length": Case(response(), is_reused=True),
    "in chunks": Case(chunked(), is_reused=True),
    "in chunks with trailers": Case(chunked(trailers=b"Retry-After: 9\r\n"), is_reused=True),
    "in chunks with extensions": Case(
        chunked().replace(b"\r\n\r\n7\r\n", b"\r\n\r\n7;a=b\r\n", 1), is_reused=True
    ),
    "compressed by gzip": Case(compressed(gzip.compress(OK_BODY)), is_reused=True),
    "compressed by deflate": Case(compressed(zlib.compress(OK_BODY), "deflate"), is_reused=True),
    "compressed by raw deflate": Case(
        compressed(zlib.compress(OK_BODY)[2:-4], "deflate"), is_reused=True
    ),
    "compressed in chunks": Case(
        chunked(gzip.compress(OK_BODY), headers="Content-Encoding: gzip\r\n"), is_reused=True
    ),
    "in an unknown encoding": Case(compressed(OK_BODY, "rot13"), is_reused=True),
    "until the end of the connection": Case(headed(), hangs_up=True),
    "with a request to close": Case(response(headers="Connection: close\r\n")),
    "of HTTP/1.0": Case(response(version="1.0")),
    "of HTTP/1.0 that stays": Case(
        response(version="1.0", headers="Connection: keep-alive\r\n"), is_reused=True
    ),
    "of HTTP/1.0 until the end": Case(b"HTTP/1.0 200 OK\r\n\r\n" + OK_BODY, hangs_up=True),
    "without a reason": Case(response(status="200"), is_reused=True),
    "with bare line feeds": Case(response().replace(b"\r\n", b"\n"), is_reused=True),
    "with a folded header": Case(response(headers="X: 1\r\n 2\r\n"), is_reused=True),
    "with a header that is no text": Case(
        response().replace(b"\r\n", b"\r\nX: \xff\xfe\r\n", 1), is_reused=True
    ),
    "with many headers": Case(response(headers="X: r\r\n" * 100), is_reused=True),
    "with a cookie": Case(response(headers="Set-Cookie: a=b; Path=/\r\n"), is_reused=True),
    # answers without a code of the service
    "of no bytes": Case(
        response(b""),
        Reply(status=200, failure="an empty answer", may_have_taken_effect=True),
        is_reused=True,
    ),
    "204": Case(b"HTTP/1.1 204 No Content\r\n\r\n", refused(204, reached=True), is_reused=True),
    "304": Case(b"HTTP/1.1 304 Not Modified\r\n\r\n", refused(304), is_reused=True),
    "a redirect": Case(
        response(b"", "302 Found", headers="Location: http://127.0.0.1:9/\r\n"),
        refused(302),
        is_reused=True,
    ),
    "503 with a time to wait": Case(
        response(b"", "503 Unavailable", headers="Retry-After: 7\r\n"),
        Reply(status=503, failure="HTTP 503", may_have_taken_effect=True, retry_after_s=7.0),
        is_reused=True,
    ),
    "503 with a time that is no text": Case(
        response(b"", "503 Unavailable").replace(b"\r\n", b"\r\nRetry-After: \xff\r\n", 1),
        refused(503, reached=True),
        is_reused=True,
    ),
    "a change of the protocol": Case(UPGRADED, refused(101, reached=True)),
    "a change of the protocol, and more": Case(UPGRADED + b"abc", refused(101, reached=True)),
    # answers beyond a bound
    "too large": Case(response(LARGE), NO_CODE),
    "too large in chunks": Case(chunked(LARGE, step=1000), NO_CODE),
    "too large in tiny chunks": Case(chunked(LARGE, step=1), NO_CODE),
    "too large until the end": Case(headed(body=LARGE), NO_CODE, hangs_up=True),
    "too large when unpacked": Case(compressed(BOMB), NO_CODE),
    "too large when unpacked, until the end": Case(
        headed("Content-Encoding: gzip", body=BOMB), NO_CODE, hangs_up=True
    ),
    "with too long a reason": Case(response(status="200 " + "r" * 9000), UNREADABLE),
    "with too long a header": Case(response(headers=f"X: {'r' * 9000}\r\n"), UNREADABLE),
    "with too many headers": Case(response(headers="X: r\r\n" * 200), UNREADABLE),
    "a header without an end": Case(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000, UNREADABLE),
    # interim answers
    "after an interim answer": Case(INTERIM + response(), is_reused=True),
    "after as many interim answers as allowed": Case(
        INTERIM * (INTERIM_ANSWERS_MAX - 1) + response(), is_reused=True
    ),
    "after too many interim answers": Case(
        INTERIM * (INTERIM_ANSWERS_MAX + 1) + response(), FLOODED
    ),
    "an interim answer and no other": Case(INTERIM, CUT, hangs_up=True),
    "an interim answer with a body": Case(
        b"HTTP/1.1 102 Processing\r\nContent-Length: 3\r\n\r\nabc" + response(), UNREADABLE
    ),
    # more than an answer
    "twice": Case(response() * 2),
    "a thousand times": Case(response() * 1000),
    "with garbage after it": Case(response() + b"garbage", UNREADABLE),
    "longer than it says": Case(response(length=10), UNREADABLE),
    "204 with a body": Case(response(status="204 No Content"), UNREADABLE),
    # less than an answer
    "nothing": Case(b"", CUT, hangs_up=True),
    "a part of the head": Case(b"HTTP/1.1 200 OK\r\nContent-", CUT, hangs_up=True),
    "a head without its body": Case(
        headed("Content-Length: 9", body=b""), CUT_SHORT, hangs_up=True
    ),
    "shorter than it says": Case(response(length=999), CUT_SHORT, hangs_up=True),
    "a part of its chunks": Case(chunked()[:-20], CUT_SHORT, hangs_up=True),
    "chunks without the last line": Case(chunked()[:-2], CUT_SHORT, hangs_up=True),
    # what is no HTTP
    "garbage": Case(b"garbage\r\n\r\n", UNREADABLE),
    "garbage without a line": Case(b"x" * 100, UNREADABLE, hangs_up=True),
    "a body without a head": Case(OK_BODY, UNREADABLE, hangs_up=True),
    "an alert of TLS": Case(b"\x15\x03\x01\x00\x02\x02\x28", UNREADABLE, hangs_up=True),
    "HTTP/2": Case(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", UNREADABLE, hangs_up=True),
    "status 99": Case(response(status="99 X"), UNREADABLE),
    "status 1000": Case(response(status="1000 X"), UNREADABLE),
    "a header without a name": Case(response(headers="X y: 1\r\n"), UNREADABLE),
    "a header with a zero byte": Case(response(headers="X: a\0b\r\n"), UNREADABLE),
    "a length below zero": Case(headed("Content-Length: -1"), UNREADABLE),
    "a length beyond all bounds": Case(headed(f"Content-Length: {'9' * 23}"), UNREADABLE),
    "two lengths": Case(headed("Content-Length: 5", "Content-Length: 6"), UNREADABLE),
    "a length, and chunks": Case(
        headed("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), UNREADABLE
    ),
    "a chunk without a length": Case(
        headed("Transfer-Encoding: chunked", body=b"zz\r\n"), UNREADABLE
    ),
    "a chunk beyond all bounds": Case(
        headed("Transfer-Encoding: chunked", body=b"f" * 18 + b"\r\nxx"), UNREADABLE
    ),
    "not compressed, as it says": Case(compressed(b"xx" + gzip.compress(OK_BODY)), CUT_SHORT),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_an_answer_has_its_reply_and_leaves_the_next_call_alone(case: Case) -> None:
    connections: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_first = not connections
        connections.append(0)
        while True:
            await request_of(reader)
            connections[-1] += 1
            if is_first and connections[-1] == 1:
                writer.write(case.sends)
                if case.hangs_up:
                    return
            else:
                writer.write(response())

    async with client_of(handler) as client:
        assert await import_one(client) == case.reply
        assert await import_one(client) == IMPORTED
    assert connections == ([2] if case.is_reused else [1, 1])


ANSWERS = {
    "with a length": response(),
    "in chunks": chunked(),
    "compressed": compressed(gzip.compress(OK_BODY)),
    "after an interim answer": INTERIM + response(),
    "503": response(b"<html>", "503 Unavailable", headers="Retry-After: 7\r\n"),
}


@pytest.mark.parametrize("content", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_may_come_in_any_pieces(content: bytes) -> None:
    in_pieces = [[content[:place], content[place:]] for place in range(len(content))]
    in_pieces.append([content[place : place + 1] for place in range(len(content))])
    to_send = iter(in_pieces)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            for piece in next(to_send):
                writer.write(piece)
                for _ in range(3):  # rounds of the loop in which the client reads the piece
                    await asyncio.sleep(0)

    async with client_of(answering(content)) as client:
        whole = await import_one(client)
    async with client_of(handler) as client:
        for pieces in in_pieces:
            assert await import_one(client) == whole, pieces


@pytest.mark.parametrize("content", ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_that_is_cut_anywhere_is_a_failure_and_may_have_taken_effect(
    content: bytes,
) -> None:
    to_send = iter([content[:place] for place in range(len(content))])

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(next(to_send))

    async with client_of(handler) as client:
        for place in range(len(content)):
            reply = await import_one(client)
            assert reply.code is None, place
            assert reply.failure, place
            assert reply.may_have_taken_effect, place
            assert "eJsecret" not in repr(reply)


async def test_nothing_of_an_answer_is_left_for_the_next_one() -> None:
    contents = [
        chunked(trailers=b"Retry-After: 9\r\nContent-Encoding: gzip\r\n"),
        response(b"{}", "503 Unavailable"),
        compressed(gzip.compress(OK_BODY)),
        response(),
        chunked(LARGE[:60_000], step=1),
        response(b"{}", "503 Unavailable"),
        chunked(),
    ]
    to_send = iter(contents)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            writer.write(next(to_send))

    async with client_of(handler) as client:
        replies = [await import_one(client) for _ in contents]
    unavailable = refused(503, reached=True)
    assert replies == [
        IMPORTED, unavailable, IMPORTED, IMPORTED, NO_CODE, unavailable, IMPORTED
    ]  # fmt: skip
