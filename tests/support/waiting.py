"""Waiting for what another process does."""

import socket
import time
from collections.abc import Callable

PATIENCE_S = 60.0


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look again and again until it is so; an error after a minute."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "waited for a minute in vain"
        time.sleep(0.02)


def free_port() -> int:
    """Find a port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
