"""The admin endpoint on a real socket: what monitors, probes and people get, and nothing more."""

import asyncio
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import aiohttp
import pytest

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
class Answer:
    """What came back over HTTP."""

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


def tell(
    *requests: str, status: Callable[[], Status] = lambda: READY, listen: str = "127.0.0.1:0"
) -> list[Answer]:
    """Ask a server of our own, `METHOD path` or only the path; one after the other."""

    async def ask() -> list[Answer]:
        async with (
            AdminServer(listen, status, some_metrics()) as server,
            aiohttp.ClientSession() as session,
        ):
            answers = []
            for request in requests:
                method, _, path = request.rpartition(" ")
                async with session.request(method or "GET", server.url + path) as response:
                    text = await response.text()
                    answers.append(Answer(response.status, text, response.headers))
            return answers

    return asyncio.run(ask())


def raw(*requests: bytes) -> list[bytes]:
    """Send bytes as they are, each on a connection of its own; all that is answered."""

    async def ask() -> list[bytes]:
        async with AdminServer("127.0.0.1:0", lambda: READY, some_metrics()) as server:
            answers = []
            for request in requests:
                port = int(server.url.rpartition(":")[2])
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                answers.append(await reader.read())
                writer.close()
            return answers

    return asyncio.run(ask())


def test_a_service_that_runs_is_alive_and_ready() -> None:
    alive, ready = tell("/healthz", "/readyz")
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
def test_a_service_that_is_not_ready_says_why_and_is_alive(reason: str) -> None:
    status = Status(ready=False, reason=reason, facts={})
    alive, ready, page = tell("/healthz", "/readyz", "/", status=lambda: status)
    assert alive.status == 200
    assert (ready.status, ready.text) == (503, reason)
    assert page.status == 200
    assert f"<h1>topic-import: not ready</h1>\n<p>{reason}</p>" in page.text


def test_readiness_is_told_anew_every_time_and_in_one_line() -> None:
    reasons = iter(["halted:\n  look\r\nhere", "", "draining"])

    def status() -> Status:
        return Status(ready=False, reason=next(reasons), facts={})

    answers = tell("/readyz", "/readyz", "/readyz", status=status)
    assert [answer.text for answer in answers] == ["halted: look here", "not ready", "draining"]


