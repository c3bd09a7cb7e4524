"""`make bench-replicas`: several replicas that share one Redis and one quota, measured.

Real processes on loopback: the simulator with a quota of 200/s, a Redis server that syncs every
write to disk, and replicas of `topic-import serve`. Each part ends with an audit: every record is
imported once, and the results equal what the simulator created. `SOAK_MINUTES=10` adds a soak.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import redis

from benchmarks.demo import PROGRAM
from benchmarks.quota import APP, Service, simulator
from tests.support.redis_server import RedisServer, binaries
from tests.support.waiting import free_port, wait_until

QUOTA_PER_S = 200
LEASE_S = 10
RESTARTS = 10
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class Site:
    """The simulated service, a Redis server, a directory, and the replicas that use them."""

    def __init__(self, service: Service, server: RedisServer, directory: Path) -> None:
        self.service = service
        self.server = server
        self._directory = directory
        self._environment = os.environ | {
            "TOPIC_IMPORT_APP__SDK_APP_ID": str(APP),
            "TOPIC_IMPORT_APP__SECRET_KEY": service.key,
            "TOPIC_IMPORT_APP__BASE_URL": service.url,
            "TOPIC_IMPORT_QUEUE__URL": f"{server.url}?stream=topics&group=importers",
            "TOPIC_IMPORT_QUEUE__LEASE": str(LEASE_S),
            "TOPIC_IMPORT_RATE__SHARED": server.url,
            "TOPIC_IMPORT_RATE__CALLS_PER_SECOND": str(QUOTA_PER_S),
        }
        self._replicas: list[subprocess.Popen[bytes]] = []

    def enqueue(self, count: int, first: int = 0) -> None:
        path = self._directory / f"topics-{first}.jsonl"
        rows = (
            {"GroupId": f"@TGS#_g{n % 50}", "TopicName": f"topic {n}"}
            for n in range(first, first + count)
        )
        path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
        self._run("enqueue", str(path)).wait()

    def replica(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        listen = {"TOPIC_IMPORT_ADMIN__LISTEN": f"127.0.0.1:{free_port()}"}
        process = self._run("serve", "--out", str(self._directory / name), *words, **listen)
        self._replicas.append(process)
        return process

    def _run(self, *words: str, **settings: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*PROGRAM, *words, "--log-level", "error"],
            env=self._environment | settings,
            stdout=subprocess.DEVNULL,
        )

    def report(self, name: str) -> dict[str, Any]:
        report: dict[str, Any] = orjson.loads((self._directory / name / "report.json").read_bytes())
        return report

    def created(self) -> int:
        # Not from the ledger: sending it stops the simulator for more than a second.
        with redis.Redis(port=self.server.port) as client:
            return int(client.hget("topics:counts", "imported") or 0)

    def pending_of(self, name: str) -> int:
        with redis.Redis(port=self.server.port) as client:
            infos: Any = client.xinfo_consumers("topics", "importers")
        return sum(i["pending"] for i in infos if i["name"].decode().endswith(f"/{name}"))

    def audit(self, count: int) -> str:
        """Compare the results with the simulator's ledger; return the differences as a sentence."""
        ledger = self.service.ledger()
        made = Counter(topic["TopicId"] for topic in ledger["topics"])
        with redis.Redis(port=self.server.port) as client:
            entries: Any = client.xrange("topics:imported")
            left: Any = client.xlen("topics")
        reported = Counter(orjson.loads(fields[b"line"])["topic_id"] for _, fields in entries)
        lost = count - len(made)
        twice = sum(n - 1 for n in reported.values()) + len(reported - made)
        return f"{count:,} records: {lost} lost, {twice} twice, {left} left in the queue"

    def stop(self) -> None:
        for replica in self._replicas:
            replica.kill()
            replica.wait()


@contextmanager
def site(*options: object) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as directory, simulator(*options) as service:
        (Path(directory) / "redis").mkdir()
        server = RedisServer(binaries()[0], Path(directory) / "redis", *DURABLE)
        server.start()
        opened = Site(service, server, Path(directory))
        try:
            yield opened
        finally:
            opened.stop()
            server.kill()


SERVICE = ("--quota", QUOTA_PER_S, "--latency", 0.1)


