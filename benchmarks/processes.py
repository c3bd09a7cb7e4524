"""Starts what is measured as processes of their own, and measures them.

Only the standard library is imported here: a child's peak memory is never less than that of the
process that started it, because Linux carries the figure over, so the starter must stay small.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from tests.support.redis_server import RedisServer, binaries

START_LIMIT_S = 60.0
SLOWEST_PER_S = 100
"""A process that handles fewer records a second than this is stopped, and the benchmark fails."""


@dataclass(frozen=True, slots=True)
class Run:
    """A process from its start to its end; CPU is user and system time of the whole process."""

    records: int
    began_s: float
    seconds: float
    cpu_s: float
    peak_bytes: int

    @property
    def rate_per_s(self) -> float:
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU a record."""
        return self.cpu_s / self.records * 1e6

    @property
    def peak_mb(self) -> float:
        return self.peak_bytes / 1e6


class Process:
    """A started process, measured by `wait`. A context manager, which ends it if it still runs."""

    def __init__(
        self,
        command: Sequence[object],
        *,
        records: int = 1,
        settings: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """Start it in `directory`; `settings` replace all TOPIC_IMPORT_... of the environment."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TOPIC_IMPORT_")}
        self._words = [str(word) for word in command]
        self._records = records
        self._began_s = time.monotonic()
        self._process = subprocess.Popen(
            self._words,
            env=kept | dict(settings or {}),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends what it started
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    @property
    def is_running(self) -> bool:
        """Return whether it runs; a process that has ended stays to be measured by `wait`."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, options) is None

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def wait(self, allowed: Collection[int] = (0,)) -> Run:
        """Return what it took. Raises SystemExit if it ends in another way than allowed."""
        limit_s = START_LIMIT_S + self._records / SLOWEST_PER_S
        timer = threading.Timer(limit_s, self._process.kill)
        timer.daemon = True
        timer.start()
        _, status, usage = os.wait4(self._process.pid, 0)
        seconds = time.monotonic() - self._began_s
        timer.cancel()
        # It is no child any more, so Popen could not find this out by itself.
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if self._process.returncode not in allowed:
            end = f"exit code {self._process.returncode}"
            trouble = end if seconds < limit_s else f"stopped after {limit_s:.0f} s"
            raise SystemExit(f"{trouble}: {' '.join(self._words)}")
        return Run(
            records=self._records,
            began_s=self._began_s,
            seconds=seconds,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        )


class Service:
    """The running service."""

    def __init__(self, url: str) -> None:
        self.url = url

    def seen(self) -> dict[str, Any]:
        """Return `calls`, `first_call_s`, `last_call_s`."""
        with urllib.request.urlopen(f"{self.url}/seen", timeout=START_LIMIT_S) as answer:  # noqa: S310
            seen: dict[str, Any] = json.loads(answer.read())
        return seen


@contextmanager
def service(latency_s: float = 0.0) -> Iterator[Service]:
    command = [sys.executable, "-m", "benchmarks.service", "--latency", str(latency_s)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield Service(process.stdout.readline().strip())
        finally:
            process.kill()


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """Yield an empty Redis server that keeps its data in memory only."""
    server = RedisServer(binaries()[0], directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def run_until_stopped(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark, and exit. Ctrl-C and other signals stop all that it started, and then it."""

    def stop(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    sys.exit(main())
