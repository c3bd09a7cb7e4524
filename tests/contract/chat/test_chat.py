"""The client on real sockets: however a call ends, it returns a Reply."""

import asyncio
from typing import Any

import orjson
import pytest

from tests.support.raw_server import (
    OK_BODY,
    SIGNATURE,
    Handler,
    answering,
    client_of,
    request_of,
    response,
)
from worker.chat import (
    TOPICS_BYTES_MAX,
    Endpoint,
    ImportTopicClient,
    proxy_from_environment,
    read_reply,
)
from worker.rules.comparison import TopicsReply
from worker.rules.usersig import Signature, sign
from worker.rules.verdict import Reply, SetupFault
from worker.transport.connections import INTERIM_ANSWERS_MAX

pytestmark = pytest.mark.usefixtures("transport")


async def ask(
    handler: Handler, *, times: int = 1, total_timeout_s: float = 5.0, path: str = "v4/x/y"
) -> list[Reply]:
    """Call a raw server `times` times, one call after the other. Returns the replies."""
    async with client_of(handler, total_timeout_s=total_timeout_s, path=path) as client:
        return [await client.import_topic(b'{"a":"\xe8\xaf\x9d"}', SIGNATURE) for _ in range(times)]


async def one_reply(handler: Handler, *, total_timeout_s: float = 5.0) -> Reply:
    """Call a raw server once."""
    (reply,) = await ask(handler, total_timeout_s=total_timeout_s)
    return reply


async def test_the_request_matches_the_documentation() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(response(OK_BODY))

    reply = await one_reply(handler)
    assert reply == Reply(status=200, code=0, topic_id="t", action_status="OK")
    line, rest = seen[0].split(b"\r\n", 1)
    assert line == (
        b"POST /v4/x/y?sdkappid=1400000000&identifier=ad%20min&usersig=eJsecret*-_"
        b"&contenttype=json&random=4294967295 HTTP/1.1"
    )
    *headers, _, body = rest.split(b"\r\n")
    assert [header.split(b":")[0] for header in headers] == [
        b"Host",
        b"Content-Type",
        b"User-Agent",
        b"Accept",
        b"Accept-Encoding",
        b"Content-Length",
    ]
    assert headers[1:3] == [
        b"Content-Type: application/json; charset=utf-8",
        b"User-Agent: topic-import",
    ]
    assert body == '{"a":"话"}'.encode()


async def test_connections_are_reused() -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(response(OK_BODY))(reader, writer)

    replies = await ask(handler, times=5)
    assert [reply.code for reply in replies] == [0] * 5
    assert connections == 1


@pytest.mark.parametrize(
    ("content", "failure"),
    [
        (response(b""), "an empty answer"),
        (response(b"<html>"), "an answer without an ErrorCode"),
        (response(b"[]"), "an answer without an ErrorCode"),
        (response(b'{"ErrorCode":"0"}'), "an answer without an ErrorCode"),
        (response(b'{"ErrorCode":true}'), "an answer without an ErrorCode"),
        (response(OK_BODY[:20]), "an answer without an ErrorCode"),
        (response(b"x", "502 Bad Gateway"), "HTTP 502"),
        (response(b"x", "408 Request Timeout"), "HTTP 408"),
        (b"garbage\r\n\r\n", "the answer could not be read"),
    ],
)
async def test_a_broken_reply_may_have_taken_effect(content: bytes, failure: str) -> None:
    reply = await one_reply(answering(content))
    assert reply.failure is not None
    assert reply.failure.startswith(failure)
    assert reply.may_have_taken_effect
    assert reply.code is None


@pytest.mark.parametrize("status", ["302 Found", "403 Forbidden", "404 Not Found", "429 Slow"])
async def test_a_gateway_refusal_had_no_effect_and_is_not_followed(status: str) -> None:
    content = f"HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    reply = await one_reply(answering(content.encode()))
    assert reply.failure == f"HTTP {status[:3]}"
    assert not reply.may_have_taken_effect


async def test_a_truncated_reply_may_have_taken_effect() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(response(OK_BODY, length=len(OK_BODY) + 10))
        await writer.drain()

    reply = await one_reply(handler)
    assert (reply.failure, reply.may_have_taken_effect) == ("the answer was cut short", True)


