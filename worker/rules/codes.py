"""Every error code of the service as data: its meaning, what the worker does, what a person can do.

Source: REST overview, error code pages, and the REST pages of import_topic and create_topic.
"""

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What the worker does with a reply that carries a code."""

    IMPORTED = "imported"
    EXISTS = "exists"
    RETRY = "retry"
    THROTTLED = "throttled"
    RENEW = "renew"
    REJECT = "reject"
    HOLD = "hold the community"
    HALT = "halt"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Code:
    """One error code.

    `hint`: what a person should do, or why the worker does what it does.
    `ambiguous`: the topic may have been made although the call failed.
    `once`: only one renewal is tried, then the run halts, after `pauses_s` where there are some.
    `pauses_s`: how long a throttle stops all calls, in seconds: the first value, then the next one
    for every further throttle in a row, the last one repeated. Without values the rate is lowered.
    `halt_after_pauses`: the run halts instead of repeating the last value.
    `tries`: after so many failures a retry becomes a rejection.
    """

    code: int
    meaning: str
    action: Action
    hint: str
    ambiguous: bool = False
    once: bool = False
    pauses_s: tuple[float, ...] = ()
    halt_after_pauses: bool = False
    tries: int | None = None


FULL = 10037
NO_TOPICS = 11000
NO_GROUP = 10010
WRONG_GROUP = 10015
NO_PERMISSION = 10007
ACCOUNT_OR_SIGNATURE = frozenset({60004, 60005})
"""Codes that both a bad signature and a bad account in the body give (error code pages)."""
ADMIN_WITHOUT_ACCOUNT = frozenset({10012, 10019, 60015, 70107, 90008, 90012, 90048})
"""Codes of a bad account: where a record names none, the only account in the call is the admin."""

PAUSES_S = (1.0, 2.0, 4.0, 8.0)
"""For a limit that other clients use up, too: only waiting helps, and nothing announces its end."""


ACCOUNT_CHECK_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""A failed check of the account or the signature may pass (newest error page); half a minute."""


def _retry(code: int, meaning: str, hint: str, *, tries: int | None = None) -> Code:
    return Code(code, meaning, Action.RETRY, hint, tries=tries)


def _ambiguous(code: int, meaning: str, hint: str) -> Code:
    return Code(code, meaning, Action.RETRY, hint, ambiguous=True)


def _throttled(code: int, meaning: str, hint: str, *pauses_s: float) -> Code:
    return Code(code, meaning, Action.THROTTLED, hint, pauses_s=pauses_s)


def _throttled_for_long(code: int, meaning: str, hint: str, *pauses_s: float) -> Code:
    return Code(code, meaning, Action.THROTTLED, hint, pauses_s=pauses_s, halt_after_pauses=True)


def _renew(code: int, meaning: str, hint: str, *pauses_s: float, once: bool = False) -> Code:
    return Code(code, meaning, Action.RENEW, hint, once=once, pauses_s=pauses_s)


def _reject(code: int, meaning: str, hint: str) -> Code:
    return Code(code, meaning, Action.REJECT, hint)


def _halt(code: int, meaning: str, hint: str) -> Code:
    return Code(code, meaning, Action.HALT, hint)


