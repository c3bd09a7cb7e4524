"""What the simulated service answers to a call, given the time and a source of chance.

Conventions in a GroupId, so that any refusal can be asked for by data: a community with

- `missing` does not exist (10010),
- `forbidden` may not be written to or read (10007),
- `unreadable` may be written to, but not read by get_topic (10007),
- `notopics` has no topics (11000),
- `down` fails always (10002); `down60s` fails in the first 60 seconds after the first import call,
- `full5` takes 5 topics (then 10037), and so with any other number.

All others exist. A TopicName that holds `forbidden` fails the content check (80001).
"""

import base64
import hashlib
import hmac
import json
import random
import zlib
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.simulator.communities import Refusal, is_printable, refuse_group, topics_max
from worker.simulator.ledger import Ledger
from worker.simulator.reading import get_topic

PATHS = frozenset(
    {
        "/v4/group_open_http_svc/import_topic",
        "/v4/million_group_open_http_svc/import_topic",
    }
)
GET_TOPIC_PATH = "/v4/million_group_open_http_svc/get_topic"
TRANSPORT_FAULTS = frozenset(
    {"502", "html", "empty", "truncated", "reset-before", "reset-after", "hang"}
)
# Faults after which the topic may exist; in this simulation half of the topics do.
MAY_TAKE_EFFECT = frozenset(
    {"10002", "60008", "60013", "70169", "70202", "70500", "502", "html", "empty", "truncated",
     "hang"}
)  # fmt: skip
# Of the faults for all calls those that get_topic draws, too: not refusals of what a record holds.
FAULTS_OF_ALL_CALLS = TRANSPORT_FAULTS | {"10002", "10006", "10008"}
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
    """What the stand-in allows and how it misbehaves. `faults`: kind -> probability.

    `get_topic_faults`: those of get_topic, None: the ones of `faults` that are not about a record.
    `may_read`: whether get_topic is allowed (else 10007). `in_use_code`: the answer to the admin
    that repeats its own call, 10021 or 10025; an ID that others made is always 10021. `topics_max`:
    how many topics a community may hold, 0: any number. `topics`: made by others before the start.
    """

    sdk_app_id: int
    admin: str
    secret_key: str
    quota_per_s: int = 200
    faults: Mapping[str, float] = field(default_factory=dict)
    get_topic_quota_per_s: int = 200
    get_topic_faults: Mapping[str, float] | None = None
    may_read: bool = True
    in_use_code: int = 10021
    topics_max: int = 0
    topics: Sequence[Mapping[str, Any]] = ()


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


