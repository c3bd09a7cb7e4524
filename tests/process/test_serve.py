"""The serve command as processes: replicas, kills, restarts of Redis, signals and halts."""

import resource
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from tests.support.full_disk import FullDiskJob
from tests.support.processes import KEY, PATIENCE_S, Job, Simulator, simulator
from tests.support.redis_server import RedisServer, binaries
from tests.support.stand_in import stand_in
from tests.support.topics import record, records
from tests.support.waiting import free_port, wait_until

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
LEASE_S = 2


@dataclass
class Replica:
    """A running `serve` and its admin endpoint."""

    process: subprocess.Popen[str]
    port: int

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and text of an admin page, (0, "") while nobody listens."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/{path}", timeout=PATIENCE_S
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self) -> None:
        wait_until(lambda: self.get("readyz")[0] == 200)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal and wait for the exit. Returns exit code, output and log."""
        self.process.send_signal(number)
        output, logged = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, output, logged


Start = Callable[..., Replica]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts replicas; kill them all after the test."""
    started: list[Replica] = []

    def start_one(job: Job, *words: str, name: str = "out", **settings: str) -> Replica:
        port = free_port()
        given = {"APP__BASE_URL": job.url, "ADMIN__LISTEN": f"127.0.0.1:{port}"} | settings
        process = job.start("serve", "--out", name, *words, **given)
        started.append(Replica(process, port))
        return started[-1]

    yield start_one
    for replica in started:
        replica.process.kill()
        replica.process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def durable_server(tmp_path: Path) -> Iterator[RedisServer]:
    directory = tmp_path / "redis"
    directory.mkdir()
    server = RedisServer(binaries()[0], directory, *DURABLE)
    server.start()
    yield server
    server.kill()


def shared(server: RedisServer) -> dict[str, Any]:
    """Return the settings that all replicas of one queue share."""
    return {
        "QUEUE__URL": f"{server.url}?stream=topics&group=importers",
        "QUEUE__LEASE": str(LEASE_S),
        "RATE__SHARED": server.url,
    }


def results(server: RedisServer) -> list[dict[str, Any]]:
    with redis.Redis(port=server.port) as client:
        return [orjson.loads(f[b"line"]) for _, f in client.xrange("topics:imported")]


def wait_for_created(service: Simulator, count: int) -> None:
    wait_until(lambda: service.ledger()["created"] >= count)


def audit(service: Simulator, server: RedisServer, count: int) -> None:
    """Assert that the results match the service's topics, each record once."""
    created = [topic["TopicId"] for topic in service.ledger()["topics"]]
    reported = [line["topic_id"] for line in results(server)]
    assert Counter(reported) == Counter(created)
    assert len(created) == len(set(created)) == count
    with redis.Redis(port=server.port) as client:
        assert client.xlen("topics") == 0
        assert client.xlen("topics:dead") == 0


def test_another_replica_takes_over_from_a_killed_one(
    tmp_path: Path, start: Start, durable_server: RedisServer
) -> None:
    with simulator("--latency", "0.3") as service:
        job, settings = Job(tmp_path, service.url), shared(durable_server)
        assert job.run("enqueue", job.write(records(600)), **settings).returncode == 0
        first = start(job, name="one", **settings)
        wait_until(lambda: service.ledger()["created"] >= 60)
        second = start(job, "--until-empty", name="two", **settings)
        second.wait_ready()
        first.process.kill()
        output, logged = second.process.communicate(timeout=PATIENCE_S)
        assert second.process.returncode == 0, logged
        assert "taken over from a consumer that fell silent" in logged
        assert "read 600 = queued 0 + imported 600 + dead 0 + duplicate 0" in output
        audit(service, durable_server, 600)
        assert {line["already"] for line in results(durable_server)} <= {False, "own"}


