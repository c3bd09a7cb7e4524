"""The comparer over HTTP, against the simulated service."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from worker.chat import Endpoint, ImportTopicClient
from worker.comparing import Comparer
from worker.credentials import SigningCredentials
from worker.quota.local import LocalQuota
from worker.rules.comparison import Before, Conflict, Own, Unproven
from worker.rules.topic.fields import FieldLimits
from worker.rules.topic.topic import RecordRules, Topic, to_topic
from worker.rules.usersig import Signature, sign
from worker.simulator.behaviour import Rules, Service
from worker.simulator.server import Address, Simulator

pytestmark = pytest.mark.usefixtures("transport")
APP, ADMIN, KEY = 1400000000, "administrator", "k" * 64
SEED = 3
"""With it the first calls of get_topic fail in the test of faults."""
CALLS_PER_S = 50
SIGNED_S = int(time.time())
PATH = "v4/group_open_http_svc/import_topic"


def topic(number: int, group: str = "@TGS#_g", **changes: Any) -> Topic:
    record = {
        "GroupId": group,
        "TopicName": f"话题 {number} 😀 ",
        "TopicId": f"{group}@TOPIC#_t{number}",
        "CreateTime": 1_500_000_000,
        "CustomString": "x" * 3000,
    }
    return to_topic(record | changes, RecordRules(limits=FieldLimits(custom_string=30_000)))


def signature() -> Signature:
    return Signature(sign(APP, ADMIN, KEY, issued_s=SIGNED_S, life_s=3600), 7)


@asynccontextmanager
async def comparing(**rules: Any) -> AsyncIterator[tuple[Service, ImportTopicClient, Comparer]]:
    """Run a simulated service, and a client and a comparer that call it."""
    simulator = Simulator(Rules(APP, ADMIN, KEY, **rules), Address(), seed=SEED)
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(simulator.serve(url.set_result))
    clock = asyncio.get_running_loop().time
    credentials = SigningCredentials(APP, ADMIN, KEY, wall_clock=time.time, clock=clock)
    try:
        async with ImportTopicClient(Endpoint(await url, PATH, APP, ADMIN)) as client:
            quota = LocalQuota(CALLS_PER_S, clock)
            yield (
                simulator.service,
                client,
                Comparer(chat=client, credentials=credentials, quota=quota, clock=clock),
            )
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def test_imported_topics_are_found_the_same() -> None:
    async with comparing() as (service, client, comparer):
        topics = [topic(number) for number in range(30)]
        for one in topics:
            assert (await client.import_topic(one.body, signature())).code == 0
        compared = [comparer.compare(one, in_doubt=True) for one in topics]
        assert await asyncio.gather(*compared) == [Own()] * 30
        assert service.ledger.get_topic_calls <= 3
        assert service.ledger.calls == 30


async def test_topics_of_others_are_conflicts_and_lost_jobs_are_not() -> None:
    made = [{"TopicId": "@TGS#_g@TOPIC#_t1", "TopicName": "by others", "CreateTime": 7}]
    async with comparing(topics=made) as (service, client, comparer):
        assert (await client.import_topic(topic(1).body, signature())).code == 10021
        conflict = await comparer.compare(topic(1), in_doubt=True)
        assert isinstance(conflict, Conflict)
        assert conflict.fields == ("TopicName", "CustomString", "CreateTime")
        await client.import_topic(topic(2).body, signature())
        assert await comparer.compare(topic(2), in_doubt=False) == Before()
        service.ledger.topics["@TGS#_g@TOPIC#_t2"]["TopicName"] = "renamed"
        renamed = await comparer.compare(topic(2), in_doubt=True)
        assert isinstance(renamed, Unproven)
        assert "renamed" in renamed.reason


async def test_a_full_community_is_compared_in_smaller_lists() -> None:
    topics = [topic(number, CustomString="x" * 30_000) for number in range(60)]
    made = [
        {"TopicId": one.topic_id, "TopicName": one.name, "CustomString": "y" * 30_000}
        for one in topics
    ]
    async with comparing(topics=made) as (service, _, comparer):
        settled = await asyncio.gather(*(comparer.compare(one, in_doubt=True) for one in topics))
        assert all(isinstance(one, Conflict) for one in settled)
        assert service.ledger.get_topic_answers["10018"] >= 1


async def test_reading_may_be_forbidden() -> None:
    async with comparing(may_read=False) as (_, _, comparer):
        assert isinstance(await comparer.compare(topic(1), in_doubt=True), Unproven)
        assert isinstance(await comparer.compare(topic(1), in_doubt=False), Conflict)


async def test_faults_on_the_way_only_delay_a_comparison() -> None:
    faults = {"502": 0.2, "reset-after": 0.2, "html": 0.2}
    async with comparing(get_topic_faults=faults) as (service, client, comparer):
        await client.import_topic(topic(1).body, signature())
        assert await comparer.compare(topic(1), in_doubt=True) == Own()
        assert service.ledger.get_topic_calls > 1
