"""The doctor: each thing that is broken is found, named, and said what to do about."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from tests.support.processes import APP, KEY, Job, environment, simulator
from tests.support.redis_server import RedisServer, binaries
from tests.support.stand_in import SELF_SIGNED
from tests.support.topics import records
from tests.support.waiting import free_port
from worker.rules.usersig import sign

DURABLE = ("--appendonly", "yes")
OTHER_PATH = "v4/million_group_open_http_svc/import_topic"


@dataclass
class Reply:
    """What a door answers to every call."""

    code: int | None = 10004
    status: int = 200
    body: bytes | None = None
    date: str | None = None
    at_path: str | None = None


@dataclass
class Door:
    """A server that answers as it is told, and remembers who knocked."""

    reply: Reply
    url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def door(reply: Reply, *, is_tls: bool = False) -> Iterator[Door]:
    opened = Door(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            path = self.path.partition("?")[0].strip("/")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            opened.asked.append((path, orjson.loads(body)))
            is_here = reply.at_path is None or path == reply.at_path
            answer = {"ActionStatus": "FAIL", "ErrorCode": reply.code, "ErrorInfo": "no"}
            content = orjson.dumps(answer) if reply.body is None else reply.body
            self.send_response(reply.status if is_here else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return reply.date or formatdate(usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if is_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(SELF_SIGNED)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    opened.url = f"http{'s' * is_tls}://127.0.0.1:{server.server_port}"
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        yield opened
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@dataclass
class Diagnosis:
    """What the doctor said."""

    code: int
    facts: dict[str, Any]

    def of(self, name: str) -> tuple[str, str]:
        """Return the result of a check, and its message with the advice."""
        found = [check for check in self.facts["checks"] if check["name"] == name]
        assert found, f"{name} is not in {self.facts}"
        return found[0]["result"], f"{found[0]['message']} -> {found[0]['advice']}"


def examine(job: Job, *words: str | Path, **settings: Any) -> Diagnosis:
    done = job.run("doctor", "--json", *words, **settings)
    assert KEY.encode() not in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
    facts = orjson.loads(done.stdout)
    assert done.returncode == (1 if facts["fail"] else 0), facts
    assert facts["calls"] <= 5
    return Diagnosis(done.returncode, facts)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Return a function that starts a Redis with these options."""
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        directory = tmp_path / "redis"
        directory.mkdir()
        started.append(RedisServer(binaries()[0], directory, *options))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.kill()


def test_where_all_is_well_nothing_fails_and_nothing_is_made(tmp_path: Path) -> None:
    with simulator() as service:
        job = Job(tmp_path, service.url)
        found = examine(job, "--base-url", service.url)
        assert found.code == 0
        assert {check["result"] for check in found.facts["checks"]} == {"pass"}
        assert found.facts["calls"] == 2
        ledger = service.ledger()
        assert (ledger["created"], ledger["calls"], ledger["get_topic_calls"]) == (0, 1, 1)
        assert not job.out.exists()
        assert not list(tmp_path.iterdir()), "no trace is left"
        said = job.run("doctor", "--base-url", service.url).stdout.decode()
        assert "pass  import_topic " in said
        assert said.splitlines()[-1].startswith("13 pass, 0 warn, 0 fail")


def test_no_call_follows_a_refused_signature(tmp_path: Path) -> None:
    with simulator() as service:
        job = Job(tmp_path, service.url)
        found = examine(job, "--base-url", service.url, APP__SECRET_KEY="f" * 64)
        assert found.of("import_topic")[0] == "fail"
        assert "70009" in found.of("import_topic")[1]
        assert "the key is wrong" in found.of("import_topic")[1]
        assert found.of("not checked")[1].startswith("get_topic ")
        ledger = service.ledger()
        assert (ledger["calls"], ledger["get_topic_calls"]) == (1, 0)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (60020, "buy or renew it"),
        (60026, "check app.region"),
        (70020, "check app.sdk_app_id"),
        (70001, "clock is wrong"),
        (60010, "administrator"),
        (60021, "list of IPs"),
        (11000, "switch topics on"),
        (10019, "app.admin must be an account of the app"),
        (60999, "ask Tencent Cloud"),
    ],
)
def test_a_refusal_of_the_app_is_explained(offline_job: Job, code: int, advice: str) -> None:
    with door(Reply(code)) as service:
        result, said = examine(offline_job, "--base-url", service.url).of("import_topic")
    assert result == "fail"
    assert str(code) in said
    assert advice in said
    assert {path for path, _ in service.asked[:1]} == {"v4/group_open_http_svc/import_topic"}
    assert service.asked[0][1] == {"GroupId": "topic-import-doctor"}, "it can make nothing"


