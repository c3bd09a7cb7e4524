"""The simulated service: its communities, its limits, and get_topic."""

import random
from typing import Any

import orjson
import pytest

from tests.simulation.flow import ADMIN, APP, KEY, WALL_S
from worker.rules.usersig import sign
from worker.simulator.behaviour import GET_TOPIC_PATH, Call, Rules, Service

IMPORT_PATH = "/v4/group_open_http_svc/import_topic"
GROUP = "@TGS#_g"
QUERY = {
    "sdkappid": str(APP),
    "identifier": ADMIN,
    "usersig": sign(APP, ADMIN, KEY, issued_s=int(WALL_S), life_s=86_400),
    "random": "7",
    "contenttype": "json",
}


def service(**rules: Any) -> Service:
    return Service(Rules(APP, ADMIN, KEY, **rules), random.Random(1))


def topic_id(number: int, group: str = GROUP) -> str:
    return f"{group}@TOPIC#_t{number}"


def import_topic(
    service: Service, number: int, group: str = GROUP, at_s: float = 0.0, **changes: Any
) -> int:
    """Import one topic. Returns the ErrorCode."""
    named = {"GroupId": group, "TopicName": f"topic {number}", "TopicId": topic_id(number, group)}
    call = Call("POST", IMPORT_PATH, QUERY, orjson.dumps(named | changes))
    code: int = service.answer(call, at_s, WALL_S + at_s).body["ErrorCode"]
    return code


def get_topic(
    service: Service, group: str = GROUP, at_s: float = 0.0, **more: Any
) -> dict[str, Any]:
    asked = {"GroupId": group, "From_Account": ADMIN} | more
    call = Call("POST", GET_TOPIC_PATH, QUERY, orjson.dumps(asked))
    return dict(service.answer(call, at_s, WALL_S + at_s).body)


def codes_of(reply: dict[str, Any]) -> list[int]:
    return [item["ErrorCode"] for item in reply["TopicAndSelfInfo"]]


@pytest.mark.parametrize(
    ("group", "made", "read"),
    [
        ("@TGS#_missing", 10010, 10010),
        ("@TGS#_forbidden", 10007, 10007),
        ("@TGS#_unreadable", 0, 10007),
        ("@TGS#_notopics", 11000, 11000),
        ("@TGS#_down", 10002, 10002),
    ],
)
def test_a_community_answers_as_its_name_asks_for(group: str, made: int, read: int) -> None:
    simulated = service()
    assert import_topic(simulated, 1, group) == made
    assert get_topic(simulated, group)["ErrorCode"] == read


def test_a_community_may_be_down_for_the_first_seconds_only() -> None:
    simulated, group = service(), "@TGS#_down60s"
    codes = [import_topic(simulated, 1, group, at_s) for at_s in (100.0, 159.0, 160.0)]
    assert codes == [10002, 10002, 0]
    assert get_topic(simulated, group, 159.0)["ErrorCode"] == 10002
    assert get_topic(simulated, group, 160.0)["ErrorCode"] == 0


def test_a_full_community_takes_no_more_topics() -> None:
    simulated, group = service(), "@TGS#_full5"
    assert [import_topic(simulated, n, group) for n in range(7)] == [0] * 5 + [10037] * 2
    assert import_topic(simulated, 0, group) == 10021
    del simulated.ledger.topics[topic_id(0, group)]
    assert import_topic(simulated, 6, group) == 0
    assert import_topic(simulated, 7) == 0


def test_every_community_may_have_a_limit_of_topics() -> None:
    simulated = service(topics_max=1, topics=[{"TopicId": topic_id(9)}])
    assert import_topic(simulated, 1) == 10037
    assert [import_topic(simulated, n, "@TGS#_h") for n in (1, 2)] == [0, 10037]


def test_a_repeat_may_be_answered_with_10025() -> None:
    simulated = service(in_use_code=10025, topics=[{"TopicId": topic_id(2)}])
    assert [import_topic(simulated, 1) for _ in range(2)] == [0, 10025]
    assert import_topic(simulated, 2) == 10021, "made by others"


