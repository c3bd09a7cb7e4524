"""The way to the service, step by step, and two calls that can make nothing there."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import orjson

from worker.chat import GET_TOPIC_PATH, read_reply, read_topics_reply
from worker.jobs import UsageError
from worker.jobs.calling import endpoint
from worker.probing import Answer, ProbeError, Way, call, connect, look_up, verify
from worker.rules.comparison import TopicsReply
from worker.rules.diagnosis.finding import Finding, Grade, failed, passed, warned
from worker.rules.diagnosis.service import (
    IMPORT,
    IMPOSSIBLE_GROUP,
    READ,
    WRONG_PATH,
    is_passing,
    is_signature_refused,
    judge_certificate,
    judge_clock,
    judge_import,
    judge_reading,
)
from worker.rules.first_contact import ADVICE
from worker.rules.verdict import Reply, SetupFault
from worker.settings.model import Settings

CALLS_MAX = 5
ADDRESSES_SHOWN = 3
PAUSE_S = 1.0
"""Before a call is repeated that failed in a way that may pass."""
PATHS = ("v4/group_open_http_svc/import_topic", "v4/million_group_open_http_svc/import_topic")
"""Both are documented, and nowhere is said whether they differ."""
NOTHING = orjson.dumps({"GroupId": IMPOSSIBLE_GROUP})
"""The body of a call that can make nothing: no community has this ID, and no name is given."""
STEPS = ("name", "TCP", "TLS", "clock", IMPORT, READ)


@dataclass(slots=True)
class Calls:
    """Counts the calls that were made."""

    made: int = 0


def service(settings: Settings, usersig: str | None, calls: Calls) -> Iterator[Finding]:
    """Yield what is found of each step, until one fails without which the next make no sense.

    `usersig`: None makes no call.
    """
    seen: list[str] = []
    for finding in _steps(settings, usersig, calls):
        seen.append(finding.name)
        yield finding
    skipped = [step for step in STEPS if step not in seen]
    if "TLS" in skipped and (settings.app.base_url or "").startswith("http://"):
        skipped.remove("TLS")
    if skipped:
        yield warned(
            "not checked", ", ".join(skipped), "mend what fails above, then run doctor again"
        )


def _steps(settings: Settings, usersig: str | None, calls: Calls) -> Iterator[Finding]:
    app = settings.app
    if not (app.region or app.base_url):
        return
    try:
        found = endpoint(settings)
    except UsageError as error:
        yield failed("settings", str(error), "correct it or take it out")
        return
    way = Way(
        found.base_url, found.connect_timeout_s, found.total_timeout_s, found.proxy, found.ca_file
    )
    reach = list(_reach(way))
    yield from reach
    if usersig is None or any(finding.grade is Grade.FAIL for finding in reach):
        return
    caller = _Caller(settings, way, usersig, calls)
    reply = caller.import_topic(app.path)
    if caller.has_answer:
        yield judge_clock(caller.skew_s)
    finding = judge_import(reply)
    if reply.code in WRONG_PATH or reply.status in {404, 405}:
        finding = replace(finding, advice=_other_path(caller, app.path) or finding.advice)
    yield finding
    if reply.code is not None and not caller.is_refused:
        yield judge_reading(caller.get_topic())


def _reach(way: Way) -> Iterator[Finding]:
    """Yield what is found on the way to the service, before any call."""
    host, port = way.first_hop
    hop = f"{host} (the proxy)" if way.proxy else host
    step = "name"
    try:
        addresses = look_up(way)
        more = len(addresses) - ADDRESSES_SHOWN
        shown = ", ".join(addresses[:ADDRESSES_SHOWN]) + (f" and {more} more" if more > 0 else "")
        yield passed(step, f"{hop} is {shown}")
        step = "TCP"
        yield passed(step, f"port {port} answers after {connect(way) * 1000:.0f} ms")
        if way.is_tls:
            step = "TLS"
            certificate = verify(way)
            yield judge_certificate(certificate.issuer, certificate.ends_s, time.time())
    except ProbeError as error:
        fault = SetupFault.CERTIFICATE if error.is_certificate else SetupFault.ADDRESS
        yield failed(step, str(error), ADVICE[fault])


class _Caller:
    """Makes the calls, with one more try for what may pass, and never more than CALLS_MAX.

    `skew_s`: how far this clock was ahead of the service's in the first answer. `is_refused`:
    whether the signature was refused; no call may follow then.
    """

    def __init__(self, settings: Settings, way: Way, usersig: str, calls: Calls) -> None:
        self._way = way
        self._calls = calls
        self._admin = settings.app.admin
        self._query = {
            "sdkappid": str(settings.app.sdk_app_id),
            "identifier": settings.app.admin,
            "usersig": usersig,
        }
        self.has_answer = False
        self.skew_s: float | None = None
        self.is_refused = False

    def import_topic(self, path: str, *, tries: int = 2) -> Reply:
        """Make the call that can make nothing; every failure is a reply."""
        reply = self._import(path)
        if tries > 1 and is_passing(reply.code, reply.status):
            time.sleep(PAUSE_S)
            reply = self._import(path)
        return reply

    def get_topic(self) -> TopicsReply:
        """Ask for the topics of a community that cannot exist."""
        body = orjson.dumps({"GroupId": IMPOSSIBLE_GROUP, "From_Account": self._admin})
        reply = self._read(body)
        if is_passing(reply.code, reply.status):
            time.sleep(PAUSE_S)
            reply = self._read(body)
        return reply

    def _import(self, path: str) -> Reply:
        try:
            answer = self._call(path, NOTHING)
        except ProbeError as error:
            return Reply(failure=str(error))
        reply = read_reply(answer.status, answer.content)
        self.is_refused |= is_signature_refused(reply.code)
        return reply

    def _read(self, body: bytes) -> TopicsReply:
        try:
            answer = self._call(GET_TOPIC_PATH, body)
        except ProbeError as error:
            return TopicsReply(failure=str(error))
        return read_topics_reply(answer.status, answer.content, ())

    def _call(self, path: str, body: bytes) -> Answer:
        if self._calls.made == CALLS_MAX:
            raise ProbeError(f"{CALLS_MAX} calls were made already")
        self._calls.made += 1
        answer = call(self._way, path, self._query, body)
        if not self.has_answer:
            self.has_answer, self.skew_s = True, answer.skew_s
        return answer


def _other_path(caller: _Caller, path: str) -> str:
    """Return advice to set the other documented path, if the service answers there."""
    other = next(known for known in PATHS if known.strip("/") != path.strip("/"))
    reply = caller.import_topic(other, tries=1)
    return f'set app.path = "{other}"' if judge_import(reply).grade is Grade.PASS else ""
