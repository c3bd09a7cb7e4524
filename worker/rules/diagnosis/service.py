"""What the way to the service, and its answers to calls that make nothing, say of the settings.

Source: error code pages; REST overview (a GroupId of a community starts with @TGS#_).
"""

from worker.rules.codes import (
    ACCOUNT_FAMILY,
    ADMIN_WITHOUT_ACCOUNT,
    CODES,
    Action,
    Code,
    lookup,
)
from worker.rules.comparison import TopicsReply
from worker.rules.diagnosis.finding import Finding, failed, passed, warned
from worker.rules.verdict import Reply

IMPOSSIBLE_GROUP = "topic-import-doctor"
"""A GroupId that no community can have, without the prefix @TGS#_: a call with it makes nothing."""
IMPORT = "import_topic"
READ = "get_topic"
EXPECTED = frozenset({10004, 10010, 10015})
"""How a call without a community and a name is refused by the service that is meant."""
NO_PERMISSION = 10007
NO_TOPICS = 11000
WRONG_PATH = frozenset({60009, 10003})
NOT_FOR_THIS_APP = frozenset({60009, 60017, 10003, 10026})
"""Refusals of a command that may be meant for it alone."""
ADDRESS = "check app.base_url, app.region, app.path, and the proxy"
SKEW_WARN_S = 60.0
SKEW_FAIL_S = 3600.0
CERTIFICATE_DAYS_MIN = 14
DAY_S = 86_400


def judge_clock(skew_s: float | None) -> Finding:
    """Judge how far this clock is ahead of the service's; None: the answer named no time."""
    if skew_s is None:
        return warned(
            "clock", "the answer has no Date to compare with", "see that this machine keeps time"
        )
    if abs(skew_s) < 1:
        return passed("clock", "agrees with the service's to the second")
    side = "ahead of" if skew_s > 0 else "behind"
    message = f"{abs(skew_s):,.0f} s {side} the service's"
    if abs(skew_s) >= SKEW_FAIL_S:
        return failed("clock", message, "set the clock (NTP): signatures are dated by it")
    if abs(skew_s) >= SKEW_WARN_S:
        return warned("clock", message, "set the clock (NTP), before signatures are refused")
    return passed("clock", message)


def judge_certificate(issuer: str, ends_s: float, now_s: float) -> Finding:
    """Judge a certificate that was verified, by its issuer and its end in Unix seconds."""
    days = (ends_s - now_s) / DAY_S
    message = f"certificate of {issuer or 'an unnamed issuer'}, valid for {days:.0f} days"
    if days < CERTIFICATE_DAYS_MIN:
        return warned("TLS", message, "whoever keeps the server or the proxy must renew it")
    return passed("TLS", message)


def is_passing(code: int | None, status: int | None) -> bool:
    """Return whether the same call may well be answered otherwise in a moment."""
    if code is None:
        return status is None or status >= 500 or status == 429  # noqa: PLR2004 - HTTP
    is_later = lookup(code).action in {Action.RETRY, Action.THROTTLED}
    return is_later and not is_signature_refused(code)


def is_signature_refused(code: int | None) -> bool:
    """Return whether app, account or signature were refused: then no further call may follow."""
    if code is None or code in WRONG_PATH:
        return False
    action = lookup(code).action
    # 70050: too many failed verifications before.
    is_locked_out = action is Action.THROTTLED and code in ACCOUNT_FAMILY
    return action in {Action.RENEW, Action.HALT} or is_locked_out


def judge_import(reply: Reply) -> Finding:
    """Judge the answer to a call of import_topic that names no community and no topic."""
    if reply.code is None:
        return _without_a_code(reply.status, reply.failure)
    if reply.code == 0:
        return failed(IMPORT, "a call that must be refused was accepted", ADDRESS)
    if reply.code in EXPECTED:
        return passed(
            IMPORT,
            f"refused with {reply.code} as it must be: path, data centre, app and signature fit",
        )
    code, info = lookup(reply.code), reply.info
    if reply.code == NO_PERMISSION:
        return warned(IMPORT, _said(code, info), f"see that app.admin may import: {code.hint}")
    if reply.code == NO_TOPICS or reply.code in ADMIN_WITHOUT_ACCOUNT:
        hint = code.hint if reply.code == NO_TOPICS else "app.admin must be an account of the app"
        return failed(IMPORT, _said(code, info), hint)
    is_new_refusal = code.action is Action.UNKNOWN and not code.ambiguous
    if is_new_refusal or is_signature_refused(reply.code) or reply.code in WRONG_PATH:
        return failed(IMPORT, _said(code, info), code.hint)
    if is_passing(reply.code, reply.status):
        return warned(IMPORT, _said(code, info), "try again in a minute; then ask Tencent Cloud")
    return warned(IMPORT, _said(code, info), f"not the answer that was expected: {code.hint}")


def judge_reading(reply: TopicsReply) -> Finding:
    """Judge the answer to a call of get_topic that names no community. Imports work without it."""
    doubts = "topics in use cannot be compared, so doubts stay (own?), and conflicts are not solved"
    if reply.code is None:
        message = reply.failure or "an answer that is not the service's"
        return warned(READ, f"{message}: {doubts}", "see why this path alone is not answered")
    if reply.code == 0 or reply.code in EXPECTED:
        return passed(READ, "may be called")
    code = lookup(reply.code)
    said = _said(code, reply.info)
    if reply.code == NO_PERMISSION or reply.code in NOT_FOR_THIS_APP:
        return warned(READ, f"{said}: {doubts}", "allow app.admin to read topics, if you can")
    if is_signature_refused(reply.code):
        return failed(READ, said, code.hint)
    return warned(READ, f"{said}: {doubts}", "run doctor again before you rely on it")


def _without_a_code(status: int | None, failure: str | None) -> Finding:
    message = failure or "an answer that is not the service's"
    if status is not None and status >= 500:  # noqa: PLR2004 - HTTP
        return failed(
            IMPORT, f"{message}: a gateway answers in place of the service", "try again in a minute"
        )
    return failed(IMPORT, message, ADDRESS)


def _said(code: Code, info: str) -> str:
    meaning = code.meaning if code.code in CODES else f"an {code.meaning}"
    said = f" ({info})" if info and info != meaning else ""
    return f"{code.code}: {meaning}{said}"
