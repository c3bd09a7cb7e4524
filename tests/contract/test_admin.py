"""The admin endpoint on a real socket: what monitors, probes and people receive."""

import asyncio
import gc
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import aiohttp
import pytest

from worker.monitoring import admin
from worker.monitoring.admin import CONNECTIONS_MAX, AdminError, AdminServer, Status
from worker.monitoring.metrics import CONTENT_TYPE, Gauges, Metrics
from worker.redaction import keep_secret

READY = Status(
    ready=True,
    reason="",
    facts={"state": "run", "read": "12 = 3 queued + 8 imported + 1 dead + 0 duplicate"},
)
PATHS = ["/", "/healthz", "/readyz", "/metrics"]
SECRET = "s3cr<t&key"


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    status: int
    text: str
    headers: Mapping[str, str]


def some_metrics() -> Metrics:
    gauges = Gauges(
        in_flight=lambda: 0,
        waiting_for_retry=lambda: 0,
        waiting_for_turn=lambda: 0,
        oldest_pending_s=lambda: 0,
        queued=lambda: 7,
        rate_in_force_per_s=lambda: 0,
        calls_started=lambda: 0,
        signature_age_s=lambda: 0,
        ready=lambda: 1,
        state=lambda: "run",
    )
    return Metrics(gauges, quota_per_s=200.0, clock=lambda: 0.0)


async def get(
    *requests: str, status: Callable[[], Status] = lambda: READY, listen: str = "127.0.0.1:0"
) -> list[Response]:
    """Send requests to a server of this call, one after the other. Returns the responses.

    A request is a path to GET, or `METHOD path`.
    """
    async with (
        AdminServer(listen, status, some_metrics()) as server,
        aiohttp.ClientSession() as session,
    ):
        answers = []
        for request in requests:
            method, _, path = request.rpartition(" ")
            async with session.request(method or "GET", server.url + path) as response:
                text = await response.text()
                answers.append(Response(response.status, text, response.headers))
        return answers


async def send_raw(*requests: bytes) -> list[bytes]:
    """Send bytes as they are, each on a connection of its own. Returns what came back on each."""
    async with AdminServer("127.0.0.1:0", lambda: READY, some_metrics()) as server:
        answers = []
        for request in requests:
            port = int(server.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answers.append(await reader.read())
            writer.close()
        return answers


async def test_a_running_service_is_alive_and_ready() -> None:
    alive, ready = await get("/healthz", "/readyz")
    assert (alive.status, alive.text) == (200, "ok")
    assert (ready.status, ready.text) == (200, "ready")
    assert ready.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "reason",
    [
        "draining: 37 in flight, 12 waiting for retry, 18 s left",
        "halted (70009): the signature is not valid",
        "outage: asking now and then for 12 s",
        "queue: Redis cannot be reached",
    ],
)
async def test_a_service_that_is_not_ready_gives_its_reason(reason: str) -> None:
    status = Status(ready=False, reason=reason, facts={})
    alive, ready, page = await get("/healthz", "/readyz", "/", status=lambda: status)
    assert alive.status == 200
    assert (ready.status, ready.text) == (503, reason)
    assert page.status == 200
    assert f"<h1>topic-import: not ready</h1>\n<p>{reason}</p>" in page.text


async def test_readiness_is_read_each_time_and_fits_one_line() -> None:
    reasons = iter(["halted:\n  look\r\nhere", "", "draining"])

    def status() -> Status:
        return Status(ready=False, reason=next(reasons), facts={})

    answers = await get("/readyz", "/readyz", "/readyz", status=status)
    assert [answer.text for answer in answers] == [
        r"halted:\n  look\r\nhere",
        "not ready",
        "draining",
    ]


async def test_the_metrics_have_the_prometheus_content_type() -> None:
    (answer,) = await get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == CONTENT_TYPE
    assert "\ntopic_import_queued 7.0\n" in answer.text


async def test_the_page_shows_the_facts_and_links_the_others() -> None:
    (page,) = await get("/?from=somewhere")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<th scope="row">read</th><td>12 = 3 queued + 8 imported' in page.text
    assert '<meta http-equiv="refresh" content="5">' in page.text
    assert re.findall(r'href="(.*?)"', page.text) == ["healthz", "readyz", "metrics"]
    assert "<script" not in page.text
    assert "src=" not in page.text
    assert "http:" not in page.text
    assert len(page.text) < 2000


