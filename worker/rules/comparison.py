"""Is a topic that was found in use the one that was sent? A comparison with get_topic's reply.

Source: page of get_topic (reply, codes). Nothing promises that a topic can be read as soon as it is
made, so a missing one is asked for again after MISSING_PAUSE_S.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from worker.rules.codes import Action, lookup

TEXTS = ("TopicName", "CustomString", "FaceUrl", "Notification", "Introduction")
"""The texts that are both sent and returned; a text that was not sent is empty."""
CREATE_TIME = "CreateTime"
SHOWN_CHARACTERS_MAX = 40
"""How much of a content a message repeats."""
DIGITS_MAX = 20
"""As many as any 64-bit number has."""
MISSING_PAUSE_S = 60.0
LIST_SIZES = (100, 50, 10, 1)
"""How many topics one call asks for, if larger lists are refused; the longest list is unknown."""

INVALID_PARAMETER = 10004
DELETED = frozenset({10010, 110003})
TOO_LARGE = 10018
"""The reply would be, or was, larger than 1 MB."""
_REFUSED_AS_A_LIST = DELETED | {INVALID_PARAMETER, TOO_LARGE}
"""Codes of a whole call that a smaller list may avoid: 10010 is "group or topic deleted"."""
_OF_ONE_COMMAND = frozenset({60009, 60017})
"""Refusals of the access layer that may be for get_topic alone: import_topic may still work."""
_FOR_ALL_COMMANDS = range(60000, 80000)


@dataclass(frozen=True, slots=True)
class TopicsReply:
    """What came back from one call of get_topic.

    `status` is the HTTP status, None without an answer. `code` is the service's ErrorCode: 0 where
    the call worked, None where the body was not the service's. `failure` says in a few words what
    was wrong with the transport or the body. `topics`: TopicId -> the TopicInfo as it was read.
    `item_codes`: TopicId -> the ErrorCode of its item, other than 0.
    """

    status: int | None = None
    code: int | None = None
    info: str = ""
    failure: str | None = None
    topics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    item_codes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field with other content: what was sent, and what the service holds."""

    name: str
    sent: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.name} (sent {_shown(self.sent)}, found {_shown(self.found)})"


@dataclass(frozen=True, slots=True)
class Same:
    """All that could be compared is equal."""


@dataclass(frozen=True, slots=True)
class OtherTexts:
    """A CreateTime was sent and is equal, but texts differ."""

    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Other:
    """The content differs, and no equal CreateTime connects the topic with what was sent."""

    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """The call worked, and the topic is not in the reply."""


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """The topic cannot be compared: the call was refused, or the reply lacks the content."""

    code: int | None
    message: str


@dataclass(frozen=True, slots=True)
class NotAnswered:
    """A failure that passes: ask again."""

    code: int | None
    message: str


Answer = Same | OtherTexts | Other | Missing | NotAllowed
Comparison = Answer | NotAnswered


@dataclass(frozen=True, slots=True)
class Own:
    """Imported by an earlier attempt of ours."""


@dataclass(frozen=True, slots=True)
class Before:
    """Imported before our first attempt."""


