"""The carrier reports each reply once, with the duration of its call."""

import asyncio

import pytest

from tests.support.carrying import carry
from tests.support.memory_queue import MemoryQueue
from worker.rules.topic.topic import RecordRules, to_topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Reply

CALL_S = 0.25


class Script:
    """A service that sends the given replies in order, each after CALL_S, then successes."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        await asyncio.sleep(CALL_S)
        if self._replies:
            return self._replies.pop(0)
        topic_id = body.split(b'"TopicId":"')[1].split(b'"')[0].decode()
        return Reply(status=200, code=0, topic_id=topic_id, action_status="OK")


def observed(*replies: Reply) -> list[tuple[str, int | None, float]]:
    """Return what is observed of one record: verdict, code and seconds of each reply."""
    queue = MemoryQueue()
    queue.put(to_topic({"GroupId": "@TGS#_a", "TopicName": "b"}, RecordRules()))
    seen: list[tuple[str, int | None, float]] = []
    carry(queue, Script(*replies), observe=lambda *call: seen.append(call))
    return seen


def test_every_reply_is_observed_once_with_verdict_code_and_duration() -> None:
    replies = observed(
        Reply(failure="no answer in time", may_have_taken_effect=True),
        Reply(status=502, failure="HTTP 502", may_have_taken_effect=True),
        Reply(status=200, code=60011),
        Reply(status=200, code=70001),
    )
    assert [(verdict, code) for verdict, code, _ in replies] == [
        ("retry", None),
        ("retry", None),
        ("throttled", 60011),
        ("renew", 70001),
        ("imported", 0),
    ]
    assert [seconds for *_, seconds in replies] == pytest.approx([CALL_S] * 5, abs=0.001)


@pytest.mark.parametrize(("code", "verdict"), [(10004, "reject"), (70009, "halt")])
def test_a_final_reply_is_observed(code: int, verdict: str) -> None:
    assert [reply[:2] for reply in observed(Reply(status=200, code=code))] == [(verdict, code)]