async def test_a_connection_cut_before_the_reply_may_have_taken_effect() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.transport.abort()

    reply = await one_reply(handler)
    assert reply.failure == "the connection was cut before the answer"
    assert reply.may_have_taken_effect


async def test_a_slow_reply_may_have_taken_effect() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        await reader.read()

    reply = await one_reply(handler, total_timeout_s=0.2)
    assert (reply.failure, reply.may_have_taken_effect) == ("no answer in time", True)


async def test_an_endless_reply_is_read_to_a_bound() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(response(b"", length=10**9))
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    assert (await one_reply(handler)).failure == "an answer without an ErrorCode"


async def test_a_call_without_a_connection_had_no_effect() -> None:
    async with ImportTopicClient(Endpoint("http://127.0.0.1:9", "p", 1, "a")) as client:
        reply = await client.import_topic(b"{}", SIGNATURE)
    assert reply.failure == "cannot connect: Connection refused"
    assert not reply.may_have_taken_effect


async def test_a_server_without_tls_is_a_failure_without_fallback() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint = Endpoint(f"https://127.0.0.1:{port}", "p", 1, "a", 1.0, 2.0)
    async with ImportTopicClient(endpoint) as client:
        reply = await client.import_topic(b"{}", SIGNATURE)
    server.close()
    assert reply.failure is not None
    assert "eJsecret" not in reply.failure
    assert not reply.may_have_taken_effect


def test_the_service_message_is_bounded_and_free_of_signatures() -> None:
    info = "https://x/?usersig=eJabc&random=1 " + "x" * 10_000
    reply = read_reply(200, b'{"ErrorCode":10004,"ErrorInfo":"%s"}' % info.encode())
    assert len(reply.info) == 500
    assert "eJabc" not in reply.info


async def topics_of(handler: Handler, *topic_ids: str, timeout_s: float = 5.0) -> TopicsReply:
    async with client_of(handler, total_timeout_s=timeout_s) as client:
        return await client.get_topics("@TGS#_g", topic_ids, SIGNATURE)


def reply_of(**members: Any) -> Handler:
    return answering(response(orjson.dumps({"ActionStatus": "OK", "ErrorCode": 0} | members)))


@pytest.mark.parametrize(
    ("topic_ids", "asked"),
    [((), {}), (("a", "b"), {"TopicIdList": ["a", "b"]})],
)
async def test_the_request_of_get_topic_matches_the_documentation(
    topic_ids: tuple[str, ...], asked: dict[str, Any]
) -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(response(b'{"ErrorCode":0}'))

    await topics_of(handler, *topic_ids)
    line, rest = seen[0].split(b"\r\n", 1)
    assert line == (
        b"POST /v4/million_group_open_http_svc/get_topic?sdkappid=1400000000&identifier=ad%20min"
        b"&usersig=eJsecret*-_&contenttype=json&random=4294967295 HTTP/1.1"
    )
    body = orjson.loads(rest.split(b"\r\n\r\n")[1])
    assert body == {"GroupId": "@TGS#_g", "From_Account": "ad min"} | asked


async def test_each_call_goes_to_its_own_path_with_the_latest_signature() -> None:
    lines: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            lines.append((await request_of(reader)).split(b"&contenttype")[0])
            writer.write(response(OK_BODY))

    async with client_of(handler) as client:
        for signature in (SIGNATURE, Signature("eJnew", 2), SIGNATURE):
            await client.import_topic(b"{}", signature)
            await client.get_topics("@TGS#_g", [], signature)
    paths = [line.split(b"?")[0].split(b"/")[-1] for line in lines]
    signatures = [line.split(b"usersig=")[1] for line in lines]
    assert paths == [b"y", b"get_topic"] * 3
    assert signatures == [b"eJsecret*-_"] * 2 + [b"eJnew"] * 2 + [b"eJsecret*-_"] * 2


async def test_topics_and_item_codes_are_read() -> None:
    items = [{"ErrorCode": 0, "TopicInfo": {"TopicId": "a"}}, {"ErrorCode": 10010}]
    reply = await topics_of(reply_of(TopicAndSelfInfo=items), "a", "b")
    assert reply == TopicsReply(200, 0, topics={"a": {"TopicId": "a"}}, item_codes={"b": 10010})