async def test_values_are_escaped_and_secrets_are_hidden() -> None:
    keep_secret(SECRET)
    status = Status(
        ready=False,
        reason=f"<b>{SECRET}</b> redis://user:hunter2@host/0 usersig=eJabc {{state}}",
        facts={'<i>"queue"': f"<script>{SECRET}</script>", "{rows}": "&amp;"},
    )
    page, ready = await get("/", "/readyz", status=lambda: status)
    for answer in (page, ready):
        for hidden in (SECRET, "s3cr", "t&amp;key", "hunter2", "eJabc"):
            assert hidden not in answer.text
    for markup in ("<b>", "<i>", "<script"):
        assert markup not in page.text
    assert '<th scope="row">&lt;i&gt;&quot;queue&quot;</th>' in page.text
    assert '<th scope="row">{rows}</th><td>&amp;amp;</td>' in page.text


@pytest.mark.parametrize("path", ["/other", "/healthz/", "/metrics/../healthz2", "/favicon.ico"])
async def test_any_other_path_is_not_found(path: str) -> None:
    (answer,) = await get(path)
    assert answer.status == 404
    assert answer.text == "not found: there are /, /healthz, /readyz and /metrics"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", PATHS)
async def test_only_get_and_head_are_allowed(path: str) -> None:
    posted, deleted, head, got = await get(f"POST {path}", f"DELETE {path}", f"HEAD {path}", path)
    for answer in (posted, deleted):
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"
    assert (head.status, head.text) == (200, "")
    assert head.headers["Content-Length"] == str(len(got.text.encode()))


async def test_no_response_names_the_server_library() -> None:
    answers = await get(*PATHS, "/other", "POST /")
    heads = [f"{answer.headers}{answer.text}" for answer in answers]
    broken = await send_raw(
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"
    )
    assert all(b" 400 Bad Request\r\n" in answer for answer in broken)
    for text in (*heads, *(answer.decode() for answer in broken)):
        assert "aiohttp" not in text.lower()
        assert "python" not in text.lower()
        assert "topic-import" in text


async def test_invalid_http_gets_a_short_response_and_no_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    (answer,) = await send_raw(b"GET / HTTP/1.1\r\n" + b"x" * 20_000 + b"\r\n\r\n")
    assert answer.partition(b"\r\n\r\n")[2] == b"bad request"
    assert "".join(capfd.readouterr()) == ""


async def test_a_failing_status_is_500_and_logged_once_until_it_recovers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    turn = 0

    def status() -> Status:
        nonlocal turn
        turn += 1
        if turn == 4:
            return READY
        raise RuntimeError("the inner trouble")

    answers = await get("/readyz", "/", "/readyz", "/readyz", "/healthz", "/metrics", status=status)
    assert [answer.status for answer in answers] == [500, 500, 500, 200, 200, 200]
    for answer in answers[:3]:
        assert answer.text == "the status cannot be shown; the log says why"
    logged = "".join(capsys.readouterr())
    assert logged.count("the admin endpoint failed") == 1
    assert logged.count("RuntimeError: the inner trouble") == 1
    await get("/readyz", status=status)
    assert "the admin endpoint failed" in "".join(capsys.readouterr())


def machine_has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_an_ipv6_address_is_written_in_brackets() -> None:
    if not machine_has_ipv6():
        with pytest.raises(AdminError, match=r"admin\.listen"):
            await get("/healthz", listen="[::1]:0")
        return
    async with AdminServer("[::1]:0", lambda: READY, some_metrics()) as server:
        url = server.url
    assert re.fullmatch(r"http://\[::1\]:[1-9]\d+", url)
    (alive,) = await get("/healthz", listen="[::1]:0")
    assert alive.text == "ok"


@pytest.mark.parametrize(
    ("listen", "trouble"),
    [
        ("", "wants a port"),
        ("9180", "names no host"),
        (":9180", "names no host"),
        ("localhost", "wants a port"),
        ("localhost:", "wants a port"),
        ("localhost:http", "wants a port"),
        ("localhost:-1", "wants a port"),
        ("localhost:65536", "wants a port"),
        ("localhost:" + "9" * 5000, "wants a port"),
        ("localhost:٣", "wants a port"),
        ("::1:9180", "wants an IPv6 address in brackets"),
        ("http://localhost:9180", "wants an IPv6 address in brackets"),
        ("[localhost]:9180", "no IPv6 address in its brackets"),
        ("[]:9180", "no IPv6 address in its brackets"),
        ("bad..name:0", "cannot be resolved"),
        ("no-such-host.invalid:0", "cannot be resolved"),
        ("192.0.2.1:0", "this machine has no such address"),
    ],
)
async def test_a_bad_address_is_refused_with_a_sentence(listen: str, trouble: str) -> None:
    with pytest.raises(AdminError, match=re.escape(trouble)) as caught:
        await get(listen=listen)
    assert str(caught.value).startswith("admin.listen: ")
    assert len(str(caught.value).splitlines()) == 1


