"""Post every record, 64 at a time, and do nothing else: `bare_loop FILE URL`."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import orjson
import uvloop

IN_FLIGHT = 64


async def import_all(lines: Iterator[bytes], url: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def post_some() -> None:
            for line in lines:
                body = orjson.dumps(orjson.loads(line))
                async with session.post(url, data=body) as response:
                    await response.read()

        await asyncio.gather(*(post_some() for _ in range(IN_FLIGHT)))


if __name__ == "__main__":
    path, service_url = sys.argv[1:]
    with (
        Path(path).open("rb") as source,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(import_all(source, service_url))