@pytest.mark.parametrize("code", [10002, 60007, 60008])
def test_a_failure_that_may_pass_is_tried_once_more(offline_job: Job, code: int) -> None:
    with door(Reply(code)) as service:
        found = examine(offline_job, "--base-url", service.url)
    assert found.of("import_topic")[0] == "warn"
    assert len(service.asked) == found.facts["calls"] == 4


@pytest.mark.parametrize("code", [70001, 70003, 70009, 70050, 60004, 60025])
def test_a_refused_signature_is_never_sent_again(offline_job: Job, code: int) -> None:
    with door(Reply(code)) as service:
        found = examine(offline_job, "--base-url", service.url)
    assert found.of("import_topic")[0] == "fail"
    assert len(service.asked) == found.facts["calls"] == 1


def test_the_other_path_is_proposed_where_it_answers(offline_job: Job) -> None:
    with door(Reply(at_path=OTHER_PATH)) as service:
        result, said = examine(offline_job, "--base-url", service.url).of("import_topic")
    assert result == "fail"
    assert f'set app.path = "{OTHER_PATH}"' in said


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=404, body=b"<html>"), "HTTP 404 -> check app.base_url"),
        (Reply(status=302, body=b""), "HTTP 302 -> check app.base_url"),
        (Reply(status=502, body=b"<html>"), "HTTP 502: a gateway answers in place of the service"),
        (Reply(body=b"<html>welcome"), "an answer without an ErrorCode -> check app.base_url"),
        (Reply(0), "a call that must be refused was accepted"),
    ],
)
def test_an_answer_of_somebody_else_fails(offline_job: Job, reply: Reply, said: str) -> None:
    with door(reply) as service:
        found = examine(offline_job, "--base-url", service.url)
    assert found.of("import_topic")[0] == "fail"
    assert said in found.of("import_topic")[1]


@pytest.mark.parametrize(
    ("ahead_s", "result"), [(0, "pass"), (120, "warn"), (-7200, "fail"), (90_000, "fail")]
)
def test_the_clock_is_compared_with_the_services(
    offline_job: Job, ahead_s: float, result: str
) -> None:
    with door(Reply(date=formatdate(time.time() - ahead_s, usegmt=True))) as service:
        assert examine(offline_job, "--base-url", service.url).of("clock")[0] == result


def test_the_clock_is_compared_also_where_the_signature_is_refused(offline_job: Job) -> None:
    with door(Reply(70001, date="Wed, 21 Oct 2015 07:28:00 GMT")) as service:
        found = examine(offline_job, "--base-url", service.url)
    assert found.of("clock")[0] == "fail"
    assert len(service.asked) == 1


def test_an_untrusted_certificate_is_named_and_no_call_is_made(offline_job: Job) -> None:
    with door(Reply(), is_tls=True) as service:
        found = examine(offline_job, "--base-url", service.url)
        assert found.of("TLS")[0] == "fail"
        assert "self-signed certificate -> name the certificate" in found.of("TLS")[1]
        assert not service.asked
        trusting = examine(offline_job, "--base-url", service.url, HTTP__CA_FILE=str(SELF_SIGNED))
        assert trusting.of("TLS")[0] == "pass"
        assert trusting.code == 0


def test_a_host_that_cannot_be_reached_fails_at_its_step(offline_job: Job) -> None:
    no_name = examine(offline_job, "--base-url", "https://no-such-host.invalid")
    assert no_name.of("name")[0] == "fail"
    assert no_name.of("not checked")[1].startswith("TCP, TLS, clock, import_topic, get_topic ")
    refused = examine(offline_job, "--base-url", f"https://127.0.0.1:{free_port()}")
    assert "Connection refused" in refused.of("TCP")[1]
    with simulator() as service:
        no_tls = examine(offline_job, "--base-url", service.url.replace("http:", "https:"))
    assert "does not speak TLS" in no_tls.of("TLS")[1]


def test_a_proxy_is_reached_first(offline_job: Job) -> None:
    with door(Reply()) as proxy:
        # It answers every request itself, as a proxy does for plain http.
        found = examine(
            offline_job, "--base-url", "http://chat.example", HTTP__PROXY=proxy.url,
            APP__ALLOW_HTTP="true",
        )  # fmt: skip
        assert "(the proxy)" in found.of("name")[1]
        assert found.of("import_topic")[0] == "pass"
        refused = examine(offline_job, "--base-url", "https://chat.example", HTTP__PROXY=proxy.url)
    assert "the proxy refuses" in refused.of("TLS")[1]


def test_get_topic_that_is_not_allowed_is_a_warning(offline_job: Job) -> None:
    with door(Reply(10007)) as service:
        found = examine(offline_job, "--base-url", service.url)
    assert found.of("get_topic")[0] == "warn"
    assert "cannot be compared" in found.of("get_topic")[1]


