"""What the simulated service answers to a call, given the time and a source of chance.

Records choose their refusal: a community whose ID contains `missing` does not exist (10010), one
with `forbidden` may not be written to (10007), one with `notopics` has no topics (11000); a
TopicName that contains `forbidden` fails the content check (80001). All other communities exist.

Source: REST overview (access), REST page of import_topic (fields, codes), group system page (IDs).
"""

import base64
import hashlib
import hmac
import json
import random
import zlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PATHS = frozenset(
    {
        "/v4/group_open_http_svc/import_topic",
        "/v4/million_group_open_http_svc/import_topic",
    }
)
TRANSPORT_FAULTS = frozenset(
    {"502", "html", "empty", "truncated", "reset-before", "reset-after", "hang"}
)
# Faults after which the topic may exist; in this simulation half of the topics do.
MAY_TAKE_EFFECT = frozenset(
    {"10002", "60008", "60013", "70169", "70202", "70500", "502", "html", "empty", "truncated",
     "hang"}
)  # fmt: skip
TEXT_LIMITS = {
    "TopicName": 30,
    "CustomString": 3000,
    "FaceUrl": 100,
    "Notification": 300,
    "Introduction": 240,
}
KNOWN_FIELDS = frozenset({*TEXT_LIMITS, "GroupId", "TopicId", "Type", "From_Account", "CreateTime"})
WINDOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the simulated service allows, and its faults.

    `quota_per_s`: calls in any rolling second; 0: no limit. `faults`: kind -> probability; a kind
    is an error code or one of TRANSPORT_FAULTS.
    """

    sdk_app_id: int
    admin: str
    secret_key: str
    quota_per_s: int = 200
    faults: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back: a JSON body. `fault`: the transport fault to commit with it, if any."""

    body: Mapping[str, Any]
    fault: str | None = None


