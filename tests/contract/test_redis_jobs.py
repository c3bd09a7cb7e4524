"""Which job a Redis queue belongs to, and the URL that names it."""

from dataclasses import replace

import pytest

from tests.support.engines import OURS, flush, redis_queue
from tests.support.queues import RULES
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import Streams, opened
from worker.queues.contract import JobIdentity, JobMismatchError
from worker.queues.redis.queue import RedisQueue, Taking
from worker.queues.redis.streams import StreamUrl


def test_a_queue_url_is_split_into_its_parts() -> None:
    url = StreamUrl.parse("rediss://u:p@h:1/2?stream=a&group=b&ssl_cert_reqs=none")
    assert (url.stream, url.group) == ("a", "b")
    assert url.server == "rediss://u:p@h:1/2?ssl_cert_reqs=none"
    assert StreamUrl.parse("redis://h").stream == "topics"


async def test_another_group_on_the_same_stream_is_refused(server: RedisServer) -> None:
    async with opened(server, "one"):
        url = StreamUrl.parse(f"{server.url}?stream=topics&group=others")
        other = RedisQueue(url, Taking("two", 60.0, 100, RULES, 1 << 20))
        with pytest.raises(JobMismatchError, match="a job with group importers, this run has"):
            await other.open(OURS)
        await other.close()


async def test_a_flushed_stream_still_belongs_to_the_same_job(
    server: RedisServer, streams: Streams
) -> None:
    async with opened(server, "one") as queue:
        flush(server)
        await queue.take(1)
        with pytest.raises(JobMismatchError):
            await open_as(server, replace(OURS, app="1400000001"))


async def open_as(server: RedisServer, identity: JobIdentity) -> None:
    """Open the queue for a job, and close it."""
    queue = redis_queue(server, "two")
    try:
        await queue.open(identity)
    finally:
        await queue.close()


@pytest.mark.parametrize(
    "other",
    [
        replace(OURS, app="1400000001"),
        replace(OURS, key_field="id"),
        replace(OURS, topic_ids="as-given"),
    ],
)
async def test_another_job_is_refused(server: RedisServer, other: JobIdentity) -> None:
    async with opened(server, "one"):
        queue = redis_queue(server, "two")
        with pytest.raises(JobMismatchError, match="the queue topics belongs to a job with"):
            await queue.open(other)
        await queue.close()
    async with opened(server, "two"):
        pass