def test_wrong_settings_fail_with_their_place_and_the_rest_is_examined(offline_job: Job) -> None:
    (offline_job.directory / "topic-import.toml").write_text("[rate]\ncalls_per_secnd = 5\n")
    found = examine(offline_job, RETRY__MAX_ATTEMPTS="0")
    assert found.code == 1
    messages = [check["message"] for check in found.facts["checks"]]
    assert any("topic-import.toml:2: unknown setting rate.calls_per_secnd" in m for m in messages)
    assert any("TOPIC_IMPORT_RETRY__MAX_ATTEMPTS" in m for m in messages)
    assert found.of("--out")[0] == "pass"


def test_missing_and_unwise_settings_are_named(offline_job: Job) -> None:
    found = examine(
        offline_job, APP__SDK_APP_ID="", APP__SECRET_KEY="", RATE__CALLS_PER_SECOND="500"
    )
    said = {(c["result"], c["message"]) for c in found.facts["checks"] if c["name"] == "settings"}
    assert ("fail", "app.sdk_app_id is not set") in said
    assert ("fail", "no key") in said
    assert ("fail", "no host") in said
    assert any(result == "warn" and "500" in message for result, message in said)
    assert offline_job.run("doctor", "--jsn").returncode == 2, "wrong options are wrong usage"


def test_a_certificate_store_that_is_missing_is_a_wrong_setting(offline_job: Job) -> None:
    found = examine(offline_job, "--base-url", "https://127.0.0.1:9", HTTP__CA_FILE="none.pem")
    messages = [check["message"] for check in found.facts["checks"] if check["result"] == "fail"]
    assert messages == ["http.ca_file none.pem: No such file or directory"]
    assert found.of("not checked")[1].startswith("name, TCP, TLS, clock")


def test_the_key_is_examined(offline_job: Job) -> None:
    directory = offline_job.directory
    key, pem = directory / "key", directory / "pem"
    key.write_text(f"{KEY[:-2]}\n")
    key.chmod(0o644)
    pem.write_text("-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----\n")
    found = examine(offline_job, APP__SECRET_KEY="", APP__SECRET_KEY_FILE="key")
    assert found.of("key")[0] == "warn"
    assert "it has 62 characters" in found.of("key")[1]
    assert "chmod 600 key" in found.of("key file")[1]
    old = examine(offline_job, APP__SECRET_KEY="", APP__SECRET_KEY_FILE="pem")
    assert old.of("key")[0] == "fail"
    assert "HMAC-SHA256" in old.of("key")[1]
    gone = examine(offline_job, APP__SECRET_KEY="", APP__SECRET_KEY_FILE="gone")
    assert "No such file" in gone.of("key")[1]


@pytest.mark.parametrize(
    ("usersig", "result", "said"),
    [
        (sign(int(APP), "administrator", KEY, issued_s=1, life_s=60), "fail", "expired"),
        (sign(7, "administrator", KEY, issued_s=1, life_s=60), "fail", "of the app 7"),
        (sign(int(APP), "bob", KEY, issued_s=1, life_s=60), "fail", "it is of bob"),
        ("x" * 40, "fail", "cannot be unpacked"),
    ],
)
def test_a_ready_signature_is_examined_before_it_is_sent(
    offline_job: Job, usersig: str, result: str, said: str
) -> None:
    with door(Reply()) as service:
        found = examine(
            offline_job, "--base-url", service.url, APP__SECRET_KEY="", APP__USERSIG=usersig
        )
    assert found.of("signature")[0] == result
    assert said in found.of("signature")[1]
    assert not service.asked


def test_places_that_cannot_be_written_fail(offline_job: Job) -> None:
    (offline_job.directory / "file").touch()
    assert examine(offline_job, "--out", "file/out").of("--out")[0] == "fail"
    assert examine(offline_job, "--out", "/proc/out").of("write")[0] == "fail"
    (offline_job.directory / "out").mkdir()
    (offline_job.directory / "out" / "imported.jsonl").symlink_to("/etc/passwd")
    assert "it is a symbolic link" in examine(offline_job).of("--out")[1]


def test_a_full_disk_fails(offline_job: Job) -> None:
    limited = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh"]
    done = subprocess.run(
        [*limited, *offline_job.command("doctor")],
        env=environment(), cwd=offline_job.directory, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.decode().splitlines() if line.startswith("fail  write"))
    assert "File too large" in line


def test_the_embedded_queue_is_examined(tmp_path: Path) -> None:
    with simulator() as service:
        job = Job(tmp_path, service.url)
        assert job.backfill(job.write(records(3))).returncode == 0
    assert "holds 3 records, 0 of them queued" in examine(job).of("queue")[1]
    other = examine(job, RECORDS__KEY_FIELD="id")
    assert other.of("queue")[0] == "fail"
    assert "another key_field" in other.of("queue")[1]
    queue = job.out / "queue.sqlite3"
    queue.rename(tmp_path / "kept")
    assert "import with --adopt" in examine(job).of("queue")[1]
    queue.write_bytes(b"my notes" * 1000)
    assert "not a database" in examine(job).of("queue")[1]


