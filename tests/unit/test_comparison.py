"""What was sent against what get_topic returned, and what a TopicId in use means."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rules.comparison import (
    LIST_SIZES,
    MISSING_PAUSE_S,
    Answer,
    AskAgain,
    Before,
    Comparison,
    Conflict,
    Difference,
    Missing,
    NotAllowed,
    NotAnswered,
    Other,
    OtherTexts,
    Own,
    Same,
    TopicsReply,
    Unproven,
    compare,
    decide,
    next_list_size,
    read_items,
    whole_number,
)

ID = "@TGS#_g@TOPIC#_t"
SENT = {
    "GroupId": "@TGS#_g",
    "TopicId": ID,
    "Type": "Community",
    "TopicName": "general",
    "CustomString": "old-1",
    "CreateTime": 1_500_000_000,
}
FOUND = {
    "GroupID": "@TGS#_g",
    "TopicId": ID,
    "TopicName": "general",
    "CustomString": "old-1",
    "FaceUrl": "",
    "Notification": "",
    "Introduction": "",
    "CreateTime": 1_500_000_000,
    "MuteAllMember": "Off",
    "NextMsgSeq": 1,
    "LastMsgTime": 0,
}
OTHER_NAME = Difference("TopicName", "general", "off-topic")


def against(found: dict[str, Any], sent: dict[str, Any] = SENT) -> Comparison:
    return compare(sent, ID, TopicsReply(200, 0, topics={ID: found}))


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def test_equal_content_is_the_same() -> None:
    assert against(FOUND) == Same()


@pytest.mark.parametrize(
    "found",
    [
        without(FOUND, "CustomString", "Introduction"),
        without(FOUND, "CreateTime"),
        FOUND | {"TopicName": " general\n"},
        FOUND | {"CustomString": None},
        FOUND | {"CreateTime": "1500000000"},
        without(FOUND, "MuteAllMember", "GroupID") | {"ShutUpAllFlag": 1, "GroupId": "@TGS#_g"},
    ],
)
def test_what_the_reply_lacks_is_not_compared(found: dict[str, Any]) -> None:
    assert against(found) == Same()


def test_white_space_at_the_ends_of_what_was_sent_is_ignored() -> None:
    assert against(FOUND, SENT | {"TopicName": "general "}) == Same()


def test_white_space_within_a_text_is_compared() -> None:
    assert isinstance(against(FOUND, SENT | {"TopicName": "gene ral"}), OtherTexts)


def test_other_texts_with_an_equal_create_time_are_noted() -> None:
    assert against(FOUND | {"TopicName": "off-topic"}) == OtherTexts((OTHER_NAME,))


def test_another_create_time_is_other_content() -> None:
    found = FOUND | {"CreateTime": 7}
    assert against(found) == Other((Difference("CreateTime", 1_500_000_000, 7),))


@pytest.mark.parametrize("sent", [without(SENT, "CreateTime"), SENT | {"CreateTime": 0}])
def test_a_create_time_that_was_not_sent_is_not_compared(sent: dict[str, Any]) -> None:
    assert against(FOUND, sent) == Same()
    assert against(FOUND | {"TopicName": "off-topic"}, sent) == Other((OTHER_NAME,))


def test_a_text_that_was_not_sent_is_empty() -> None:
    found = FOUND | {"Introduction": "by others"}
    assert against(found) == OtherTexts((Difference("Introduction", None, "by others"),))


def test_a_topic_without_any_content_cannot_be_compared() -> None:
    assert isinstance(against({"TopicId": ID}), NotAllowed)


def test_a_topic_outside_the_reply_is_missing() -> None:
    assert compare(SENT, ID, TopicsReply(200, 0, topics={"another": FOUND})) == Missing()


@pytest.mark.parametrize("code", [10010, 110003])
def test_a_deleted_topic_is_missing(code: int) -> None:
    assert compare(SENT, ID, TopicsReply(200, 0, item_codes={ID: code})) == Missing()
    assert compare(SENT, ID, TopicsReply(200, code)) == Missing()


@pytest.mark.parametrize("code", [10003, 10004, 10007, 10015, 10018, 10026, 11000, 60009, 60017])
def test_a_refused_call_or_item_is_not_allowed(code: int) -> None:
    assert compare(SENT, ID, TopicsReply(200, code, "no")) == NotAllowed(code, "no")
    assert isinstance(compare(SENT, ID, TopicsReply(200, 0, item_codes={ID: code})), NotAllowed)


@pytest.mark.parametrize("code", [10002, 10006, 60007, 60008, 70001, 70003, 70009, 60020, 123456])
def test_a_failure_of_all_calls_passes(code: int) -> None:
    assert compare(SENT, ID, TopicsReply(200, code, "later")) == NotAnswered(code, "later")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (TopicsReply(failure="no answer in time"), "no answer in time"),
        (TopicsReply(502, failure="HTTP 502"), "HTTP 502"),
        (TopicsReply(404), "HTTP 404"),
    ],
)
def test_a_failure_without_a_code_passes(reply: TopicsReply, message: str) -> None:
    assert compare(SENT, ID, reply) == NotAnswered(None, message)


@pytest.mark.parametrize(
    ("answer", "with_doubt", "without_doubt"),
    [
        (Same(), Own, Before),
        (OtherTexts((OTHER_NAME,)), Unproven, Conflict),
        (Other((OTHER_NAME,)), Conflict, Conflict),
        (Missing(), Unproven, Conflict),
        (NotAllowed(10007, "no permission"), Unproven, Conflict),
    ],
)
def test_a_topic_in_use_is_settled(
    answer: Answer, with_doubt: type[object], without_doubt: type[object]
) -> None:
    assert type(decide(answer, in_doubt=True, asked_twice=True)) is with_doubt
    assert type(decide(answer, in_doubt=False, asked_twice=True)) is without_doubt


@pytest.mark.parametrize("in_doubt", [True, False])
def test_a_missing_topic_is_asked_for_again(in_doubt: bool) -> None:  # noqa: FBT001
    again = decide(Missing(), in_doubt=in_doubt, asked_twice=False)
    assert again == AskAgain(MISSING_PAUSE_S) == AskAgain(60.0)


def test_a_conflict_names_the_fields_and_their_beginnings() -> None:
    differences = (
        OTHER_NAME,
        Difference("CustomString", "x" * 3000, None),
        Difference("Introduction", "y" * 40, ""),
        Difference("CreateTime", 8, 7),
    )
    conflict = decide(Other(differences), in_doubt=True, asked_twice=False)
    assert isinstance(conflict, Conflict)
    assert conflict.fields == ("TopicName", "CustomString", "Introduction", "CreateTime")
    assert conflict.message == (
        "the TopicId is in use by a topic with other content: different are "
        'TopicName (sent "general", found "off-topic"), '
        f'CustomString (sent "{"x" * 39}…", found nothing), '
        f'Introduction (sent "{"y" * 40}", found nothing), '
        "CreateTime (sent 8, found 7)"
    )


def test_a_refusal_is_named_with_its_code() -> None:
    unproven = decide(NotAllowed(10007, "no permission"), in_doubt=True, asked_twice=False)
    assert unproven == Unproven("get_topic could not compare it: 10007 no permission")
    conflict = decide(NotAllowed(None, "failed"), in_doubt=False, asked_twice=False)
    assert conflict == Conflict("get_topic could not compare it: failed")


@pytest.mark.parametrize("code", [10004, 10010, 10018, 110003])
def test_a_refused_list_is_made_smaller(code: int) -> None:
    assert [next_list_size(code, size) for size in LIST_SIZES] == [50, 10, 1, None]
    assert next_list_size(code, 30) == 10


@pytest.mark.parametrize("code", [None, 0, 10002, 10007])
def test_another_failure_leaves_the_list_as_it_is(code: int | None) -> None:
    assert next_list_size(code, 100) is None


def test_items_are_read_by_their_id() -> None:
    items = [
        {"ErrorCode": 0, "TopicInfo": {"TopicId": "b", "TopicName": "n"}},
        {"ErrorCode": 110003, "TopicInfo": {"TopicId": "c"}},
        {"ErrorCode": 10010, "TopicId": "a"},
        {"TopicInfo": {"TopicId": "d"}},
        {"ErrorCode": 0, "TopicId": "e"},
        {"ErrorCode": 10010},
        {"TopicInfo": {"TopicId": 7}},
        "rubbish",
    ]
    topics, codes = read_items(items, ["a", "b", "c"])
    assert topics == {
        "b": {"TopicId": "b", "TopicName": "n"},
        "d": {"TopicId": "d"},
        "e": {},
    }
    assert codes == {"a": 10010, "c": 110003}


def test_an_item_without_an_id_is_known_by_its_place() -> None:
    items = [{"TopicInfo": {"TopicId": "a"}}, {"ErrorCode": 10010}]
    assert read_items(items, ["a", "b"]) == ({"a": {"TopicId": "a"}}, {"b": 10010})
    assert read_items(items[::-1], ["a", "b"]) == ({"a": {"TopicId": "a"}}, {})


@pytest.mark.parametrize(
    ("value", "number"),
    [(7, 7), ("7", 7), (True, None), ("x", None), ("9" * 5000, None), (1.5, None), (None, None)],
)
def test_a_number_may_be_written_as_a_text(value: Any, number: int | None) -> None:
    assert whole_number(value) == number


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["TopicInfo", "TopicId", "ErrorCode", "TopicName", "CreateTime"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4), st.booleans())
def test_any_json_is_read_and_compared(items: list[Any], in_doubt: bool) -> None:  # noqa: FBT001
    topics, codes = read_items(items, ["a", "b"])
    for topic_id in ["a", "b", *topics]:
        reply = TopicsReply(200, 0, topics=topics, item_codes=codes)
        answer = compare(SENT, topic_id, reply)
        if not isinstance(answer, NotAnswered):
            settled = decide(answer, in_doubt=in_doubt, asked_twice=True)
            assert not isinstance(settled, AskAgain)
