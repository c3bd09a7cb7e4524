"""The fields of a record and what each may hold.

Sources: names, required fields, types and limits are those of the REST page of import_topic; the
rules for GroupId and TopicId those of the group system page, section "Custom IDs"; a user ID has at
most 32 bytes by the page on importing accounts. The page of import_topic calls From_Account a
uint64, but its samples and error 60015 want a text, so a whole number is sent as one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.rules.topic.characters import name_problem, text_problem
from worker.rules.topic.identity import GROUP_ID_PREFIX, TOPIC_ID_INFIX
from worker.rules.topic.problems import kind_of, shortened

FIELDS = (
    "GroupId",
    "TopicName",
    "TopicId",
    "Type",
    "From_Account",
    "CustomString",
    "FaceUrl",
    "Notification",
    "Introduction",
    "CreateTime",
)
"""Every field of the API, in the order in which a call's body holds them."""
REQUIRED = ("GroupId", "TopicName")
READ_BY_PEOPLE = frozenset(("TopicName", "Notification", "Introduction"))
"""The fields that may be cut: the beginning of a URL or of a program's data is of no use."""
GROUP_ID_BYTES_MAX = 48
TOPIC_ID_BYTES_MAX = 96
USER_ID_BYTES_MAX = 32
CREATE_TIME_MAX = 2**32 - 1
SPREADSHEET_ERROR = "#NAME?"
"""What a spreadsheet shows in place of a text that begins like a formula and is none."""
MICROSECONDS_FROM = 10**15
MILLISECONDS_FROM = 10**12
"""A CreateTime this large is no date in seconds (the year 33658), but one in milliseconds."""


@dataclass(frozen=True, slots=True)
class FieldLimits:
    """Longest values in bytes of UTF-8; a user may set others (`records.limits`)."""

    topic_name: int = 30
    custom_string: int = 3000
    face_url: int = 100
    notification: int = 300
    introduction: int = 240

    def bytes_max(self, name: str) -> int | None:
        """Return the limit of a field by its name in the API, None for one without such a limit."""
        match name:
            case "TopicName":
                return self.topic_name
            case "CustomString":
                return self.custom_string
            case "FaceUrl":
                return self.face_url
            case "Notification":
                return self.notification
            case "Introduction":
                return self.introduction
            case _:
                return None


Checked = tuple[Any, str | None]
"""The value to send and None, or None and the problem, to be read after the field's name."""


def check_field(name: str, value: Any) -> Checked:
    """Check the value of one of FIELDS, but not its length against FieldLimits."""
    return _CHECKS[name](value)


def _text(value: Any) -> Checked:
    if isinstance(value, str):
        return value, None
    return None, f"must be a text, not {kind_of(value)}"


def _free_text(value: Any) -> Checked:
    if not isinstance(value, str):
        return _text(value)
    problem = text_problem(value)
    return (None, problem) if problem else (value, None)


def _topic_name(value: Any) -> Checked:
    if not isinstance(value, str) or not value:
        return _non_empty_text(value)
    problem = name_problem(value)
    return (None, problem) if problem else (value, None)


def _non_empty_text(value: Any) -> Checked:
    text, problem = _text(value)
    if text == "":
        return None, "is empty"
    return text, problem


def _identifier(value: Any, bytes_max: int) -> Checked:
    text, problem = _non_empty_text(value)
    if problem:
        return None, problem
    if text == SPREADSHEET_ERROR:
        return None, (
            f"is {text}: a spreadsheet took the @ of the ID for a formula; give its column the "
            "format Text before the IDs come in, and export again"
        )
    if not all(" " <= character <= "~" for character in text):
        return None, "may hold printable ASCII only"
    if len(text) > bytes_max:
        return None, f"has {len(text)} bytes, {bytes_max} are allowed"
    return text, None


def _group_id(value: Any) -> Checked:
    text, problem = _identifier(value, GROUP_ID_BYTES_MAX)
    if problem:
        return None, problem
    if not text.startswith(GROUP_ID_PREFIX) or text == GROUP_ID_PREFIX:
        return None, f"must start with {GROUP_ID_PREFIX} (a community's ID) and go on after it"
    if TOPIC_ID_INFIX in text:
        return None, f"holds {TOPIC_ID_INFIX}: it is a topic's ID, not a community's"
    return text, None


def _topic_id(value: Any) -> Checked:
    return _identifier(value, TOPIC_ID_BYTES_MAX)


def _type(value: Any) -> Checked:
    if value == "Community":
        return value, None
    return None, f"must be Community, not {shortened(value)}"


def _account(value: Any) -> Checked:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        value = str(value)
    elif isinstance(value, float | int):
        return None, "must be a text (a whole number of at most 64 bits is sent as one)"
    text, problem = _non_empty_text(value)
    if problem:
        return None, problem
    if len(text.encode()) > USER_ID_BYTES_MAX:
        return None, f"has {len(text.encode())} bytes, {USER_ID_BYTES_MAX} are allowed"
    return text, None


def _create_time(value: int) -> Checked:
    if abs(value) >= MICROSECONDS_FROM:
        return None, f"{value} is no time in seconds or milliseconds since 1970"
    if abs(value) >= MILLISECONDS_FROM:
        return None, f"{value} looks like milliseconds: set records.create_time to them"
    if not 0 <= value <= CREATE_TIME_MAX:
        return None, f"{value} is not within 0 and {CREATE_TIME_MAX} (seconds, 32 bits)"
    return value, None


_CHECKS: dict[str, Callable[[Any], Checked]] = {
    "GroupId": _group_id,
    "TopicName": _topic_name,
    "TopicId": _topic_id,
    "Type": _type,
    "From_Account": _account,
    "CustomString": _free_text,
    "FaceUrl": _free_text,
    "Notification": _free_text,
    "Introduction": _free_text,
    "CreateTime": _create_time,
}
