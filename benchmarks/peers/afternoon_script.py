"""The script that is written in an afternoon: `afternoon_script FILE URL`.

A task for each record, a semaphore, a limiter (here without effect), retries with back-off, and a
file of the records that failed.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, stop_after_attempt, wait_random_exponential

IN_FLIGHT = 64
NO_LIMIT_PER_S = 1_000_000_000


class Importer:
    def __init__(self, session: aiohttp.ClientSession, url: str, failed: Path) -> None:
        self._session = session
        self._url = url
        self._failed = failed
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._limiter = AsyncLimiter(NO_LIMIT_PER_S, 1)

    async def import_one(self, record: dict[str, Any]) -> None:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(8), wait=wait_random_exponential(max=30), reraise=True
        )
        try:
            async with self._slots:
                await retrying(self._post, record)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            with self._failed.open("a") as file:
                file.write(json.dumps({"error": str(error), "record": record}) + "\n")

    async def _post(self, record: dict[str, Any]) -> None:
        async with (
            self._limiter,
            self._session.post(self._url, data=json.dumps(record).encode()) as response,
        ):
            reply = json.loads(await response.text())
        if reply["ErrorCode"] != 0:
            raise ValueError(reply["ErrorInfo"])


async def import_all(records: list[dict[str, Any]], url: str, failed: Path) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        importer = Importer(session, url, failed)
        await asyncio.gather(*(importer.import_one(record) for record in records))


if __name__ == "__main__":
    path, service_url = sys.argv[1:]
    with Path(path).open(encoding="utf-8") as source:
        everything = [json.loads(line) for line in source]
    asyncio.run(import_all(everything, service_url, Path(f"{path}.failed")))