_ALL = (
    Code(0, "success", Action.IMPORTED, "the topic was made"),
    # Codes of every REST call
    _halt(60002, "HTTP parse error", "every call is built alike: check app.base_url and the proxy"),
    _reject(60003, "request JSON parse error", "check this record for unusual characters"),
    _renew(
        60004,
        "account check failed: account or signature wrong in URL or body",
        "check app.secret_key and app.admin; the key may have been revoked",
        *ACCOUNT_CHECK_PAUSES_S,
        once=True,
    ),
    _renew(
        60005,
        "account check failed: account or signature wrong in URL or body",
        "check app.secret_key and app.admin; the key may have been revoked",
        *ACCOUNT_CHECK_PAUSES_S,
        once=True,
    ),
    _halt(60006, "SDKAppID invalid", "check app.sdk_app_id"),
    _throttled(
        60007, "frequency limit of this API exceeded", "does another client use the same quota?"
    ),
    _ambiguous(60008, "service timeout, or bad HTTP format", "the backend gave up after 3 s"),
    _halt(60009, "resource or URL wrong", "check app.path and app.base_url"),
    _halt(60010, "needs an app administrator", "make app.admin an administrator of the app"),
    _throttled(
        60011,
        "frequency limit of the whole app exceeded",
        "other systems of the app share it",
        *PAUSES_S,
    ),
    _halt(60012, "SDKAppID missing", "check app.sdk_app_id"),
    _ambiguous(
        60013, "response JSON parse error at the service", "the call itself may have worked"
    ),
    _retry(60014, "account exchange timeout", "it failed before the topic was processed"),
    _reject(60015, "account in the body is not a text", "From_Account must be a text"),
    _halt(60016, "SDKAppID disabled", "ask Tencent Cloud by ticket"),
    _halt(60017, "request disabled", "ask Tencent Cloud by ticket"),
    _throttled(60018, "too many requests", "the service asks to wait", *PAUSES_S),
    _throttled(60019, "too many requests", "the service asks to wait", *PAUSES_S),
    _halt(
        60020, "package expired or not active yet", "buy or renew it; it is active 5 minutes later"
    ),
    _halt(60021, "source IP not allowed", "add this machine to the console's list of IPs"),
    _renew(
        60025,
        "SDKAppID, identifier, UserSig or contenttype wrong in the URL",
        "check app.sdk_app_id, app.admin and app.secret_key",
        once=True,
    ),
    _halt(
        60026,
        "host and SDKAppID belong to different data centres",
        "check app.region: it must be the data centre of the app",
    ),
    _halt(60027, "the app is of another product", "check app.sdk_app_id: it is no Chat app"),
    _halt(
        60028,
        "requests of the trial edition used up for 24 hours",
        "upgrade the edition, or continue tomorrow",
    ),
    # Accounts and signatures
    _renew(70001, "UserSig expired", "if a new one expires too, this machine's clock is wrong"),
    _halt(70002, "UserSig empty", "check app.secret_key or app.usersig"),
    _renew(70003, "UserSig invalid", "check app.secret_key", once=True),
    _renew(70005, "UserSig invalid", "check app.secret_key", once=True),
    _halt(70009, "UserSig does not verify", "the key is wrong, or of another SDKAppID"),
    _halt(70013, "identifier is not the one in the UserSig", "check app.admin and app.usersig"),
    _halt(70014, "SDKAppID is not the one in the UserSig", "check app.sdk_app_id and app.usersig"),
    _halt(70016, "key of the app not found", "check app.sdk_app_id and the data centre's host"),
    _halt(70020, "SDKAppID not found", "check app.sdk_app_id and the data centre's host"),
    _throttled_for_long(
        70050,
        "too many failed verifications",
        "the signature was wrong before: check the key",
        60.0,
    ),
    _halt(70051, "account blocklisted", "use another administrator in app.admin"),
    _renew(70052, "UserSig was invalidated", "a new one is signed"),
    _renew(70101, "ticket expired", "a new one is signed"),
    _reject(70107, "account not imported", "import the account of From_Account first"),
    _throttled_for_long(
        70114,
        "restricted for security",
        "lower rate.calls_per_second, or ask Tencent Cloud",
        60.0,
    ),
    _ambiguous(70169, "server timeout", "the call may have worked"),
    _ambiguous(70202, "server timeout", "the call may have worked"),
    _reject(70206, "batch quantity invalid", "not expected from this call"),
    _halt(70398, "account quota of the trial edition used up", "upgrade the edition"),
    _reject(
        70399,
        "a deleted account cannot be imported again within three months",
        "give another From_Account",
    ),
    _halt(70404, "SDK too old", "not expected from this call"),
    _reject(70402, "invalid parameter", "read the message of the service"),
    _halt(70403, "needs an administrator", "make app.admin an administrator of the app"),
    _ambiguous(70500, "internal server error", "the call may have worked"),
    _halt(71000, "account deletion is switched off", "not expected from this call"),
    _halt(72000, "daily users of the trial edition used up", "upgrade the edition"),
    _halt(72001, "the feature is switched off", "not expected from this call"),
    _halt(72002, "monthly users of the trial edition used up", "upgrade the edition"),
    _throttled(72010, "requests of one user too frequent", "the service asks to wait", *PAUSES_S),
    _halt(72011, "code of the SDKs", "not expected from this call"),
    _halt(72012, "code of the SDKs", "not expected from this call"),
    # Groups and topics
    _ambiguous(10002, "internal server error", "the service asks to try again"),
    _halt(10003, "invalid command word", "check app.path"),
    _reject(10004, "invalid parameter", "read the message of the service"),
    _reject(10005, "too many accounts in the request", "not expected from this call"),
    _throttled_for_long(
        10006,
        "frequency limit",
        "may be a daily limit (too many new groups today): then wait until tomorrow, or ask "
        "Tencent Cloud by ticket to raise it",
        *(1.0, 5.0, 20.0, 60.0, 120.0),
    ),
    _reject(
        10007,
        "no permission",
        "the group's type or state does not allow it, or app.admin is no administrator of the app",
    ),
    _retry(10008, "illegal request", "may be temporary; if it stays, ask Tencent Cloud by ticket"),
    _reject(
        10010,
        "group missing or deleted",
        "create the community, then put the dead letters back: topic-import replay --code 10010",
    ),
    _reject(10011, "JSON parse failure", "check this record for unusual characters"),
    _reject(10012, "invalid operator", "check From_Account"),
    _reject(
        10015,
        "group ID invalid, or the group does not exist",
        "check GroupId (a community's starts with @TGS#_); if the community is missing, create it, "
        "then put the dead letters back: topic-import replay --code 10015",
    ),
    _reject(10016, "the app's webhook refused", "not expected: imports call no webhooks"),
    _reject(10018, "response too large", "not expected from this call"),
    _reject(10019, "user does not exist", "import the account of From_Account first"),
    Code(10021, "topic ID in use", Action.EXISTS, "compare the topic with get_topic"),
    _throttled(10023, "message frequency limit", "not expected from this call"),
    Code(10025, "topic ID in use by this operator", Action.EXISTS, "compare with get_topic"),
    _halt(10026, "command disabled for the app", "ask Tencent Cloud by ticket"),
    _halt(10036, "quota of groups used up", "delete groups or upgrade"),
    Code(
        10037,
        "prepaid topics used up",
        Action.HOLD,
        "the community holds as many topics as it may (200 by the documentation), or the app "
        "does: delete topics or buy more, or give up what waits for the community: topic-import "
        "dismiss --group",
    ),
    _halt(10058, "groups of the free edition used up", "upgrade the edition"),
    _halt(10059, "needs another edition", "upgrade the edition"),
    Code(
        11000,
        "no community topics",
        Action.HOLD,
        "switch topics on in the console, or make the community with SupportTopic=1",
    ),
    _reject(110002, "topic could not be deleted", "not expected from this call"),
    _reject(110003, "topic was deleted", "choose another TopicId"),
    _reject(110013, "invalid topic ID", "choose another TopicId"),
    # Content and messages
    _reject(80001, "content check not passed", "change the text of this record"),
    _reject(80002, "packet too long", "shorten this record"),
    _retry(80003, "webhook failed or timed out", "not expected from this call", tries=3),
    _reject(80004, "image with forbidden content", "change FaceUrl"),
    _retry(
        80005,
        "content check timed out, or the service is deactivated",
        "refused before the topic was made: the content check timed out; where it comes for every "
        "record the service may be deactivated: edition expired or account in arrears",
    ),
    _reject(80101, "content filtered", "change the text of this record"),
    _reject(90001, "JSON or format wrong", "check this record for unusual characters"),
    _reject(90010, "JSON or format wrong", "check this record for unusual characters"),
    _reject(90008, "account missing or not imported", "import the account of From_Account first"),
    _halt(90009, "needs an administrator", "make app.admin an administrator of the app"),
    _reject(90012, "account not imported", "import the account of From_Account first"),
    _reject(90048, "account not imported", "import the account of From_Account first"),
    _retry(90992, "internal error", "if it comes for every record, check your own webhook server"),
    _retry(90994, "internal error", "the service asks to try again"),
    _retry(90995, "internal error", "the service asks to try again"),
    _retry(91000, "internal error", "the service asks to try again"),
    _reject(93000, "packet too long", "shorten this record"),
    _retry(20004, "network error at the service", "the vendor's SDK tries again, too"),
    _retry(20005, "internal error at the service", "the vendor's SDK tries again, too"),
)
CODES: dict[int, Code] = {entry.code: entry for entry in _ALL}

AT_THE_DOOR = range(60000, 61000)
"""Codes of the access layer: the call was refused before any topic service saw it."""
ACCOUNT_FAMILY = range(70000, 73000)


def lookup(code: int) -> Code:
    """Return what is known of a code.

    An unknown one is treated by its family: 60xxx as refused at the door, 70xxx to 72xxx like an
    invalid signature, any other as an ambiguous failure that is tried again.
    """
    known = CODES.get(code)
    if known:
        return known
    if code in ACCOUNT_FAMILY:
        return _renew(code, "unknown code of the signature family", "check app.*", once=True)
    is_at_the_door = code in AT_THE_DOOR
    return Code(
        code,
        "unknown code of the access layer" if is_at_the_door else "unknown code",
        Action.UNKNOWN,
        "ask Tencent Cloud what it means",
        ambiguous=not is_at_the_door,
    )
