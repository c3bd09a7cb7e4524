"""What a carrier tells of its replies: each once, with the time that its call took."""

import asyncio

import pytest

from tests.support.carrying import carry
from tests.support.memory_queue import MemoryQueue
from worker.rules.topic.topic import RecordRules, to_topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Reply

CALL_S = 0.25


class Script:
    """A service that gives the replies of a script, each after the same time."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        await asyncio.sleep(CALL_S)
        if self._replies:
            return self._replies.pop(0)
        topic_id = body.split(b'"TopicId":"')[1].split(b'"')[0].decode()
        return Reply(status=200, code=0, topic_id=topic_id, action_status="OK")


def observed(*replies: Reply) -> list[tuple[str, int | None, float]]:
    """What is told of a record that gets these replies and then, if it still can, a success."""
    queue = MemoryQueue()
    queue.put(to_topic({"GroupId": "@TGS#_a", "TopicName": "b"}, RecordRules()))
    seen: list[tuple[str, int | None, float]] = []
    carry(queue, Script(*replies), observe=lambda *told: seen.append(told))
    return seen


def test_every_reply_is_told_once_with_its_verdict_its_code_and_its_seconds() -> None:
    told = observed(
        Reply(failure="no answer in time", may_have_taken_effect=True),
        Reply(status=502, failure="HTTP 502", may_have_taken_effect=True),
        Reply(status=200, code=60011),
        Reply(status=200, code=70001),
    )
    assert [(verdict, code) for verdict, code, _ in told] == [
        ("retry", None),
        ("retry", None),
        ("throttled", 60011),
        ("renew", 70001),
        ("imported", 0),
    ]
    assert [seconds for *_, seconds in told] == pytest.approx([CALL_S] * 5, abs=0.001)


@pytest.mark.parametrize(("code", "verdict"), [(10004, "reject"), (70009, "halt")])
def test_a_reply_that_ends_it_is_told_too(code: int, verdict: str) -> None:
    assert [told[:2] for told in observed(Reply(status=200, code=code))] == [(verdict, code)]