async def test_a_taken_address_is_refused_with_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AdminError) as caught:
            await get(listen=listen)
    assert str(caught.value) == (
        f"admin.listen: {listen}: another process listens there: "
        "choose another port, or 0 for a free one"
    )


async def test_a_password_in_the_address_is_not_repeated() -> None:
    with pytest.raises(AdminError) as caught:
        await get(listen="redis://user:hunter2@host:port")
    assert "hunter2" not in str(caught.value)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[AdminServer], Awaitable[Connection]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Return a function that opens connections, which are closed after the test."""
    writers: list[asyncio.StreamWriter] = []

    async def connect(server: AdminServer) -> Connection:
        port = int(server.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return reader, writer

    yield connect
    for writer in writers:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def alive(connection: Connection) -> bool:
    """Return whether `/healthz` answers on a connection."""
    reader, writer = connection
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        return (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
    except (ConnectionError, asyncio.IncompleteReadError):
        return False


async def test_half_open_connections_do_not_keep_healthz_from_answering(
    connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    async with AdminServer("127.0.0.1:0", lambda: READY, some_metrics()) as server:
        half_open = [await connect(server) for _ in range(2 * CONNECTIONS_MAX)]
        for _, writer in half_open:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert [await alive(await connect(server)) for _ in range(3)] == [True] * 3
    assert "".join(capfd.readouterr()) == ""


async def test_the_connection_that_was_idle_for_longest_makes_room(connect: Connect) -> None:
    async with AdminServer("127.0.0.1:0", lambda: READY, some_metrics()) as server:
        first, second = await connect(server), await connect(server)
        assert await alive(second)
        assert await alive(first)
        others = [await connect(server) for _ in range(CONNECTIONS_MAX - 1)]
        assert await alive(others[-1])
        assert not await alive(second)
        assert await alive(first)


async def test_a_burst_of_connections_is_cut_without_a_traceback(
    connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    async with AdminServer("127.0.0.1:0", lambda: READY, some_metrics()) as server:
        await asyncio.gather(*(connect(server) for _ in range(3 * CONNECTIONS_MAX)))
        assert await alive(await connect(server))
    gc.collect()  # asyncio reports the exception of a task when the task is collected
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("beginning", [b"", b"GET /healthz HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_request_that_does_not_arrive_in_time_is_cut(
    beginning: bytes, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "REQUEST_S", 0.05)
    async with AdminServer("127.0.0.1:0", lambda: READY, some_metrics()) as server:
        reader, writer = await connect(server)
        writer.write(beginning)
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_a_second_request_has_the_same_time_to_arrive(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "REQUEST_S", 0.05)
    async with AdminServer("127.0.0.1:0", lambda: READY, some_metrics()) as server:
        reader, writer = connection = await connect(server)
        assert await alive(connection)
        writer.write(b"GET /healthz HT")
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_controls_of_a_terminal_are_shown_as_escapes() -> None:
    hostile = "bad \x1b[2J\u202evalue\u2028forged"
    status = Status(ready=False, reason=hostile, facts={"state": hostile})
    ready, page = await get("/readyz", "/", status=lambda: status)
    shown = r"bad \x1b[2J\u202evalue\u2028forged"
    assert ready.text == shown
    assert page.text.count(shown) == 2


async def test_closing_ignores_idle_connections_and_frees_the_address() -> None:
    loop = asyncio.get_running_loop()
    async with AdminServer("127.0.0.1:0", lambda: READY, some_metrics()) as server:
        address = server.url.removeprefix("http://")
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ok")
        began_s = loop.time()
    took_s = loop.time() - began_s
    rest = await reader.read()
    writer.close()
    async with AdminServer(address, lambda: READY, some_metrics()) as server:
        addresses = server.url.removeprefix("http://") + address
    assert took_s < 2
    assert rest == b""
    assert addresses[: len(addresses) // 2] == addresses[len(addresses) // 2 :]


async def test_a_ready_service_may_show_a_reason_on_its_page() -> None:
    (page,) = await get("/", status=lambda: replace(READY, reason="slow: half of the quota"))
    assert "<h1>topic-import: ready</h1>\n<p>slow: half of the quota</p>" in page.text
