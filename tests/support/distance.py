"""A server that is far away: a proxy that delays what it forwards, without limiting how much."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

CHUNK_BYTES = 1 << 16


@dataclass
class Distance:
    """A proxy of a server. `round_trip_s` may be changed while it runs.

    `requests`: how many pieces of data clients sent so far, about one for each round trip.
    """

    port: int = 0
    round_trip_s: float = 0.0
    requests: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool
    ) -> None:
        """Forward one direction of a connection, each byte half a round trip late, in order."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arriving = asyncio.create_task(_deliver(under_way, writer))
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                self.requests += is_request
                under_way.put_nowait((loop.time() + self.round_trip_s / 2, data))
        under_way.put_nowait((loop.time() + self.round_trip_s / 2, b""))
        await arriving


async def _deliver(
    under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while True:
            due_s, data = await under_way.get()
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if not data:
                break
            writer.write(data)
    writer.close()


@asynccontextmanager
async def distant(port: int, round_trip_s: float) -> AsyncIterator[Distance]:
    """Open a proxy of the server at a port of this machine; a round trip takes so many seconds."""
    distance = Distance(round_trip_s=round_trip_s)
    links: set[asyncio.Task[None]] = set()

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        with suppress(asyncio.CancelledError):
            await asyncio.gather(
                distance.forward(reader, there[1], is_request=True),
                distance.forward(there[0], writer, is_request=False),
            )
        writer.close()
        there[1].close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(link(reader, writer))
        links.add(task)
        task.add_done_callback(links.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    distance.port = server.sockets[0].getsockname()[1]
    try:
        yield distance
    finally:
        server.close()
        for task in links:
            task.cancel()
        await asyncio.sleep(0)
        if links:
            await asyncio.wait(links)
