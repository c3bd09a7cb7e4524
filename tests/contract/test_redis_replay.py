"""Dead letters that are put back into the Redis queue."""

from dataclasses import replace

from tests.support.engines import open_redis
from tests.support.queues import DEAD, RULES, imported, read_record
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import Streams, opened, own_id, rejected, replay, topic
from worker.rules.outcome import History


async def test_replayed_dead_letters_keep_their_ids_and_doubts(server: RedisServer) -> None:
    queue = await open_redis(server)
    await queue.put([read_record(1), read_record(2)])
    one, two = await queue.take(2)
    await queue.settle(
        [
            DEAD(one.id, History(attempts=3, may_exist=True)),
            DEAD(two.id, History(attempts=3)),
        ]
    )
    page = await anext(queue.letters())
    assert (await queue.requeue(page), await queue.requeue(page)) == (2, 0)
    again = await queue.take(5)
    assert [d.topic.topic_id for d in again] == [one.topic.topic_id, two.topic.topic_id]
    assert [d.history.may_exist for d in again] == [True, False]
    counts = await queue.counts()
    assert (counts.read, counts.dead, counts.by_reason, counts.by_code) == (2, 0, {}, {})
    await queue.close()


async def test_a_record_that_is_too_long_can_be_replayed_whole(
    server: RedisServer, streams: Streams
) -> None:
    record = topic(1, Introduction="x" * 200)
    strict = await open_redis(server, line_bytes_max=100)
    streams.add(record)
    assert await strict.take(10) == []
    (letter,) = await strict.dead_letters()
    assert "records.max_line_bytes" in letter["message"]
    await strict.close()
    async with opened(server, "one") as queue:
        assert await replay(queue) == 1
        (taken,) = await queue.take(10)
        assert b"x" * 200 in taken.topic.body


async def test_foreign_entries_in_the_result_streams_do_no_harm(
    server: RedisServer, streams: Streams
) -> None:
    streams.add_to("imported", {"line": "{}"})
    streams.add_to("dead", {"other": "x"})
    async with opened(server, "one", keep=1) as queue:
        streams.add_topics(2)
        await queue.settle([imported(d.id) for d in await queue.take(10)])
        assert (await queue.look())[1] == {"queued": 0, "imported": 1, "dead": 1}
        assert await replay(queue) == 0


async def test_a_replayed_letter_holds_its_topic_id_again(
    server: RedisServer, streams: Streams
) -> None:
    async with opened(server, "one") as queue:
        streams.add(topic(1, TopicId=own_id("x")))
        (refused,) = await queue.take(10)
        await queue.settle([rejected(refused)])
        assert await replay(queue) == 1
        streams.add(topic(1, TopicId=own_id("x")))
        streams.add(topic(2, TopicId=own_id("x")))
        (again,) = await queue.take(10)
        assert again.topic == refused.topic
        counts = await queue.counts()
        assert (counts.duplicate, counts.by_reason) == (1, {"conflict": 1})


async def test_a_replayed_conflict_is_still_a_conflict(
    server: RedisServer, streams: Streams
) -> None:
    rules = replace(RULES, key_field="id")
    queue = await open_redis(server, rules=rules)
    first_id = streams.add(topic(1, id=5))
    streams.add(topic(2, id=5))
    (first,) = await queue.take(10)
    await queue.settle([imported(first.id)])
    assert await replay(queue) == 1
    assert await queue.take(10) == [], "the first record holds the TopicId"
    (letter,) = await queue.dead_letters()
    assert letter["reason"] == "conflict"
    assert f"topics:{first_id} has the same TopicId" in letter["message"]
    await queue.close()


async def test_a_replay_ends_while_its_letters_are_refused_again(
    server: RedisServer, streams: Streams
) -> None:
    async with opened(server, "one") as queue:
        for _ in range(3):
            streams.add(b"{")
        await queue.take(10)
        replayed = 0
        async for page in queue.letters():
            replayed += await queue.requeue(page)
            await queue.take(10)  # dead letters again at once
        assert replayed == 3
        assert len(await queue.dead_letters()) == 3
