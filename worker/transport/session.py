"""The transport with aiohttp's public interface only: `session.post`. It can use a proxy."""

from typing import Self

import aiohttp
from yarl import URL

from worker.transport.connections import Connector, beginning
from worker.transport.contract import HEADERS, Answer, Destination


class SessionTransport:
    """Posts with a session of aiohttp; see `contract.Transport`."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        destination = self._destination
        self._session = aiohttp.ClientSession(
            connector=Connector(destination.ca_file),
            timeout=aiohttp.ClientTimeout(
                total=destination.total_timeout_s,
                connect=destination.connect_timeout_s,  # with DNS and TLS
                sock_connect=destination.connect_timeout_s,
            ),
            headers=HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            # With True aiohttp reads two files in a thread for every call.
            trust_env=False,
            auto_decompress=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def post(self, target: str, body: bytes, bytes_max: int) -> Answer:
        async with self._session.post(
            URL(f"{self._destination.origin}{target}", encoded=True),
            data=body,
            allow_redirects=False,
            proxy=self._destination.proxy,
        ) as response:
            content = await beginning(response.content, bytes_max)
            return Answer(response.status, content, response.headers.get("Retry-After"))