def test_restarting_redis_under_load_loses_no_record(
    tmp_path: Path, start: Start, durable_server: RedisServer
) -> None:
    with simulator("--latency", "0.05") as service:
        job, settings = Job(tmp_path, service.url), shared(durable_server)
        job.run("enqueue", job.write(records(800)), **settings)
        replica = start(job, "--until-empty", **settings)
        for made in (100, 300):
            wait_for_created(service, made)
            durable_server.kill()
            wait_until(lambda: replica.get("readyz")[0] == 503)
            assert "Redis" in replica.get("readyz")[1]
            durable_server.start()
            replica.wait_ready()
        output, logged = replica.process.communicate(timeout=PATIENCE_S)
        assert replica.process.returncode == 0, logged
        assert "imported 800 + dead 0" in output
        audit(service, durable_server, 800)


def test_serve_waits_until_redis_is_up(
    tmp_path: Path, start: Start, durable_server: RedisServer
) -> None:
    with simulator() as service:
        job, settings = Job(tmp_path, service.url), shared(durable_server)
        job.run("enqueue", job.write(records(50)), **settings)
        durable_server.kill()
        replica = start(job, "--until-empty", **settings)
        wait_until(lambda: replica.get("readyz")[1].startswith("queue: Redis: "))
        other = start(job, name="other", **settings)
        wait_until(lambda: other.get("readyz")[1].startswith("queue: Redis: "))
        assert other.end()[0] == 0, "it had nothing in hand"
        durable_server.start()
        output, logged = replica.process.communicate(timeout=PATIENCE_S)
        assert replica.process.returncode == 0, logged
        assert "imported 50 + dead 0" in output


def test_a_full_disk_pauses_a_replica_until_there_is_room(
    tmp_path: Path, start: Start, durable_server: RedisServer
) -> None:
    with simulator("--latency", "0.05") as service:
        job, settings = Job(tmp_path, service.url), shared(durable_server)
        job.run("enqueue", job.write(records(400)), **settings)
        replica = start(job, "--until-empty", **settings)
        wait_for_created(service, 50)
        unlimited = resource.prlimit(replica.process.pid, resource.RLIMIT_FSIZE)
        full = (job.out / "imported.jsonl").stat().st_size + 1000
        resource.prlimit(replica.process.pid, resource.RLIMIT_FSIZE, (full, unlimited[1]))
        wait_until(lambda: "imported.jsonl: File too large; make room" in replica.get("readyz")[1])
        resource.prlimit(replica.process.pid, resource.RLIMIT_FSIZE, unlimited)
        output, logged = replica.process.communicate(timeout=PATIENCE_S)
        assert replica.process.returncode == 0, logged
        assert "Traceback" not in logged
        assert "imported 400 + dead 0" in output
        audit(service, durable_server, 400)
        copied = [line["topic_id"] for line in job.imported()]
        assert Counter(copied) == Counter(line["topic_id"] for line in results(durable_server))


def test_a_full_disk_under_an_embedded_service_stops_it_until_there_is_room(
    tmp_path: Path, start: Start
) -> None:
    with simulator("--latency", "0.05") as service:
        job = FullDiskJob(tmp_path, service.url, "imported.jsonl")
        job.run("enqueue", job.write(records(400)))
        replica = start(job)
        wait_until(lambda: "halted (storage)" in replica.get("readyz")[1])
        assert "No space left on device" in replica.get("readyz")[1]
        job.make_room()
        wait_until(lambda: job.status()["queued"] == 0)
        code, said, logged = replica.end()
        assert code == 0, logged
        assert "a defect" not in logged
        assert "imported 400 + dead 0" in said
        assert len(job.imported()) == service.ledger()["created"] == 400


