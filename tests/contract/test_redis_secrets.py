"""The password of the Redis queue stays out of everything that is written."""

from pathlib import Path

import pytest
import redis

from tests.support.engines import OURS, RedisUnderTest, running
from tests.support.queues import RULES, read_record
from tests.support.redis_server import RedisServer, binaries
from worker.queues.contract import QueueError
from worker.queues.redis.queue import Taking
from worker.queues.redis.streams import StreamUrl

PASSWORD = "s3cret-and-long"


@pytest.mark.parametrize("given", [PASSWORD, "wrong-" + PASSWORD])
async def test_a_password_in_the_url_appears_in_no_error_or_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], given: str
) -> None:
    # The password is set once the server runs: `running` waits for a reply without one.
    with running(binaries()[0], tmp_path) as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", PASSWORD)
        written = await texts_of_a_run_that_fails(server, given)
    logged = capfd.readouterr()
    everything = "".join([*written, logged.out, logged.err])
    assert "Redis" in everything
    assert PASSWORD not in everything


async def texts_of_a_run_that_fails(server: RedisServer, password: str) -> list[str]:
    """Open a queue with a password, then stop the server. Returns all texts that came of it."""
    url = StreamUrl.parse(f"redis://:{password}@127.0.0.1:{server.port}/0?stream=topics")
    queue = RedisUnderTest(url, Taking("one", 60.0, 100, RULES, 1 << 20))
    texts: list[str] = []
    try:
        await queue.open(OURS)
    except QueueError as error:
        texts.append(repr(error))
    await queue.take(1)
    server.kill()
    await queue.take(1)
    texts.extend([repr(queue), str(queue.trouble)])
    queue.give_up()
    with pytest.raises(QueueError) as caught:
        await queue.put([read_record(1)])
    texts.append(repr(caught.value))
    await queue.close()
    return texts