def test_get_topic_returns_what_was_imported() -> None:
    simulated = service()
    import_topic(simulated, 1, CustomString="old-1", CreateTime=1_500_000_000)
    import_topic(simulated, 2)
    import_topic(simulated, 1, "@TGS#_g@TGS#_h")
    first, second = get_topic(simulated)["TopicAndSelfInfo"]
    assert first["TopicInfo"] == {
        "GroupID": GROUP,
        "TopicId": topic_id(1),
        "TopicName": "topic 1",
        "CustomString": "old-1",
        "FaceUrl": "",
        "Notification": "",
        "Introduction": "",
        "CreateTime": 1_500_000_000,
        "NextMsgSeq": 1,
        "LastMsgTime": 0,
        "MuteAllMember": "Off",
    }
    assert second["TopicInfo"]["CreateTime"] == WALL_S


def test_get_topic_returns_the_chosen_fields_of_the_listed_topics() -> None:
    simulated = service()
    import_topic(simulated, 1)
    import_topic(simulated, 2)
    reply = get_topic(simulated, TopicIdList=[topic_id(2)], ResponseFilter=["TopicName"])
    (item,) = reply["TopicAndSelfInfo"]
    assert item["TopicInfo"].keys() == {"GroupID", "TopicId", "TopicName"}


def test_each_item_of_get_topic_has_its_own_code() -> None:
    simulated = service()
    for number in range(4):
        import_topic(simulated, number)
    del simulated.ledger.topics[topic_id(1)]
    simulated.ledger.deleted.add(topic_id(1))
    simulated.ledger.hidden.add(topic_id(2))
    simulated.ledger.item_codes[topic_id(3)] = 10002
    wanted = [*(topic_id(number) for number in range(5)), topic_id(1, "@TGS#_h")]
    reply = get_topic(simulated, TopicIdList=wanted)
    assert reply["ErrorCode"] == 0
    assert codes_of(reply) == [0, 110003, 10002, 10010, 10010]


def test_a_topic_may_be_changed_by_the_test() -> None:
    simulated = service()
    import_topic(simulated, 1)
    simulated.ledger.topics[topic_id(1)]["TopicName"] = "by others"
    (item,) = get_topic(simulated)["TopicAndSelfInfo"]
    assert item["TopicInfo"]["TopicName"] == "by others"


def test_a_reply_beyond_one_megabyte_is_refused() -> None:
    simulated = service(quota_per_s=0)
    for number in range(320):
        import_topic(simulated, number, CustomString="x" * 3000)
    assert get_topic(simulated)["ErrorCode"] == 10018
    half = [topic_id(number) for number in range(160)]
    assert codes_of(get_topic(simulated, TopicIdList=half)) == [0] * 160


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"From_Account": 7}, 60015),
        ({"From_Account": ""}, 60015),
        ({"TopicIdList": "t"}, 10004),
        ({"TopicIdList": [7]}, 10004),
        ({"Unknown": 1}, 10004),
        ({"GroupId": 7}, 10015),
    ],
)
def test_get_topic_checks_its_fields(more: dict[str, Any], code: int) -> None:
    assert get_topic(service(), **more)["ErrorCode"] == code


def test_get_topic_may_be_switched_off() -> None:
    simulated = service(may_read=False)
    assert (import_topic(simulated, 1), get_topic(simulated)["ErrorCode"]) == (0, 10007)


def test_get_topic_has_a_frequency_limit_of_its_own() -> None:
    simulated = service(quota_per_s=1, get_topic_quota_per_s=2)
    assert [get_topic(simulated)["ErrorCode"] for _ in range(3)] == [0, 0, 60007]
    assert [import_topic(simulated, number) for number in range(2)] == [0, 60007]
    ledger = simulated.ledger
    assert (ledger.calls, ledger.most_calls_in_a_second) == (2, 2)
    assert (ledger.get_topic_calls, ledger.get_topic_most_calls_in_a_second) == (3, 3)
    assert ledger.get_topic_answers == {"0": 2, "60007": 1}


def test_faults_of_all_calls_are_those_of_get_topic_too() -> None:
    assert get_topic(service(faults={"10002": 1.0}))["ErrorCode"] == 10002
    assert get_topic(service(faults={"10004": 1.0}))["ErrorCode"] == 0
    assert get_topic(service(faults={"10002": 1.0}, get_topic_faults={}))["ErrorCode"] == 0


def test_a_lost_reply_of_get_topic_is_a_fault_of_transport() -> None:
    simulated = service(get_topic_faults={"reset-after": 1.0})
    call = Call("POST", GET_TOPIC_PATH, QUERY, b"{}")
    assert simulated.answer(call, 0.0, WALL_S).fault == "reset-after"
    assert simulated.ledger.get_topic_answers == {"fault reset-after": 1}