def sharing() -> None:
    """Measure three replicas that share one quota for a minute."""
    with site(*SERVICE) as here:
        here.enqueue(12_000)
        names = ("one", "two", "three")
        replicas = [here.replica(name, "--until-empty") for name in names]
        for replica in replicas:
            replica.wait()
        ledger = here.service.ledger()
        calls = [here.report(name)["calls"] for name in names]
        throttled = ledger["answers"].get("60007", 0) / ledger["calls"]
        used = ledger["created"] / ledger["seconds"] / QUOTA_PER_S
        mean = sum(calls) / len(calls)
        unfair = max(abs(n - mean) for n in calls) / mean
        print(
            f"three replicas: {used:.3f} of the quota used, {throttled:.2%} throttled, at most "
            f"{ledger['most_calls_in_a_second']} calls in a second; calls {calls}, "
            f"{unfair:.1%} from even; {here.audit(12_000)}",
            flush=True,
        )


def killing() -> None:
    """Kill one of two replicas while it has calls in flight."""
    with site(*SERVICE) as here:
        here.enqueue(8_000)
        first = here.replica("one")
        here.replica("two", "--until-empty")
        wait_until(lambda: here.created() >= 1000)
        first.kill()
        killed_s, held = time.monotonic(), here.pending_of("one")
        wait_until(lambda: here.pending_of("one") == 0)
        taken_over_s = time.monotonic() - killed_s
        wait_until(lambda: here.created() >= 8_000)
        print(
            f"a replica killed with {held} records in hand: taken over after {taken_over_s:.1f} s "
            f"(lease {LEASE_S} s); {here.audit(8_000)}",
            flush=True,
        )


def restarting() -> None:
    """Kill and restart Redis repeatedly under load."""
    with site(*SERVICE) as here:
        here.enqueue(10_000)
        for name in ("one", "two"):
            here.replica(name)
        back_s: list[float] = []
        for n in range(RESTARTS):
            made = 500 * (n + 1)
            wait_until(lambda made=made: here.created() >= made)  # type: ignore[misc]
            here.server.kill()
            time.sleep(1.0)
            here.server.start()
            returned_s, before = time.monotonic(), here.created()
            wait_until(lambda before=before: here.created() > before)  # type: ignore[misc]
            back_s.append(time.monotonic() - returned_s)
        wait_until(lambda: here.created() >= 10_000)
        print(
            f"Redis killed and restarted {RESTARTS} times: imports again after at most "
            f"{max(back_s):.1f} s; {here.audit(10_000)}",
            flush=True,
        )


def stopping() -> None:
    """Stop a replica under load with SIGTERM, and let another one continue."""
    with site("--quota", QUOTA_PER_S, "--latency", 1.0) as here:
        here.enqueue(3_000)
        first = here.replica("one")
        wait_until(lambda: here.created() >= 600)
        began_s = time.monotonic()
        first.send_signal(signal.SIGTERM)
        code = first.wait()
        seconds = time.monotonic() - began_s
        here.replica("two", "--until-empty").wait()
        calls = here.service.ledger()["calls"]
        print(
            f"SIGTERM under load: exit {code} after {seconds:.1f} s; {calls:,} calls in all; "
            f"{here.audit(3_000)}",
            flush=True,
        )


def soaking(minutes: float) -> None:
    """Run one replica at the full rate and measure its memory."""
    with site(*SERVICE) as here:
        count = int(minutes * 60 * 197)
        here.enqueue(count)
        replica = here.replica("one", "--until-empty")
        sizes: list[int] = []
        while replica.poll() is None:
            time.sleep(5.0)
            sizes.append(_resident_kib(replica.pid))
        sizes = [size for size in sizes if size]
        minute = 12
        first, last = sizes[minute : 2 * minute], sizes[-minute - 1 : -1]
        print(
            f"soak of {minutes:g} minutes: {sum(first) / len(first) / 1024:.1f} MiB in the second "
            f"minute, {sum(last) / len(last) / 1024:.1f} MiB in the last; {here.audit(count)}",
            flush=True,
        )


def _resident_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(lines[0].split()[1]) if lines else 0


def main() -> int:
    sharing()
    killing()
    restarting()
    stopping()
    minutes = float(os.environ.get("SOAK_MINUTES", "0"))
    if minutes:
        soaking(minutes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
