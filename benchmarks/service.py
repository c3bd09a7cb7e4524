"""A service that accepts every topic as fast as it can: `python -m benchmarks.service`.

It checks nothing, so that its own time does not hide that of the programs measured; the simulator
needs several times as long for a call. It prints its address, and ends when its standard input is
closed, so it does not outlive the benchmark that started it. `GET /seen` tells what it saw.
"""

import argparse
import asyncio
import re
import sys
import time
from typing import cast

import orjson
import uvloop

HEADERS_END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
SEEN = b"GET /seen "


class Seen:
    """What the service saw; times by the monotonic clock, which all processes share."""

    def __init__(self) -> None:
        self.calls = 0
        self.first_call_s = 0.0
        self.last_call_s = 0.0

    def count(self) -> None:
        self.last_call_s = time.monotonic()
        if not self.calls:
            self.first_call_s = self.last_call_s
        self.calls += 1


class Connection(asyncio.Protocol):
    """One connection; requests may arrive in any pieces."""

    def __init__(self, seen: Seen, latency_s: float) -> None:
        self._seen = seen
        self._latency_s = latency_s
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (headers_end := self._received.find(HEADERS_END)) >= 0:
            length = LENGTH.search(self._received, 0, headers_end)
            body_begin = headers_end + len(HEADERS_END)
            body_end = body_begin + (int(length[1]) if length else 0)
            if len(self._received) < body_end:
                return
            is_question = self._received.startswith(SEEN)
            body = self._received[body_begin:body_end]
            self._received = self._received[body_end:]
            self._answer(body, is_question=is_question)

    def _answer(self, body: bytes, *, is_question: bool) -> None:
        if is_question:
            self._write(_http(orjson.dumps(vars(self._seen))))
            return
        self._seen.count()
        answer = _http(_accepted(body))
        if self._latency_s:
            asyncio.get_running_loop().call_later(self._latency_s, self._write, answer)
        else:
            self._write(answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


def _accepted(body: bytes) -> bytes:
    """Return the reply of a success, with the TopicId of the call if it has one."""
    topic = orjson.loads(body)
    topic_id = topic.get("TopicId") or topic["GroupId"] + "@TOPIC#_made-by-the-service"
    return b'{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","TopicId":%b}' % orjson.dumps(
        topic_id
    )


def _http(content: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/json\r\n"
        b"Connection: keep-alive\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
    )


async def serve(latency_s: float) -> None:
    """Answer calls on a free loopback port until standard input is closed."""
    loop, seen, is_over = asyncio.get_running_loop(), Seen(), asyncio.Event()
    server = await loop.create_server(lambda: Connection(seen, latency_s), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    loop.add_reader(sys.stdin.fileno(), is_over.set)
    print(f"http://{host}:{port}", flush=True)
    await is_over.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().latency))


if __name__ == "__main__":
    main()
