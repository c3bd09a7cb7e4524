"""Code 60004 means a bad account or a bad signature; other records show which."""

import asyncio

import pytest

from tests.support.carrying import carry
from tests.support.memory_queue import MemoryQueue
from worker.delivery import Carrier
from worker.rules.outcome import DeadLetter, Imported
from worker.rules.topic.topic import RecordRules, to_topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Reply

CALL_S = 0.1


class OneAccountIsBad:
    """A service that refuses the calls of one account."""

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        await asyncio.sleep(CALL_S)
        if b"somebody" in body:
            return Reply(status=200, code=60004)
        topic_id = body.split(b'"TopicId":"')[1].split(b'"')[0].decode()
        return Reply(status=200, code=0, topic_id=topic_id, action_status="OK")


def carry_in_order(*accounts: str) -> tuple[MemoryQueue, Carrier]:
    """Import one record of each account, one call at a time."""
    queue = MemoryQueue()
    for number, account in enumerate(accounts):
        record = {"GroupId": "@TGS#_a", "TopicName": str(number), "From_Account": account}
        queue.put(to_topic(record, RecordRules()))
    return queue, carry(queue, OneAccountIsBad(), slots=1)


@pytest.mark.parametrize("accounts", [("somebody",), ("other", "somebody")])
def test_code_60004_halts_while_no_record_succeeds_after_it(accounts: tuple[str, ...]) -> None:
    queue, carrier = carry_in_order(*accounts)
    assert carrier.halted
    assert carrier.halted.code == 60004
    assert queue.unsettled == 1


@pytest.mark.parametrize("accounts", [("somebody", "other"), ("other", "somebody", "other")])
def test_code_60004_rejects_the_record_when_another_succeeds(accounts: tuple[str, ...]) -> None:
    queue, carrier = carry_in_order(*accounts)
    assert carrier.halted is None
    kinds = [type(queue.outcomes[delivery]) for delivery in sorted(queue.outcomes)]
    expected = {"somebody": DeadLetter, "other": Imported}
    assert kinds == [expected[account] for account in accounts]