def test_a_second_signal_ends_a_replica_while_redis_hangs(
    tmp_path: Path, start: Start, durable_server: RedisServer
) -> None:
    with simulator("--latency", "0.05") as service:
        job, settings = Job(tmp_path, service.url), shared(durable_server)
        job.run("enqueue", job.write(records(400)), **settings)
        replica = start(job, **settings)
        wait_for_created(service, 50)
        with durable_server.hanging():
            wait_until(lambda: replica.get("readyz")[0] == 503)
            replica.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "outcomes wait for the queue" in replica.get("readyz")[1])
            began_s = time.monotonic()
            code, _, logged = replica.end()
            assert time.monotonic() - began_s < 5, "it waited for nobody"
            assert code == 3, "outcomes could not be settled"
            assert "Traceback" not in logged
        other = start(job, "--until-empty", **settings)
        output, logged = other.process.communicate(timeout=PATIENCE_S)
        assert other.process.returncode == 0, logged
        assert "imported 400 + dead 0" in output
        audit(service, durable_server, 400)


def test_a_second_signal_ends_a_replica_that_never_reached_redis(
    tmp_path: Path, start: Start, durable_server: RedisServer
) -> None:
    job, settings = Job(tmp_path, "http://127.0.0.1:9"), shared(durable_server)
    with durable_server.hanging():
        replica = start(job, **settings)
        wait_until(lambda: replica.get("readyz")[0] == 503)
        replica.process.send_signal(signal.SIGTERM)
        wait_until(lambda: replica.get("readyz")[1].startswith("draining"))
        code, _, logged = replica.end()
        assert code == 143, logged
        assert "Traceback" not in logged


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
def test_sigterm_under_load_drains_without_losing_records(
    tmp_path: Path, start: Start, engine: str, durable_server: RedisServer
) -> None:
    with simulator("--quota", "0", "--latency", "1.0") as service:
        job = Job(tmp_path, service.url)
        settings: dict[str, Any] = shared(durable_server) if engine == "redis" else {}
        job.run("enqueue", job.write(records(900)), **settings)
        replica = start(job, **settings)
        wait_until(lambda: service.ledger()["calls"] >= 250)
        replica.process.send_signal(signal.SIGTERM)
        wait_until(lambda: replica.get("readyz")[0] != 200)
        status, reason = replica.get("readyz")
        if status:
            assert reason.startswith("draining: ")
            assert "in flight" in reason
        output, logged = replica.process.communicate(timeout=PATIENCE_S)
        assert replica.process.returncode == 0, logged
        created = service.ledger()["created"]
        assert f"imported {created:,} " in output, "what was in flight was settled"
        again = start(job, "--until-empty", **settings)
        output, logged = again.process.communicate(timeout=PATIENCE_S)
        assert "read 900 = queued 0 + imported 900 + dead 0 + duplicate 0" in output
        ledger = service.ledger()
        assert (ledger["created"], ledger["calls"]) == (900, 900), "nothing was called twice"


def test_a_second_signal_ends_at_once_with_a_consistent_queue(tmp_path: Path, start: Start) -> None:
    with simulator("--latency", "5") as service:
        job = Job(tmp_path, service.url)
        job.run("enqueue", job.write(records(50)))
        replica = start(job)
        wait_until(lambda: service.ledger()["calls"] >= 20)
        began_s = time.monotonic()
        replica.process.send_signal(signal.SIGTERM)
        wait_until(lambda: replica.get("readyz")[1].startswith("draining"))
        code, output, _ = replica.end()
        assert code == 143
        assert time.monotonic() - began_s < 5, "it waited for no answer"
        assert "read 50 = queued 50 + imported 0" in output
        assert job.status()["agree"]


def test_a_halted_service_resumes_once_the_cause_is_fixed(tmp_path: Path, start: Start) -> None:
    key = tmp_path / "key"
    key.write_text("f" * 64)
    with simulator() as service:
        job = Job(tmp_path, service.url)
        job.run("enqueue", job.write(records(100)))
        settings = {"APP__SECRET_KEY": "", "APP__SECRET_KEY_FILE": str(key)}
        replica = start(job, **settings)
        wait_until(lambda: "halted (70009)" in replica.get("readyz")[1])
        assert replica.get("readyz")[0] == 503
        assert replica.get("healthz")[0] == 200
        assert 'topic_import_health{state="halt"} 1.0' in replica.get("metrics")[1]
        key.write_text(KEY)
        wait_until(lambda: job.status()["queued"] == 0)
        code, output, logged = replica.end()
        assert code == 0, logged
        assert "read 100 = queued 0 + imported 100 + dead 0 + duplicate 0" in output


