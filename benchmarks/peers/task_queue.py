"""A task queue, taskiq on Redis Streams, one task a record.

`task_queue put FILE COUNT REDIS_URL SERVICE_URL` makes a task of each of the COUNT records,
`task_queue work`, with the same words, does them.
"""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop
from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

IN_FLIGHT = 64


class Importing:
    """The task, and what it needs in a worker."""

    def __init__(self, count: str, redis_url: str, service_url: str) -> None:
        self.broker = RedisStreamBroker(redis_url)

        # taskiq renames what it registers, which a method does not allow.
        async def import_topic(record: dict[str, Any]) -> None:
            await self._import_topic(record)

        self.task = self.broker.register_task(import_topic, task_name="import_topic")
        self.is_done = asyncio.Event()
        self.session: aiohttp.ClientSession
        self._left = int(count)
        self._service_url = service_url

    async def _import_topic(self, record: dict[str, Any]) -> None:
        async with self.session.post(self._service_url, data=orjson.dumps(record)) as response:
            reply = orjson.loads(await response.read())
        if reply["ErrorCode"] != 0:
            raise ValueError(reply["ErrorInfo"])
        self._left -= 1
        if not self._left:
            self.is_done.set()


async def put(lines: Iterator[bytes], importing: Importing) -> None:
    async def put_some() -> None:
        for line in lines:
            await importing.task.kiq(orjson.loads(line))

    await importing.broker.startup()
    await asyncio.gather(*(put_some() for _ in range(IN_FLIGHT)))
    await importing.broker.shutdown()


async def work(importing: Importing) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as importing.session:
        receiver = Receiver(importing.broker, max_async_tasks=IN_FLIGHT, run_startup=True)
        listening = asyncio.create_task(receiver.listen(asyncio.Event()))
        await asyncio.wait(
            {listening, asyncio.create_task(importing.is_done.wait())},
            return_when=asyncio.FIRST_COMPLETED,
        )
        # A worker has no end: asked for one, or cancelled, taskiq 0.13 waits for Redis for ever.
        os._exit(0 if importing.is_done.is_set() else 1)


async def main(phase: str, lines: Iterator[bytes], *places: str) -> None:
    importing = Importing(*places)
    await (put(lines, importing) if phase == "put" else work(importing))


if __name__ == "__main__":
    with (
        Path(sys.argv[2]).open("rb") as source,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(main(sys.argv[1], source, *sys.argv[3:]))
