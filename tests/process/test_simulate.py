"""The simulate command: its output, its error codes and its exit."""

import signal
import urllib.request
from typing import Any

import orjson

from tests.support.processes import KEY, Job, simulator
from tests.support.topics import group, record
from worker.rules.usersig import sign

APP, ADMIN = 1400000000, "administrator"
PATH = "/v4/group_open_http_svc/import_topic"


def answer_to(url: str, path: str, body: dict[str, Any], **query: str) -> dict[str, Any]:
    """Call the simulator with a valid query, changed as given."""
    good = {
        "sdkappid": str(APP),
        "identifier": ADMIN,
        "usersig": sign(APP, ADMIN, KEY, issued_s=4_000_000_000, life_s=60),
        "random": "7",
        "contenttype": "json",
    }
    pairs = "&".join(f"{name}={value}" for name, value in (good | query).items())
    request = urllib.request.Request(  # noqa: S310
        f"{url}{path}?{pairs}", data=orjson.dumps(body)
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        read: dict[str, Any] = orjson.loads(answer.read())
    return read


def call(url: str, **query: str) -> int:
    """Call import_topic. Returns the ErrorCode."""
    body = record(1, TopicId="@TGS#_@TGS#cGRP0001@TOPIC#_a")
    code: int = answer_to(url, PATH, body, **query)["ErrorCode"]
    return code


def test_the_simulator_checks_credentials_parameters_and_quota() -> None:
    with simulator("--quota", "3") as service:
        expired = sign(APP, ADMIN, KEY, issued_s=1, life_s=60)
        other_key = sign(APP, ADMIN, "other", issued_s=4_000_000_000, life_s=60)
        codes = [
            call(service.url, sdkappid="1"),
            call(service.url, sdkappid=""),
            call(service.url, identifier="somebody"),
            call(service.url, usersig=""),
            call(service.url, usersig="rubbish"),
            call(service.url, usersig=expired),
            call(service.url, usersig=other_key),
            call(service.url, random="-1"),
            call(service.url, contenttype="xml"),
        ]
        assert codes == [70020, 60012, 60010, 70002, 70003, 70001, 70009, 60002, 60002]
        assert [call(service.url) for _ in range(5)] == [0, 10021, 10021, 60007, 60007]
        ledger = service.ledger()
        assert (ledger["created"], ledger["calls"]) == (1, 14)


def test_the_simulator_returns_topics_and_counts_them_apart() -> None:
    path = "/v4/million_group_open_http_svc/get_topic"
    sent = record(1, TopicId=f"{group(1)}@TOPIC#_a")
    with simulator() as service:
        answer_to(service.url, PATH, sent)
        reply = answer_to(
            service.url, path, {"GroupId": group(1), "From_Account": ADMIN, "TopicIdList": []}
        )
        (item,) = reply["TopicAndSelfInfo"]
        assert item["TopicInfo"]["GroupID"] == group(1)
        assert item["TopicInfo"]["TopicName"] == sent["TopicName"]
        ledger = service.ledger()
        assert (ledger["calls"], ledger["answers"]) == (1, {"0": 1})
        assert (ledger["get_topic_calls"], ledger["get_topic_answers"]) == (1, {"0": 1})


def test_the_simulator_prints_its_settings_and_its_replies(offline_job: Job) -> None:
    running = offline_job.start("simulate", "--port", "0", APP__SECRET_KEY="")
    assert running.stdout is not None
    announced = "".join(running.stdout.readline() for _ in range(2))
    assert "listening on http://127.0.0.1:" in announced
    assert f"TOPIC_IMPORT_APP__SECRET_KEY={KEY}" in announced
    running.send_signal(signal.SIGINT)
    output, _ = running.communicate(timeout=30)
    assert "topic-import backfill FILE --base-url http://127.0.0.1:" in announced
    assert (running.returncode, output) == (0, "answered: no call\n")