@dataclass(slots=True)
class Ledger:
    """What was created and answered, for comparison with what a run reports.

    `topics`: TopicId -> fields. `answers`: error code or fault -> count. Times are seconds of the
    clock that `Service.answer` is given.
    """

    topics: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    most_calls_in_a_second: int = 0
    created_without_id: int = 0
    first_call_s: float | None = None
    last_call_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds from the first call to the last."""
        return 0.0 if self.first_call_s is None else self.last_call_s - self.first_call_s

    def as_dict(self) -> dict[str, Any]:
        """Return the ledger as `GET /ledger` shows it."""
        return {
            "calls": self.calls,
            "created": len(self.topics),
            "created_without_id": self.created_without_id,
            "most_calls_in_a_second": self.most_calls_in_a_second,
            "seconds": self.seconds,
            "answers": dict(self.answers),
            "topics": list(self.topics.values()),
        }


class Service:
    """The simulated service and its state."""

    def __init__(self, rules: Rules, chance: random.Random) -> None:
        self._rules = rules
        self._chance = chance
        self._allowed: deque[float] = deque()
        self._arrived: deque[float] = deque()
        self.ledger = Ledger()

    def answer(self, call: Call, now_s: float, wall_s: float) -> Answer:
        """Return the answer to one call; what it creates is in the ledger then.

        `now_s`: seconds of a monotonic clock, for the quota. `wall_s`: Unix seconds, for the
        signature.
        """
        ledger = self.ledger
        ledger.calls += 1
        self._measure(now_s)
        refusal = self._refuse_access(call, wall_s) or self._refuse_frequency(now_s)
        if refusal:
            return self._refused(*refusal)
        fault = self._draw_fault()
        if fault:
            return self._faulty(fault, call)
        return Answer(self._import(call.body))

    def _faulty(self, fault: str, call: Call) -> Answer:
        self.ledger.answers[f"fault {fault}"] += 1
        takes_effect = fault == "reset-after" or (
            fault in MAY_TAKE_EFFECT and self._chance.random() < 0.5  # noqa: PLR2004
        )
        body = self._import(call.body) if takes_effect or fault == "truncated" else _fail(0, "")
        if fault in TRANSPORT_FAULTS:
            return Answer(body, fault)
        return Answer(_fail(int(fault), "injected fault"))

    def _refused(self, code: int, info: str) -> Answer:
        self.ledger.answers[str(code)] += 1
        return Answer(_fail(code, info))

    def _draw_fault(self) -> str | None:
        drawn = self._chance.random()
        for kind, probability in self._rules.faults.items():
            drawn -= probability
            if drawn < 0:
                return kind
        return None

    def _measure(self, now_s: float) -> None:
        if self.ledger.first_call_s is None:
            self.ledger.first_call_s = now_s
        self.ledger.last_call_s = now_s
        self._arrived.append(now_s)
        while self._arrived[0] <= now_s - WINDOW_S:
            self._arrived.popleft()
        self.ledger.most_calls_in_a_second = max(
            self.ledger.most_calls_in_a_second, len(self._arrived)
        )

    def _refuse_frequency(self, now_s: float) -> tuple[int, str] | None:
        if not self._rules.quota_per_s:
            return None
        while self._allowed and self._allowed[0] <= now_s - WINDOW_S:
            self._allowed.popleft()
        if len(self._allowed) >= self._rules.quota_per_s:
            return 60007, "frequency limit of this API exceeded"
        self._allowed.append(now_s)
        return None

    def _refuse_access(self, call: Call, wall_s: float) -> tuple[int, str] | None:
        query = call.query
        if call.method != "POST" or call.path not in PATHS:
            return 60009, "resource or URL wrong"
        if query.get("contenttype") != "json":
            return 60002, "contenttype must be json"
        number = query.get("random", "")
        if not (number.isascii() and number.isdigit() and int(number) < 2**32):
            return 60002, "random must be an unsigned 32-bit integer"
        if not query.get("sdkappid"):
            return 60012, "sdkappid is missing"
        if query["sdkappid"] != str(self._rules.sdk_app_id):
            return 70020, "SDKAppID not found"
        if query.get("identifier") != self._rules.admin:
            return 60010, "needs an app administrator"
        return self._refuse_signature(query.get("usersig", ""), wall_s)

    def _refuse_signature(self, usersig: str, wall_s: float) -> tuple[int, str] | None:
        if not usersig:
            return 70002, "UserSig is empty"
        ticket = _opened(usersig)
        if ticket is None:
            return 70003, "UserSig is invalid"
        if ticket.get("TLS.identifier") != self._rules.admin:
            return 70013, "identifier is not the one in the UserSig"
        if ticket.get("TLS.sdkappid") != self._rules.sdk_app_id:
            return 70014, "SDKAppID is not the one in the UserSig"
        if not hmac.compare_digest(str(ticket.get("TLS.sig")), self._signed(ticket)):
            return 70009, "UserSig does not verify"
        if wall_s >= ticket["TLS.time"] + ticket["TLS.expire"]:
            return 70001, "UserSig has expired"
        return None

    def _signed(self, ticket: Mapping[str, Any]) -> str:
        content = "".join(
            f"TLS.{name}:{ticket.get(f'TLS.{name}')}\n"
            for name in ("identifier", "sdkappid", "time", "expire")
        )
        digest = hmac.digest(self._rules.secret_key.encode(), content.encode(), hashlib.sha256)
        return base64.b64encode(digest).decode()

    def _import(self, body: bytes) -> Mapping[str, Any]:
        reply = self._checked_import(body)
        self.ledger.answers[str(reply["ErrorCode"])] += 1
        return reply

    def _checked_import(self, body: bytes) -> Mapping[str, Any]:
        try:
            topic = json.loads(body.decode("utf-8"))
        except ValueError:
            return _fail(60003, "request JSON parse error")
        if not isinstance(topic, dict):
            return _fail(10011, "JSON parse failure")
        refusal = _refuse_fields(topic) or _refuse_group(topic) or _refuse_topic_id(topic)
        if refusal:
            return _fail(*refusal)
        topic_id = topic.get("TopicId")
        if topic_id is None:
            self.ledger.created_without_id += 1
            topic_id = f"{topic['GroupId']}@TOPIC#_@TOPIC#c{len(self.ledger.topics):08X}"
        elif topic_id in self.ledger.topics:
            return _fail(10021, "topic ID is in use")
        self.ledger.topics[topic_id] = {**topic, "TopicId": topic_id}
        return {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "TopicId": topic_id}


def _refuse_fields(topic: Mapping[str, Any]) -> tuple[int, str] | None:
    unknown = topic.keys() - KNOWN_FIELDS
    if unknown:
        return 10004, f"unknown field {min(unknown)}"
    for name in ("GroupId", "TopicName"):
        if not isinstance(topic.get(name), str) or not topic[name]:
            return 10004, f"{name} is required"
    for name, limit in TEXT_LIMITS.items():
        text = topic.get(name, "")
        if not isinstance(text, str) or len(text.encode("utf-8", "surrogatepass")) > limit:
            return 10004, f"{name} is no text of at most {limit} bytes"
    if topic.get("Type", "Community") != "Community":
        return 10004, "Type must be Community"
    return _refuse_account_and_time(topic)


def _refuse_account_and_time(topic: Mapping[str, Any]) -> tuple[int, str] | None:
    account = topic.get("From_Account", "x")
    if not isinstance(account, str):
        return 60015, "From_Account must be a text"
    if not 0 < len(account.encode()) <= 32:  # noqa: PLR2004
        return 10004, "From_Account has a wrong length"
    created = topic.get("CreateTime", 0)
    if isinstance(created, bool) or not isinstance(created, int) or not 0 <= created < 2**32:
        return 10004, "CreateTime must be seconds in 32 bits"
    if "forbidden" in topic["TopicName"]:
        return 80001, "content check not passed"
    return None


def _refuse_group(topic: Mapping[str, Any]) -> tuple[int, str] | None:
    group_id = topic["GroupId"]
    if not _is_printable(group_id, 48) or not group_id.startswith("@TGS#_"):
        return 10015, "group ID is invalid"
    if "missing" in group_id:
        return 10010, "group does not exist or was deleted"
    if "forbidden" in group_id:
        return 10007, "no permission"
    if "notopics" in group_id:
        return 11000, "the group has no community topics"
    return None


def _refuse_topic_id(topic: Mapping[str, Any]) -> tuple[int, str] | None:
    topic_id = topic.get("TopicId")
    if topic_id is None:
        return None
    start = f"{topic['GroupId']}@TOPIC#_"
    if not isinstance(topic_id, str) or not _is_printable(topic_id, 96):
        return 10004, "TopicId is no printable ASCII of at most 96 bytes"
    own_part = topic_id[len(start) :]
    if not topic_id.startswith(start) or not own_part:
        return 10004, "TopicId must be GroupId, @TOPIC#_ and a part of its own"
    if "@TGS#_" in own_part or "@TOPIC#_@TOPIC#" in topic_id:
        return 10004, "TopicId holds what only the service's own IDs may"
    return None


def _is_printable(text: str, bytes_max: int) -> bool:
    return 0 < len(text) <= bytes_max and all(" " <= character <= "~" for character in text)


def _opened(usersig: str) -> dict[str, Any] | None:
    try:
        packed = base64.b64decode(
            usersig.replace("*", "+").replace("-", "/").replace("_", "="), validate=True
        )
        ticket = json.loads(zlib.decompress(packed))
    except (ValueError, zlib.error):
        return None
    numbers = [ticket.get("TLS.time"), ticket.get("TLS.expire")] if isinstance(ticket, dict) else []
    return ticket if numbers and all(isinstance(n, int) for n in numbers) else None


def _fail(code: int, info: str) -> Mapping[str, Any]:
    return {"ActionStatus": "FAIL", "ErrorInfo": info, "ErrorCode": code}
