"""What a reply means for its record: a pure function of the reply and the record's history."""

from dataclasses import dataclass
from typing import assert_never

from worker.rules.codes import PAUSES_S, Action, Code, lookup
from worker.rules.outcome import Already, History, Reason
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import Topic


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back from one attempt.

    `status` is the HTTP status, None where no answer came. `code` is the service's ErrorCode,
    None where the body was not the service's. `failure` says in a few words what was wrong with
    the transport or the body. `may_have_taken_effect` speaks of replies without a code.
    """

    status: int | None = None
    code: int | None = None
    info: str = ""
    topic_id: str | None = None
    action_status: str | None = None
    failure: str | None = None
    may_have_taken_effect: bool = False


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
    kind by which the service itself may fail for all.
    """

    code: int | None
    message: str
    hint: str
    ambiguous: bool
    tries: int | None = None
    reached: bool = True
    no_record_s_fault: bool = True


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
    """A new signature is needed."""

    code: int
    message: str
    once: bool


@dataclass(frozen=True, slots=True)
class Reject:
    """The record's own fault."""

    reason: Reason
    code: int | None
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Halt:
    """A person must act; the record stays queued."""

    code: int | str
    message: str


Verdict = Imported | Retry | Throttled | Renew | Reject | Halt

TOO_MANY_REQUESTS = 429


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
            )
        case Action.THROTTLED:
            return Throttled(
                entry.code, message, entry.hint, entry.pauses_s, entry.halt_after_pauses
            )
        case Action.RENEW:
            return Renew(entry.code, message, entry.once)
        case Action.REJECT:
            return _reject(entry, message, topic)
        case Action.HALT:
            return _halt(entry, message, known)
        case _:
            assert_never(entry.action)


def _without_a_code(reply: Reply) -> Verdict:
    """Judge an answer that did not come from the service itself (REST overview: only HTTP 200)."""
    if reply.status == TOO_MANY_REQUESTS:
        # 429 is the one gateway answer that says by its meaning that nothing was done.
        return Throttled(None, "HTTP 429", "a gateway asks to wait", PAUSES_S)
    failure = reply.failure or f"HTTP {reply.status}"
    hint = "the network, a proxy or the service's gateway; the record itself is not to blame"
    reached = reply.status is not None or reply.may_have_taken_effect
    return Retry(None, failure, hint, ambiguous=reply.may_have_taken_effect, reached=reached)


def _imported(reply: Reply, topic: Topic) -> Verdict:
    """Believe a success only with all its marks: OK, and the TopicId that was asked for."""
    hint = "the answer was damaged; the next attempt finds out what it meant"
    if reply.action_status != "OK" or not reply.topic_id:
        return Retry(0, "ErrorCode 0 without ActionStatus OK and a TopicId", hint, ambiguous=True)
    if topic.topic_id is not None and reply.topic_id != topic.topic_id:
        return Retry(0, "success for another TopicId than was asked for", hint, ambiguous=True)
    return Imported(made_id=None if topic.topic_id else reply.topic_id)


def _exists(
    entry: Code, message: str, topic: Topic, history: History, circumstances: Circumstances
) -> Verdict:
    if topic.origin is Origin.NONE:
        return Reject(Reason.REJECTED, entry.code, message, "the call named no TopicId")
    if history.may_exist:
        return Imported(Already.OWN)
    if topic.origin is Origin.DERIVED or circumstances.skip_existing:
        return Imported(Already.BEFORE)
    hint = (
        "a topic with this TopicId existed before the first call: "
        "compare it with get_topic, then choose another TopicId or "
        'set records.on_existing = "skip"'
    )
    return Reject(Reason.CONFLICT, entry.code, message, hint)


ACCOUNT_NOT_IMPORTED = 70107
NO_TOPICS = 11000


def _reject(entry: Code, message: str, topic: Topic) -> Verdict:
    if entry.code == ACCOUNT_NOT_IMPORTED and not topic.has_account:
        # Without From_Account the only account in the call is the admin's.
        return Halt(entry.code, f"{message}: import the account of app.admin")
    return Reject(Reason.REJECTED, entry.code, message, entry.hint)


def _halt(entry: Code, message: str, circumstances: Circumstances) -> Verdict:
    if entry.code == NO_TOPICS and circumstances.anything_imported:
        hint = "this community was made without SupportTopic=1"
        return Reject(Reason.REJECTED, entry.code, message, hint)
    return Halt(entry.code, f"{message}: {entry.hint}")