def test_until_empty_ends_with_3_where_a_person_must_act(tmp_path: Path) -> None:
    with simulator() as service:
        job = Job(tmp_path, service.url)
        job.run("enqueue", job.write(records(5)))
        words = ("serve", "--until-empty", "--base-url", service.url)
        done = job.run(*words, ADMIN__LISTEN="127.0.0.1:0", APP__SECRET_KEY="f" * 64)
        assert done.returncode == 3, done.stderr
        assert b"HALTED (70009)" in done.stdout
        assert job.report()["halted"]["code"] == 70009
        again = job.run(*words, "--rate", "50", ADMIN__LISTEN="127.0.0.1:0")
        assert again.returncode == 0, again.stderr
        assert (job.report()["imported"], job.report()["quota_per_s"]) == (5, 50)


def test_until_empty_ends_with_3_for_an_address_that_leads_nowhere(
    tmp_path: Path, durable_server: RedisServer
) -> None:
    with stand_in(lambda _: None, is_tls=True) as service:
        job, settings = Job(tmp_path, service.url), shared(durable_server)
        job.run("enqueue", job.write(records(5)), **settings)
        done = job.run(
            "serve", "--until-empty", APP__BASE_URL=service.url, ADMIN__LISTEN="127.0.0.1:0",
            **settings,
        )  # fmt: skip
        assert done.returncode == 3, done.stderr
        assert b"name the certificate to trust in http.ca_file" in done.stdout


def test_until_empty_ends_with_1_where_dead_letters_are_left(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    with simulator() as service:
        job = Job(tmp_path, service.url)
        job.run("enqueue", job.write([*records(3), {"GroupId": "@TGS#_missing"}]), **settings)
        words = ("serve", "--until-empty", "--base-url", service.url)
        done = job.run(*words, ADMIN__LISTEN="127.0.0.1:0", **settings)
        assert done.returncode == 1, done.stderr
        assert b"imported 3 + dead 1" in done.stdout


def test_removing_the_job_directory_pauses_serve_until_it_is_recreated(
    tmp_path: Path, start: Start
) -> None:
    with simulator() as service:
        job = Job(tmp_path, service.url)
        job.run("enqueue", job.write(records(2000)))
        replica = start(job)
        wait_for_created(service, 50)
        job.out.rename(tmp_path / "moved")
        wait_until(lambda: "was removed or replaced" in replica.get("readyz")[1])
        made = service.ledger()["created"]
        assert made < 2000, "it calls no more"
        job.run("enqueue", job.write([record(5000)]))
        wait_until(lambda: replica.get("readyz")[0] == 200)
        wait_until(lambda: job.status()["queued"] == 0)
        assert replica.end()[0] == 0
        assert service.ledger()["created"] == made + 1
        assert job.status()["imported"] == 1


def test_rotated_result_files_hold_each_line_once(tmp_path: Path, start: Start) -> None:
    with simulator("--quota", "0") as service:
        job = Job(tmp_path, service.url)
        for part in (records(200), records(400)):
            job.run("enqueue", job.write(part))
            settings = {"RATE__CALLS_PER_SECOND": "0", "OUTPUTS__MAX_BYTES": "20000"}
            replica = start(job, "--until-empty", **settings)
            replica.process.communicate(timeout=PATIENCE_S)
        files = sorted(job.out.glob("imported*.jsonl"))
        assert len(files) > 2
        lines = [orjson.loads(line) for f in files for line in f.read_bytes().splitlines()]
        assert len({line["topic_id"] for line in lines}) == len(lines) == 400
        assert job.status()["agree"]
