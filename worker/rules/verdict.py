"""What a reply means for its record: a pure function of the reply and the record's history."""

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from worker.rules.codes import (
    ADMIN_WITHOUT_ACCOUNT,
    NO_TOPICS,
    PAUSES_S,
    Action,
    Code,
    lookup,
)
from worker.rules.outcome import Already, History, Reason
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import Topic


class SetupFault(Enum):
    """A failure that waiting seldom cures, seen before anybody ever answered."""

    CERTIFICATE = "the certificate is not trusted"
    ADDRESS = "the address leads nowhere"


@dataclass(slots=True, unsafe_hash=True)
class Reply:
    """What came back from one attempt. Not frozen, for the sake of speed; nobody changes it.

    `status` is the HTTP status, None where no answer came. `code` is the service's ErrorCode,
    None where the body was not the service's. `failure` says in a few words what was wrong with
    the transport or the body. `may_have_taken_effect` speaks of replies without a code.
    `retry_after_s`: how long the reply asks to wait. `setup_fault`: why no call can succeed, where
    the failure shows it.
    """

    status: int | None = None
    code: int | None = None
    info: str = ""
    topic_id: str | None = None
    action_status: str | None = None
    failure: str | None = None
    may_have_taken_effect: bool = False
    retry_after_s: float | None = None
    setup_fault: SetupFault | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the run knows beside the record: has this queue imported anything; the setting."""

    anything_imported: bool = False
    skip_existing: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """The topic exists, and by whose doing; under the service's own ID where none was sent."""

    already: Already = Already.NO
    made_id: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Wait and try again.

    `tries`: after so many failures a rejection. `reached`: the call got as far as somebody who
    could judge it; a line that is dead says nothing about the record. `no_record_s_fault`: of a
    kind by which the service itself may fail for all. `is_unknown`: by a code in no table.
    `wait_s`: how long the reply asks to wait. `setup_fault`: why no call may ever succeed.
    """

    code: int | None
    message: str
    hint: str
    ambiguous: bool
    tries: int | None = None
    reached: bool = True
    no_record_s_fault: bool = True
    is_unknown: bool = False
    wait_s: float = 0.0
    setup_fault: SetupFault | None = None


@dataclass(frozen=True, slots=True)
class Throttled:
    """The worker as a whole is to slow down, or to stop for `pauses_s` one after the other."""

    code: int | None
    message: str
    hint: str
    pauses_s: tuple[float, ...] = ()
    halt_after_pauses: bool = False


@dataclass(frozen=True, slots=True)
class Renew:
    """A new signature is needed; where one does not help, all calls stop for `pauses_s`."""

    code: int
    message: str
    once: bool
    hint: str = ""
    pauses_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """The record's own fault."""

    reason: Reason
    code: int | None
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Compare:
    """A TopicId that the record gave is in use: only get_topic can show whose topic it is."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class HoldCommunity:
    """The community, or the whole app, takes no topics; `letter`: should it be the community."""

    letter: Reject


@dataclass(frozen=True, slots=True)
class Halt:
    """A person must act; the record stays queued."""

    code: int | str
    message: str


Verdict = Imported | Retry | Throttled | Renew | Reject | Compare | HoldCommunity | Halt

MADE = Imported()
"""The call made the topic, under the TopicId that was sent."""

TOO_MANY_REQUESTS = 429
REQUEST_TIMEOUT = 408
NOT_IMPLEMENTED = 501
CLIENT_ERRORS = 4


def decide(
    reply: Reply, topic: Topic, history: History, circumstances: Circumstances | None = None
) -> Verdict:
    """Decide what a reply means for its record, given the attempts before this one."""
    if reply.code is None:
        return _without_a_code(reply)
    known = circumstances or Circumstances()
    return _with_a_code(reply, reply.code, topic, history, known)


def _with_a_code(
    reply: Reply, code: int, topic: Topic, history: History, known: Circumstances
) -> Verdict:
    entry = lookup(code)
    message = reply.info or entry.meaning
    match entry.action:
        case Action.IMPORTED:
            return _imported(reply, topic)
        case Action.EXISTS:
            return _exists(entry, message, topic, history, known)
        case Action.RETRY | Action.UNKNOWN:
            passing = entry.action is Action.RETRY and entry.tries is None
            return Retry(
                entry.code,
                message,
                entry.hint,
                entry.ambiguous,
                entry.tries,
                no_record_s_fault=passing,
                is_unknown=entry.action is Action.UNKNOWN,
            )
        case Action.THROTTLED | Action.RENEW:
            return _for_the_worker(entry, message)
        case Action.REJECT:
            return _reject(entry, message, topic)
        case Action.HALT:
            return Halt(entry.code, f"{message}: {entry.hint}")
        case Action.HOLD:
            return _hold(entry, message, known)
        case _:
            assert_never(entry.action)


def _for_the_worker(entry: Code, message: str) -> Throttled | Renew:
    """Judge a code that says nothing about the record."""
    if entry.action is Action.RENEW:
        return Renew(entry.code, message, entry.once, entry.hint, entry.pauses_s)
    return Throttled(entry.code, message, entry.hint, entry.pauses_s, entry.halt_after_pauses)


def _without_a_code(reply: Reply) -> Verdict:
    """Judge an answer that did not come from the service itself (REST overview: only HTTP 200)."""
    if reply.status == TOO_MANY_REQUESTS:
        # 429 is the one gateway answer that says by its meaning that nothing was done.
        wait_s = reply.retry_after_s
        pauses_s = PAUSES_S if wait_s is None else (wait_s,)
        return Throttled(None, "HTTP 429", "a gateway asks to wait", pauses_s)
    hint = "the network, a proxy or the service's gateway; the record itself is not to blame"
    return Retry(
        None,
        reply.failure or f"HTTP {reply.status}",
        hint,
        ambiguous=reply.may_have_taken_effect,
        reached=reply.status is not None or reply.may_have_taken_effect,
        wait_s=reply.retry_after_s or 0.0,
        setup_fault=reply.setup_fault or _setup_fault(reply.status),
    )


def _setup_fault(status: int | None) -> SetupFault | None:
    """Return what a status shows of the address: 4xx and 501 come from nobody who imports."""
    if status is None or status == REQUEST_TIMEOUT:
        return None
    is_fault = status // 100 == CLIENT_ERRORS or status == NOT_IMPLEMENTED
    return SetupFault.ADDRESS if is_fault else None


def _imported(reply: Reply, topic: Topic) -> Verdict:
    """Believe a success only with all its marks: OK, and the TopicId that was asked for."""
    hint = "the answer was damaged; the next attempt finds out what it meant"
    if reply.action_status != "OK" or not reply.topic_id:
        return Retry(0, "ErrorCode 0 without ActionStatus OK and a TopicId", hint, ambiguous=True)
    if topic.topic_id is not None and reply.topic_id != topic.topic_id:
        return Retry(0, "success for another TopicId than was asked for", hint, ambiguous=True)
    return MADE if topic.topic_id else Imported(made_id=reply.topic_id)


def _exists(
    entry: Code, message: str, topic: Topic, history: History, circumstances: Circumstances
) -> Verdict:
    """Judge a TopicId that is in use: a derived one is ours, a given one may be anybody's."""
    if topic.origin is Origin.NONE:
        return Reject(Reason.REJECTED, entry.code, message, "the call named no TopicId")
    if topic.origin is Origin.DERIVED:
        return Imported(Already.OWN if history.may_exist else Already.BEFORE)
    if circumstances.skip_existing and not history.may_exist:
        return Imported(Already.BEFORE)
    return Compare(entry.code, message)


def _reject(entry: Code, message: str, topic: Topic) -> Verdict:
    if entry.code in ADMIN_WITHOUT_ACCOUNT and not topic.has_account:
        return Halt(
            entry.code,
            f"{message}: the record names no From_Account, so this is app.admin: import its "
            "account, and check its name",
        )
    return Reject(Reason.REJECTED, entry.code, message, entry.hint)


def _hold(entry: Code, message: str, circumstances: Circumstances) -> Verdict:
    letter = Reject(Reason.REJECTED, entry.code, message, entry.hint)
    if entry.code == NO_TOPICS and circumstances.anything_imported:
        # Others have topics, so it is this community that has none.
        return letter
    return HoldCommunity(letter)
