"""get_topic: the topics of a community, each with its own code."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

from worker.simulator.communities import Refusal, is_unreadable, refuse_group
from worker.simulator.ledger import Ledger

REPLY_BYTES_MAX = 1_000_000
FIELDS = frozenset({"GroupId", "From_Account", "TopicIdList", "ResponseFilter"})
TEXTS = ("TopicName", "FaceUrl", "Notification", "Introduction", "CustomString")
UNUSED_TOPIC = {"NextMsgSeq": 1, "LastMsgTime": 0, "MuteAllMember": "Off"}
ALWAYS_RETURNED = frozenset({"GroupID", "TopicId"})


def get_topic(body: bytes, ledger: Ledger, elapsed_s: float) -> Mapping[str, Any] | Refusal:
    """Return the reply to a call, or the code and text with which the whole call is refused."""
    try:
        asked = json.loads(body.decode("utf-8"))
    except ValueError:
        return 60003, "request JSON parse error"
    if not isinstance(asked, dict):
        return 10011, "JSON parse failure"
    refusal = _refuse_fields(asked) or refuse_group(asked.get("GroupId"), elapsed_s)
    if refusal:
        return refusal
    group_id = asked["GroupId"]
    if is_unreadable(group_id):
        return 10007, "no permission"
    wanted = asked.get("TopicIdList") or list(ledger.topics_of(group_id))
    chosen = asked.get("ResponseFilter")
    items = [
        _item(ledger, group_id, topic_id, chosen)
        for topic_id in wanted
        if topic_id not in ledger.hidden
    ]
    reply = {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "TopicAndSelfInfo": items}
    if len(orjson.dumps(reply)) > REPLY_BYTES_MAX:
        return 10018, "the reply is larger than 1 MB"
    return reply


def _refuse_fields(asked: Mapping[str, Any]) -> Refusal | None:
    unknown = asked.keys() - FIELDS
    if unknown:
        return 10004, f"unknown field {min(unknown)}"
    if not isinstance(asked.get("From_Account"), str) or not asked["From_Account"]:
        return 60015, "From_Account must be a text"
    for name in ("TopicIdList", "ResponseFilter"):
        texts = asked.get(name, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return 10004, f"{name} must be a list of texts"
    return None


def _item(
    ledger: Ledger, group_id: str, topic_id: str, chosen: list[str] | None
) -> Mapping[str, Any]:
    code = ledger.item_codes.get(topic_id, 0)
    if not code and topic_id in ledger.deleted:
        code = 110003
    topic = ledger.topics.get(topic_id)
    if not code and (topic is None or not topic_id.startswith(f"{group_id}@TOPIC#_")):
        code = 10010
    if code or topic is None:
        return {"ErrorCode": code, "ErrorInfo": "the topic cannot be read"}
    content = {
        "GroupID": group_id,
        "TopicId": topic_id,
        **{name: topic.get(name, "") for name in TEXTS},
        "CreateTime": topic.get("CreateTime") or ledger.made_at.get(topic_id, 0),
        **UNUSED_TOPIC,
    }
    if chosen:
        returned = ALWAYS_RETURNED.union(chosen)
        content = {name: value for name, value in content.items() if name in returned}
    return {
        "ErrorCode": 0,
        "ErrorInfo": "ok",
        "SelfInfo": {"ShutUpTime": 0, "MsgSeq": 0, "MsgFlag": "AcceptAndNotify"},
        "TopicInfo": content,
    }