def test_the_metrics_have_the_content_type_of_their_format() -> None:
    (answer,) = tell("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == CONTENT_TYPE
    assert "\ntopic_import_queued 7.0\n" in answer.text


def test_the_page_shows_the_facts_and_leads_to_the_others() -> None:
    (page,) = tell("/?from=somewhere")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<th scope="row">read</th><td>12 = 3 queued + 8 imported' in page.text
    assert '<meta http-equiv="refresh" content="5">' in page.text
    assert re.findall(r'href="(.*?)"', page.text) == ["healthz", "readyz", "metrics"]
    assert "<script" not in page.text
    assert "src=" not in page.text
    assert "http:" not in page.text
    assert len(page.text) < 2000


def test_no_value_can_write_into_the_page_and_no_secret_is_shown() -> None:
    keep_secret(SECRET)
    status = Status(
        ready=False,
        reason=f"<b>{SECRET}</b> redis://user:hunter2@host/0 usersig=eJabc {{state}}",
        facts={'<i>"queue"': f"<script>{SECRET}</script>", "{rows}": "&amp;"},
    )
    page, ready = tell("/", "/readyz", status=lambda: status)
    for answer in (page, ready):
        for hidden in (SECRET, "s3cr", "t&amp;key", "hunter2", "eJabc"):
            assert hidden not in answer.text
    for markup in ("<b>", "<i>", "<script"):
        assert markup not in page.text
    assert '<th scope="row">&lt;i&gt;&quot;queue&quot;</th>' in page.text
    assert '<th scope="row">{rows}</th><td>&amp;amp;</td>' in page.text


@pytest.mark.parametrize("path", ["/other", "/healthz/", "/metrics/../healthz2", "/favicon.ico"])
def test_any_other_path_is_not_found(path: str) -> None:
    (answer,) = tell(path)
    assert answer.status == 404
    assert answer.text == "not found: there are /, /healthz, /readyz and /metrics"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", PATHS)
def test_only_reading_is_allowed(path: str) -> None:
    posted, deleted, head, got = tell(f"POST {path}", f"DELETE {path}", f"HEAD {path}", path)
    for answer in (posted, deleted):
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"
    assert (head.status, head.text) == (200, "")
    assert head.headers["Content-Length"] == str(len(got.text.encode()))


def test_what_wrote_the_server_is_told_to_nobody() -> None:
    answers = tell(*PATHS, "/other", "POST /")
    heads = [f"{answer.headers}{answer.text}" for answer in answers]
    broken = raw(b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n")
    assert all(b" 400 Bad Request\r\n" in answer for answer in broken)
    for text in (*heads, *(answer.decode() for answer in broken)):
        assert "aiohttp" not in text.lower()
        assert "python" not in text.lower()
        assert "topic-import" in text


def test_what_is_no_http_is_answered_shortly_and_not_logged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    (answer,) = raw(b"GET / HTTP/1.1\r\n" + b"x" * 20_000 + b"\r\n\r\n")
    assert answer.partition(b"\r\n\r\n")[2] == b"bad request"
    assert "".join(capfd.readouterr()) == ""


def test_a_status_that_fails_is_500_without_details_and_logged_once_until_it_is_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    turn = 0

    def status() -> Status:
        nonlocal turn
        turn += 1
        if turn == 4:
            return READY
        raise RuntimeError("the inner trouble")

    answers = tell("/readyz", "/", "/readyz", "/readyz", "/healthz", "/metrics", status=status)
    assert [answer.status for answer in answers] == [500, 500, 500, 200, 200, 200]
    for answer in answers[:3]:
        assert answer.text == "the status cannot be shown; the log says why"
    told = "".join(capsys.readouterr())
    assert told.count("the admin endpoint failed") == 1
    assert told.count("RuntimeError: the inner trouble") == 1
    tell("/readyz", status=status)
    assert "the admin endpoint failed" in "".join(capsys.readouterr())


def machine_has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_an_ipv6_address_stands_in_brackets() -> None:
    async def url() -> str:
        async with AdminServer("[::1]:0", lambda: READY, some_metrics()) as server:
            return server.url

    if not machine_has_ipv6():
        with pytest.raises(AdminError, match=r"admin\.listen"):
            asyncio.run(url())
        return
    assert re.fullmatch(r"http://\[::1\]:[1-9]\d+", asyncio.run(url()))
    (alive,) = tell("/healthz", listen="[::1]:0")
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
def test_a_bad_address_is_refused_with_a_sentence(listen: str, trouble: str) -> None:
    with pytest.raises(AdminError, match=re.escape(trouble)) as caught:
        tell(listen=listen)
    assert str(caught.value).startswith("admin.listen: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_taken_address_is_refused_with_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AdminError) as caught:
            tell(listen=listen)
    assert str(caught.value) == (
        f"admin.listen: {listen}: another process listens there: "
        "choose another port, or 0 for a free one"
    )


def test_a_password_in_the_address_is_not_repeated() -> None:
    with pytest.raises(AdminError) as caught:
        tell(listen="redis://user:hunter2@host:port")
    assert "hunter2" not in str(caught.value)


def test_connections_beyond_the_bound_are_cut_and_the_others_served() -> None:
    async def ask() -> tuple[bytes, bytes]:
        async with AdminServer("127.0.0.1:0", lambda: READY, some_metrics()) as server:
            port = int(server.url.rpartition(":")[2])
            held = [
                await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)
            ]
            await asyncio.sleep(0.1)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                cut = await reader.read()
            except ConnectionError:
                cut = b""
            writer.close()
            held[0][1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            served = await held[0][0].read()
            for _, kept in held:
                kept.close()
            return cut, served

    cut, served = asyncio.run(ask())
    assert cut == b""
    assert served.endswith(b"\r\n\r\nok")


def test_the_end_does_not_wait_for_idle_connections_and_frees_the_address() -> None:
    async def end() -> tuple[float, bytes, str]:
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
            return took_s, rest, server.url.removeprefix("http://") + address

    took_s, rest, addresses = asyncio.run(end())
    assert took_s < 2
    assert rest == b""
    assert addresses[: len(addresses) // 2] == addresses[len(addresses) // 2 :]


def test_a_ready_service_may_have_something_to_say_on_its_page() -> None:
    (page,) = tell("/", status=lambda: replace(READY, reason="slow: half of the quota"))
    assert "<h1>topic-import: ready</h1>\n<p>slow: half of the quota</p>" in page.text