@dataclass(frozen=True, slots=True)
class Unproven:
    """Imported, probably by an earlier attempt of ours; `reason`: why that is not proven."""

    reason: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """The TopicId belongs to another topic, or so it must be assumed.

    `fields`: the names of the fields that differ, empty where nothing could be compared.
    """

    message: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Compare once more, after so many seconds."""

    after_s: float


Settled = Own | Before | Unproven | Conflict
Decision = Settled | AskAgain


def compare(sent: Mapping[str, Any], topic_id: str, reply: TopicsReply) -> Comparison:
    """Compare the body of an import_topic call with what get_topic returned for its TopicId."""
    if reply.code is None:
        # Also a gateway's 403 or 404: in an outage it answers imports alike, and later passes.
        return NotAnswered(None, reply.failure or f"HTTP {reply.status}")
    if reply.code:
        return _refused(reply.code, reply.info)
    if (item_code := reply.item_codes.get(topic_id)) is not None:
        return _refused(item_code, "")
    found = reply.topics.get(topic_id)
    return Missing() if found is None else _with_content(sent, found)


def decide(answer: Answer, *, in_doubt: bool, asked_twice: bool) -> Decision:
    """Decide what a *given* TopicId in use means for its record.

    `in_doubt`: an earlier attempt may have made the topic. `asked_twice`: a missing topic was asked
    for again after MISSING_PAUSE_S; the decision is final then.
    """
    match answer:
        case Same():
            return Own() if in_doubt else Before()
        case OtherTexts(differences):
            if in_doubt:
                return Unproven(f"its CreateTime is the one sent, but {_list(differences)}")
            return _conflict(differences)
        case Other(differences):
            return _conflict(differences)
        case Missing():
            if not asked_twice:
                return AskAgain(MISSING_PAUSE_S)
            return _incomparable("the TopicId is in use, but get_topic does not find it", in_doubt)
        case NotAllowed(code, message):
            named = message if code is None else f"{code} {message}"
            return _incomparable(f"get_topic could not compare it: {named}", in_doubt)
        case _:
            assert_never(answer)


def next_list_size(code: int | None, size: int) -> int | None:
    """Return how many topics to ask for after a refusal of `size`; None: asking less is no help."""
    if code not in _REFUSED_AS_A_LIST:
        return None
    return next((smaller for smaller in LIST_SIZES if smaller < size), None)


def read_items(
    items: Sequence[Any], asked: Sequence[str]
) -> tuple[dict[str, Mapping[str, Any]], dict[str, int]]:
    """Read TopicAndSelfInfo. Returns the topics and the codes other than 0, both by TopicId.

    An item with an error may have no ID. Its place in the list `asked` gives it, if there is one
    item for each ID asked for and all others are in their place.
    """
    topics: dict[str, Mapping[str, Any]] = {}
    codes: dict[str, int] = {}
    read = [_read_item(item) for item in items]
    in_order = len(read) == len(asked) and all(
        topic_id in {"", expected} for (topic_id, _, _), expected in zip(read, asked, strict=True)
    )
    for place, (named, code, content) in enumerate(read):
        topic_id = named or (asked[place] if in_order else "")
        if not topic_id:
            continue
        if code:
            codes[topic_id] = code
        else:
            topics[topic_id] = content
    return topics, codes


def _read_item(item: Any) -> tuple[str, int, Mapping[str, Any]]:
    """Return the TopicId ("" if unknown), the code and the content of an item."""
    if not isinstance(item, dict):
        return "", 0, {}
    content = item.get("TopicInfo")
    content = content if isinstance(content, dict) else {}
    topic_id = content.get("TopicId") or item.get("TopicId")
    return (
        topic_id if isinstance(topic_id, str) else "",
        whole_number(item.get("ErrorCode")) or 0,
        content,
    )


def whole_number(value: Any) -> int | None:
    """Return an integer, also one that is written as a text; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= DIGITS_MAX:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _with_content(sent: Mapping[str, Any], found: Mapping[str, Any]) -> Answer:
    texts = [name for name in TEXTS if isinstance(found.get(name), str)]
    differences = [
        Difference(name, sent.get(name), found[name])
        for name in texts
        if _stripped(sent.get(name)) != found[name].strip()
    ]
    # The service may read a CreateTime of 0 as none, and then sets the time of the call.
    sent_time, found_time = sent.get(CREATE_TIME), whole_number(found.get(CREATE_TIME))
    is_timed = bool(sent_time) and found_time is not None
    if not is_timed and not any(_stripped(sent.get(name)) for name in texts):
        return NotAllowed(None, "the reply holds none of the fields that were sent")
    if is_timed and sent_time != found_time:
        return Other((*differences, Difference(CREATE_TIME, sent_time, found_time)))
    if not differences:
        return Same()
    return OtherTexts(tuple(differences)) if is_timed else Other(tuple(differences))


def _refused(code: int, info: str) -> Missing | NotAllowed | NotAnswered:
    message = info or lookup(code).meaning
    if code in DELETED:
        return Missing()
    return NotAnswered(code, message) if _is_passing(code) else NotAllowed(code, message)


def _is_passing(code: int) -> bool:
    match lookup(code).action:
        case Action.RETRY | Action.UNKNOWN | Action.THROTTLED | Action.RENEW:
            return True
        case Action.HALT:
            # A wrong key or a used-up package refuses imports, too: the run halts by those, and
            # what it holds must not be settled by a refusal that a person is about to mend.
            return code in _FOR_ALL_COMMANDS and code not in _OF_ONE_COMMAND
        case _:
            return False


def _conflict(differences: tuple[Difference, ...]) -> Conflict:
    message = f"the TopicId is in use by a topic with other content: {_list(differences)}"
    return Conflict(message, tuple(difference.name for difference in differences))


def _incomparable(reason: str, in_doubt: bool) -> Unproven | Conflict:  # noqa: FBT001 - names it
    return Unproven(reason) if in_doubt else Conflict(reason)


def _list(differences: tuple[Difference, ...]) -> str:
    return "different are " + ", ".join(map(str, differences))


def _stripped(text: Any) -> str:
    return text.strip() if isinstance(text, str) else ""


def _shown(content: Any) -> str:
    if content is None or content == "":
        return "nothing"
    text = content if isinstance(content, str) else str(content)
    if len(text) > SHOWN_CHARACTERS_MAX:
        text = f"{text[: SHOWN_CHARACTERS_MAX - 1]}…"
    return json.dumps(text, ensure_ascii=False) if isinstance(content, str) else text
