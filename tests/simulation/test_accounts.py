"""A bad account in a record and a bad signature give the same code: only others can tell."""

import asyncio

import pytest

from tests.simulation.flow import ADMIN, APP, KEY
from tests.support.memory_queue import MemoryQueue
from tests.support.virtual_clock import VirtualLoop
from worker.credentials import SigningCredentials
from worker.delivery import Carrier, Signature
from worker.health import Health
from worker.limits import Limits
from worker.outcome import DeadLetter, Imported
from worker.pipeline import Bounds, Pipeline
from worker.quota.local import LocalQuota
from worker.retry import RetryPolicy
from worker.telemetry import Counters
from worker.topic import RecordRules, to_topic
from worker.verdict import Reply

CALL_S = 0.1


class OneAccountIsBad:
    """A service that refuses the calls of one account."""

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        await asyncio.sleep(CALL_S)
        if b"somebody" in body:
            return Reply(status=200, code=60004)
        topic_id = body.split(b'"TopicId":"')[1].split(b'"')[0].decode()
        return Reply(status=200, code=0, topic_id=topic_id, action_status="OK")


def carry(*accounts: str) -> tuple[MemoryQueue, Carrier]:
    """Import one record of each account, all at once."""
    loop = VirtualLoop()
    queue = MemoryQueue()
    for number, account in enumerate(accounts):
        record = {"GroupId": "@TGS#_a", "TopicName": str(number), "From_Account": account}
        queue.put(to_topic(record, RecordRules()))
    health = Health(RetryPolicy())
    carrier = Carrier(
        chat=OneAccountIsBad(),
        credentials=SigningCredentials(APP, ADMIN, KEY, wall_clock=loop.time, clock=loop.time),
        limits=Limits(LocalQuota(0, loop.time), 10, loop.time, health.breaker),
        health=health,
        retry=RetryPolicy(),
        counters=Counters(),
        clock=loop.time,
        wall_clock=loop.time,
    )
    try:
        loop.run_until_complete(Pipeline(queue, carrier, Bounds()).run(lambda: False))
    finally:
        loop.close()
    return queue, carrier


def test_alone_it_may_be_the_signature_and_halts() -> None:
    queue, carrier = carry("somebody")
    assert carrier.halted
    assert carrier.halted.code == 60004
    assert queue.unsettled == 1


@pytest.mark.parametrize("accounts", [("somebody", "other"), ("other", "somebody")])
def test_beside_one_that_succeeds_it_is_the_account(accounts: tuple[str, str]) -> None:
    queue, carrier = carry(*accounts)
    assert carrier.halted is None
    kinds = [type(queue.outcomes[delivery]) for delivery in sorted(queue.outcomes)]
    expected = {"somebody": DeadLetter, "other": Imported}
    assert kinds == [expected[account] for account in accounts]