@pytest.mark.parametrize("code", [0, 10010, 123])
async def test_the_code_of_a_call_that_returned_items_means_nothing(code: int) -> None:
    items = [{"ErrorCode": 0, "TopicInfo": {"TopicId": "a"}}]
    reply = await topics_of(reply_of(ErrorCode=code, TopicAndSelfInfo=items), "a")
    assert (reply.code, set(reply.topics)) == (0, {"a"})


async def test_a_refused_call_of_get_topic_keeps_its_code() -> None:
    reply = await topics_of(reply_of(ErrorCode=10007, ErrorInfo="no", TopicAndSelfInfo=[]), "a")
    assert reply == TopicsReply(200, 10007, "no")


async def test_items_of_another_shape_are_no_topics() -> None:
    assert await topics_of(reply_of(TopicAndSelfInfo="x"), "a") == TopicsReply(200, 0)


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (response(b"<html>"), TopicsReply(200, failure="an answer without an ErrorCode")),
        (response(b""), TopicsReply(200, failure="an empty answer")),
        (response(b"no", "502 Bad Gateway"), TopicsReply(502, failure="HTTP 502")),
        (b"", TopicsReply(failure="the connection was cut before the answer")),
    ],
)
async def test_a_failure_of_get_topic_is_a_reply(content: bytes, reply: TopicsReply) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(content)
        await writer.drain()

    assert await topics_of(handler, "a") == reply


async def test_a_reply_of_topics_is_read_to_its_own_bound() -> None:
    items = [{"ErrorCode": 0, "TopicInfo": {"TopicId": "a", "CustomString": "x" * 1_000_000}}]
    assert set((await topics_of(reply_of(TopicAndSelfInfo=items), "a")).topics) == {"a"}


async def test_a_reply_of_topics_beyond_the_bound_asks_for_less() -> None:
    items = [{"TopicInfo": {"TopicId": "a", "CustomString": "x" * TOPICS_BYTES_MAX}}]
    assert (await topics_of(reply_of(TopicAndSelfInfo=items), "a")).code == 10018


async def test_a_slow_reply_of_topics_is_a_failure() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        await reader.read()

    assert (await topics_of(handler, timeout_s=0.2)).failure == "no answer in time"


def test_proxies_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_from_environment("https://x.example") == "http://proxy.example:3128"
    assert proxy_from_environment("https://inside.example") is None
    assert proxy_from_environment("https://127.0.0.1:8080") is None
    assert proxy_from_environment("http://x.example") is None


async def test_interim_answers_before_the_answer_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    replies = await ask(answering(interim + response(OK_BODY)), times=INTERIM_ANSWERS_MAX)
    assert {reply.code for reply in replies} == {0}


async def test_endless_interim_answers_end_as_a_failed_ambiguous_reply(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
            await writer.drain()

    first, second = await ask(handler, times=2, total_timeout_s=60.0)
    assert first == second
    assert "interim answers" in (first.failure or "")
    assert first.may_have_taken_effect
    assert caplog.records == []


async def test_answers_that_nobody_asked_for_are_not_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replies = await ask(answering(response(OK_BODY) * 1000), times=3)
    assert [reply.code for reply in replies] == [0, 0, 0]
    assert caplog.records == []


async def test_a_server_that_speaks_no_tls_is_named_by_its_reason() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(response(OK_BODY))
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint = Endpoint(f"https://127.0.0.1:{port}", "v4/x/y", 1400000000, "admin")
    async with ImportTopicClient(endpoint) as client:
        reply = await client.import_topic(b"{}", SIGNATURE)
    server.close()
    fault = SetupFault.ADDRESS
    reason = "wrong version number (the server does not speak TLS: is it plain http?)"
    assert reply == Reply(failure=f"TLS failed: {reason}", setup_fault=fault)


async def test_an_echoed_signature_is_redacted_whoever_made_it() -> None:
    usersig = sign(1400000000, "administrator", "5" * 64, issued_s=1, life_s=86400)
    body = orjson.dumps({"ErrorCode": 70003, "ErrorInfo": f"bad {usersig}, cut {usersig[:60]}"})
    reply = await one_reply(answering(response(body)))
    assert reply.info == "bad [redacted], cut [redacted]"