class Service:
    """The simulated service and its state."""

    def __init__(self, rules: Rules, chance: random.Random) -> None:
        self._rules = rules
        self._chance = chance
        self._allowed: deque[float] = deque()
        self._arrived: deque[float] = deque()
        self._reads_allowed: deque[float] = deque()
        self._reads_arrived: deque[float] = deque()
        self._topics_in: Counter[str] = Counter()
        self._counted = 0
        self._wall_s = 0.0
        self.ledger = Ledger()
        for topic in rules.topics:
            self.ledger.add(topic)

    def answer(self, call: Call, now_s: float, wall_s: float) -> Answer:
        """Answer one call; what it creates is in the ledger when this returns."""
        self._wall_s = wall_s
        if call.path == GET_TOPIC_PATH:
            return self._answer_reading(call, now_s, wall_s)
        ledger = self.ledger
        ledger.calls += 1
        self._measure(now_s)
        refusal = self._refuse_access(call, wall_s) or self._refuse_frequency(now_s)
        if refusal:
            return self._refused(*refusal)
        fault = self._draw_fault(self._rules.faults)
        if fault:
            return self._faulty(fault, call)
        return Answer(self._import(call.body))

    def _answer_reading(self, call: Call, now_s: float, wall_s: float) -> Answer:
        ledger = self.ledger
        ledger.get_topic_calls += 1
        ledger.get_topic_most_calls_in_a_second = max(
            ledger.get_topic_most_calls_in_a_second, _count(self._reads_arrived, now_s)
        )
        fault = None
        refusal = self._refuse_access(call, wall_s) or self._refuse_reading(now_s)
        if not refusal:
            fault = self._draw_fault(self._faults_of_reading())
        if fault and fault not in TRANSPORT_FAULTS:
            refusal = int(fault), "injected fault"
        elapsed_s = 0.0 if ledger.first_call_s is None else now_s - ledger.first_call_s
        reply = refusal or get_topic(call.body, ledger, elapsed_s)
        body = _fail(*reply) if isinstance(reply, tuple) else reply
        ledger.get_topic_answers[f"fault {fault}" if fault else str(body["ErrorCode"])] += 1
        return Answer(body, fault if fault in TRANSPORT_FAULTS else None)

    def _refuse_reading(self, now_s: float) -> Refusal | None:
        quota_per_s = self._rules.get_topic_quota_per_s
        if quota_per_s and not _is_within(self._reads_allowed, quota_per_s, now_s):
            return 60007, "frequency limit of this API exceeded"
        return None if self._rules.may_read else (10007, "no permission")

    def _faults_of_reading(self) -> Mapping[str, float]:
        if self._rules.get_topic_faults is not None:
            return self._rules.get_topic_faults
        return {
            kind: probability
            for kind, probability in self._rules.faults.items()
            if kind in FAULTS_OF_ALL_CALLS or kind.startswith(("6", "7"))
        }

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

    def _draw_fault(self, faults: Mapping[str, float]) -> str | None:
        drawn = self._chance.random()
        for kind, probability in faults.items():
            drawn -= probability
            if drawn < 0:
                return kind
        return None

    def _measure(self, now_s: float) -> None:
        if self.ledger.first_call_s is None:
            self.ledger.first_call_s = now_s
        self.ledger.last_call_s = now_s
        self.ledger.most_calls_in_a_second = max(
            self.ledger.most_calls_in_a_second, _count(self._arrived, now_s)
        )

    def _refuse_frequency(self, now_s: float) -> Refusal | None:
        quota_per_s = self._rules.quota_per_s
        if quota_per_s and not _is_within(self._allowed, quota_per_s, now_s):
            return 60007, "frequency limit of this API exceeded"
        return None

    def _refuse_access(self, call: Call, wall_s: float) -> Refusal | None:
        query = call.query
        if call.method != "POST" or call.path not in {*PATHS, GET_TOPIC_PATH}:
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

    def _refuse_signature(self, usersig: str, wall_s: float) -> Refusal | None:
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
        refusal = (
            _refuse_fields(topic)
            or refuse_group(topic["GroupId"], self.ledger.seconds)
            or _refuse_topic_id(topic)
        )
        if refusal:
            return _fail(*refusal)
        return self._made(topic)

    def _made(self, topic: dict[str, Any]) -> Mapping[str, Any]:
        ledger, topic_id, group_id = self.ledger, topic.get("TopicId"), topic["GroupId"]
        if topic_id in ledger.topics:
            # By others: no call made it.
            code = self._rules.in_use_code if topic_id in ledger.made_at else 10021
            return _fail(code, "topic ID is in use")
        if self._is_full(group_id):
            return _fail(10037, "the number of topics exceeds the limit")
        if topic_id is None:
            ledger.created_without_id += 1
            topic_id = f"{group_id}@TOPIC#_@TOPIC#c{len(ledger.topics):08X}"
        ledger.topics[topic_id] = {**topic, "TopicId": topic_id}
        ledger.made_at[topic_id] = int(self._wall_s)
        ledger.deleted.discard(topic_id)
        self._topics_in[group_id] += 1
        self._counted += 1
        return {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "TopicId": topic_id}

    def _is_full(self, group_id: str) -> bool:
        limit = topics_max(group_id, self._rules.topics_max)
        if not limit:
            return False
        topics = self.ledger.topics
        if self._counted != len(topics):  # a test added or removed some
            self._topics_in = Counter(topic_id.partition("@TOPIC#_")[0] for topic_id in topics)
            self._counted = len(topics)
        return self._topics_in[group_id] >= limit


def _count(times_s: deque[float], now_s: float) -> int:
    """Add a call. Returns how many there were in the last second."""
    times_s.append(now_s)
    _forget(times_s, now_s)
    return len(times_s)


def _is_within(times_s: deque[float], quota_per_s: int, now_s: float) -> bool:
    """Return whether one more call is within the quota, and add it if so."""
    _forget(times_s, now_s)
    if len(times_s) >= quota_per_s:
        return False
    times_s.append(now_s)
    return True


def _forget(times_s: deque[float], now_s: float) -> None:
    while times_s and times_s[0] <= now_s - WINDOW_S:
        times_s.popleft()


def _refuse_fields(topic: Mapping[str, Any]) -> Refusal | None:
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


def _refuse_account_and_time(topic: Mapping[str, Any]) -> Refusal | None:
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


def _refuse_topic_id(topic: Mapping[str, Any]) -> Refusal | None:
    topic_id = topic.get("TopicId")
    if topic_id is None:
        return None
    start = f"{topic['GroupId']}@TOPIC#_"
    if not isinstance(topic_id, str) or not is_printable(topic_id, 96):
        return 10004, "TopicId is no printable ASCII of at most 96 bytes"
    own_part = topic_id[len(start) :]
    if not topic_id.startswith(start) or not own_part:
        return 10004, "TopicId must be GroupId, @TOPIC#_ and a part of its own"
    if "@TGS#_" in own_part or "@TOPIC#_@TOPIC#" in topic_id:
        return 10004, "TopicId holds what only the service's own IDs may"
    return None


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
