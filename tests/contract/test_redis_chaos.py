"""The Redis queue under random faults: lost calls and replies, crashes, takeovers, lost groups.

Each consumer holds other communities at other times, with little room for them in memory.
Whatever happens, no record is lost, no topic has two outcomes, and a topic that was called before
is delivered again only in doubt.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import redis

from tests.support.engines import RedisUnderTest, open_redis
from tests.support.queues import DEAD, imported, read_record
from tests.support.redis_server import RedisServer
from tests.support.redis_streams import topic
from worker.queues.redis.connection import SCRIPTS
from worker.queues.redis.patience import Patience
from worker.rules.outcome import Delivery, Outcome, Released
from worker.rules.record import Record

TOPICS = 300
BATCH = 50
CONSUMERS = 3
LEASE_S = 0.3
PATIENCE_S = 40.0
FAILS = 0.04
COMMUNITIES = ["@TGS#_a", "@TGS#_b", "@TGS#_c"]
HELD_IN_MEMORY_MAX = 5


@dataclass
class World:
    """The topics that were called, and those delivered again without their doubt."""

    chance: random.Random
    called: set[str] = field(default_factory=set)
    undoubted: list[str] = field(default_factory=list)
    is_over: bool = False

    def call(self, delivery: Delivery) -> Outcome:
        """Call the service for a delivery, or not. Returns the outcome."""
        name, history = delivery.topic.name, delivery.history
        if name in self.called and not history.may_exist:
            self.undoubted.append(name)
        fate = self.chance.random()
        if fate < 0.1 and name not in self.called:
            return Released(delivery.id, history)
        self.called.add(name)
        if fate < 0.2:
            return DEAD(delivery.id, history.attempted(1.0).failed(ambiguous=True))
        if fate < 0.4:
            return Released(delivery.id, history.attempted(1.0).cut_off())
        return imported(delivery.id)


def record(line: int) -> Record:
    """Return a record of one of the communities."""
    group_id = COMMUNITIES[line % len(COMMUNITIES)]
    return read_record(line, raw=orjson.dumps(topic(line, GroupId=group_id)))


class Unreliable:
    """A script that loses some calls and some replies."""

    def __init__(self, script: Any, chance: random.Random) -> None:
        self._script = script
        self._chance = chance

    async def __call__(self, **given: Any) -> Any:
        fate = self._chance.random()
        if fate < FAILS:
            raise ConnectionError("the call is lost")
        reply = await self._script(**given)
        if fate > 1 - FAILS:
            raise ConnectionError("the reply is lost")
        return reply


async def open_unreliable(server: RedisServer, name: str, world: World) -> RedisUnderTest:
    queue = await open_redis(server, name, lease_s=LEASE_S, held_in_memory_max=HELD_IN_MEMORY_MAX)
    for script in SCRIPTS:
        queue._scripts[script] = Unreliable(queue._scripts[script], world.chance)
    return queue


async def consume(server: RedisServer, name: str, world: World) -> None:
    queue = await open_unreliable(server, name, world)
    held: frozenset[str] = frozenset()
    while not world.is_over:
        if world.chance.random() < 0.1:
            held = frozenset(world.chance.sample(COMMUNITIES, world.chance.randint(0, 2)))
        taken = await queue.take(20, without=held)
        for group_id in sorted(held):
            taken += await queue.take_of(group_id, world.chance.randint(0, 2))
        outcomes = [world.call(delivery) for delivery in taken]
        if world.chance.random() < 0.05:
            await queue.fall_silent()  # a crash, with all that it holds
            await asyncio.sleep(world.chance.choice([0.0, LEASE_S * 2]))
            await world.chance.choice([queue.close, queue.die])()
            queue = await open_unreliable(server, name, world)
        elif outcomes:
            await queue.settle(outcomes)
        await asyncio.sleep(0.005)
    queue.give_up()
    await queue.close()


async def forget_groups(server: RedisServer, world: World) -> None:
    with redis.Redis(port=server.port) as client:
        while not world.is_over:
            await asyncio.sleep(0.3)
            if world.chance.random() < 0.3:
                client.xgroup_destroy("topics", "importers")
                client.xgroup_create("topics", "importers", "0")


@pytest.mark.parametrize("seed", range(3))
async def test_chaos_loses_nothing_and_hides_no_doubt(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    async def short_pause(patience: Patience) -> None:
        await asyncio.sleep(0.01)

    monkeypatch.setattr(Patience, "pause", short_pause)
    world = World(random.Random(seed))
    feeder = await open_unreliable(server, "", world)
    jobs = [consume(server, f"consumer {n}", world) for n in range(CONSUMERS)]
    running = [asyncio.create_task(job) for job in (*jobs, forget_groups(server, world))]
    for at in range(0, TOPICS, BATCH):
        await feeder.put([record(n) for n in range(at + 1, at + BATCH + 1)])
        await asyncio.sleep(0.02)
    async with asyncio.timeout(PATIENCE_S):
        while not await feeder.is_empty():
            assert not any(job.done() for job in running)
            await asyncio.sleep(0.05)
    world.is_over = True
    await asyncio.gather(*running)
    counts = await feeder.counts()
    assert (counts.read, counts.queued, counts.lost) == (TOPICS, 0, 0)
    assert counts.imported + counts.dead == TOPICS
    assert len(await feeder.dead_letters()) == counts.dead
    await feeder.close()
    with redis.Redis(port=server.port) as client:
        entries: Any = [*client.xrange("topics:imported"), *client.xrange("topics:dead")]
    outcomes = Counter(orjson.loads(fields[b"line"])["source"] for _, fields in entries)
    assert set(outcomes.values()) == {1}
    assert len(outcomes) == TOPICS
    assert world.undoubted == []