def test_a_redis_that_keeps_all_passes(
    offline_job: Job, server: Callable[..., RedisServer]
) -> None:
    url = server(*DURABLE).url
    found = examine(offline_job, QUEUE__URL=url, RATE__SHARED=url)
    for name in ("queue", "queue version", "queue eviction", "queue persistence", "queue rights"):
        assert found.of(name)[0] == "pass", found.of(name)
    assert found.of("quota")[0] == found.of("quota rights")[0] == "pass"


def test_a_redis_that_forgets_or_evicts_fails(
    offline_job: Job, server: Callable[..., RedisServer]
) -> None:
    url = server("--maxmemory-policy", "allkeys-lru").url
    found = examine(offline_job, QUEUE__URL=f"{url}?stream=topics")
    assert found.of("queue eviction")[0] == "fail"
    assert "CONFIG SET maxmemory-policy noeviction" in found.of("queue eviction")[1]
    assert found.of("queue persistence")[0] == "fail"
    assert "CONFIG SET appendonly yes" in found.of("queue persistence")[1]
    assert any("rate.shared is not set" in check["message"] for check in found.facts["checks"])


def test_a_redis_that_lets_nobody_in_fails_without_its_password(
    offline_job: Job, server: Callable[..., RedisServer]
) -> None:
    running = server("--requirepass", "hunter2", *DURABLE)
    place = running.url.removeprefix("redis://")
    assert "asks for a password" in examine(offline_job, QUEUE__URL=running.url).of("queue")[1]
    wrong = examine(offline_job, QUEUE__URL=f"redis://:guess@{place}")
    assert "password is wrong" in wrong.of("queue")[1]
    assert "guess" not in orjson.dumps(wrong.facts).decode()
    running.kill()
    assert examine(offline_job, QUEUE__URL=running.url).of("queue")[0] == "fail"
    bad = examine(offline_job, QUEUE__URL=f"{running.url}?foo=1")
    assert "no such option in the URL" in bad.of("queue")[1]


def test_rights_that_are_missing_in_redis_are_named(
    offline_job: Job, server: Callable[..., RedisServer]
) -> None:
    running = server(*DURABLE)
    with redis.Redis(port=running.port) as client:
        client.execute_command(
            "ACL", "SETUSER", "worker", "on", ">secret", "~topics*", "+@all", "-xgroup", "-@admin"
        )
    place = running.url.removeprefix("redis://")
    found = examine(offline_job, QUEUE__URL=f"redis://worker:secret@{place}?stream=topics")
    assert found.of("queue rights")[0] == "fail"
    assert "may not XGROUP" in found.of("queue rights")[1]
    with redis.Redis(port=running.port) as client:
        assert client.keys("*") == []
        client.execute_command("ACL", "SETUSER", "quota", "on", ">x", "~topic-import:*", "+@all")
    shared = examine(offline_job, RATE__SHARED=f"redis://quota:x@{place}")
    assert shared.of("quota rights")[0] == "pass", "it needs no right to a stream"


@contextmanager
def tunnelling_proxy() -> Iterator[tuple[str, list[str]]]:
    """Run a proxy that connects wherever it is asked to; yield its URL and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(f"{self.path} {self.headers['Proxy-Authorization']}")
            host, _, port = self.path.partition(":")
            with socket.create_connection((host, int(port))) as there:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=pump, args=(there, self.connection))
                back.start()
                pump(self.connection, there)
                back.join()

        def log_message(self, *_: object) -> None:
            pass

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65_536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield f"http://me:word@127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            serving.join()


def test_the_way_leads_through_a_proxy(offline_job: Job) -> None:
    with door(Reply(), is_tls=True) as service, tunnelling_proxy() as (url, asked):
        found = examine(
            offline_job, "--base-url", service.url, HTTP__PROXY=url, HTTP__CA_FILE=str(SELF_SIGNED)
        )
    assert found.code == 0, found.facts
    assert found.of("TLS")[0] == "pass"
    assert len(asked) == 3, "for the certificate and for two calls"
    assert all(line.endswith(" Basic bWU6d29yZA==") for line in asked)
    assert "word@" not in orjson.dumps(found.facts).decode()


def test_a_server_that_never_answers_is_left(offline_job: Job) -> None:
    timeouts = {"HTTP__CONNECT_TIMEOUT": "0.5", "HTTP__TOTAL_TIMEOUT": "1"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        tls = examine(offline_job, "--base-url", f"https://{host}", **timeouts)
        assert "no answer in time" in tls.of("TLS")[1]
        plain = examine(offline_job, "--base-url", f"http://{host}", **timeouts)
        assert plain.of("import_topic")[0] == "fail"
