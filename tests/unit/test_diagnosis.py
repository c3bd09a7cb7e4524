"""What is measured becomes findings: the limits between pass, warn and fail."""

from typing import Any

import pytest

from worker.rules.comparison import TopicsReply
from worker.rules.diagnosis.credentials import judge_key, judge_ticket
from worker.rules.diagnosis.finding import Finding, Grade
from worker.rules.diagnosis.place import GIB, judge_kind, judge_space, judge_sync
from worker.rules.diagnosis.redis_server import Server, judge_server
from worker.rules.diagnosis.service import (
    IMPOSSIBLE_GROUP,
    is_passing,
    is_signature_refused,
    judge_certificate,
    judge_clock,
    judge_import,
    judge_reading,
)
from worker.rules.mounts import kind_of
from worker.rules.usersig import Ticket, sign, unpack
from worker.rules.verdict import Reply

KEY = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
APP, ADMIN = 1400000000, "administrator"
DAY_S = 86_400
NOW_S = 1_700_000_000


def grades(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.grade.value for finding in findings}


@pytest.mark.parametrize(
    ("key", "admin", "grade"),
    [
        (KEY, ADMIN, Grade.PASS),
        (KEY[:-1], ADMIN, Grade.WARN),
        ("g" * 64, ADMIN, Grade.WARN),
        (KEY, "a" * 33, Grade.FAIL),
    ],
)
def test_a_key_has_64_hex_digits_and_a_user_id_32_bytes(key: str, admin: str, grade: Grade) -> None:
    assert judge_key(key, admin).grade is grade


@pytest.mark.parametrize(
    ("change", "grade", "said"),
    [
        ({}, Grade.PASS, "valid for 180 days"),
        ({"life_s": 3600 * 20}, Grade.WARN, "valid for 20 hours only"),
        ({"life_s": 1}, Grade.FAIL, "expired 99 seconds ago"),
        ({"issued_s": NOW_S + 600}, Grade.WARN, "10 minutes in the future"),
        ({"version": "1.0"}, Grade.FAIL, "1.0"),
        ({"identifier": "bob"}, Grade.FAIL, "it is of bob"),
        ({"sdk_app_id": 7}, Grade.FAIL, "of the app 7"),
    ],
)
def test_a_ready_signature_is_judged_by_what_it_holds(
    change: dict[str, Any], grade: Grade, said: str
) -> None:
    content: dict[str, Any] = {
        "version": "2.0",
        "identifier": ADMIN,
        "sdk_app_id": APP,
        "issued_s": NOW_S - 100,
        "life_s": 180 * DAY_S + 100,
    }
    found = judge_ticket(Ticket(**(content | change)), ADMIN, APP, NOW_S)
    assert found.grade is grade
    assert said in found.message


def test_what_is_no_signature_is_none() -> None:
    usersig = sign(APP, ADMIN, KEY, issued_s=5, life_s=60)
    assert unpack(usersig) == Ticket("2.0", ADMIN, APP, 5, 60)
    for text in ("", "x", usersig[:-9], "eJxLBAAAYgBi"):
        assert unpack(text) is None
    assert judge_ticket(None, ADMIN, APP, NOW_S).grade is Grade.FAIL


@pytest.mark.parametrize(
    ("skew_s", "grade"),
    [(0.4, "pass"), (-59, "pass"), (60, "warn"), (-3599, "warn"), (3600, "fail"), (None, "warn")],
)
def test_a_clock_may_be_wrong_by_less_than_a_minute(skew_s: float | None, grade: str) -> None:
    assert judge_clock(skew_s).grade == grade


def test_a_certificate_that_ends_soon_is_a_warning() -> None:
    assert judge_certificate("A", NOW_S + 15 * DAY_S, NOW_S).grade is Grade.PASS
    soon = judge_certificate("", NOW_S + 13 * DAY_S, NOW_S)
    assert soon.grade is Grade.WARN
    assert "an unnamed issuer, valid for 13 days" in soon.message


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        (Reply(200, 10004), "pass"),
        (Reply(200, 10010), "pass"),
        (Reply(200, 10015), "pass"),
        (Reply(200, 0), "fail"),
        (Reply(200, 10007), "warn"),
        (Reply(200, 10002), "warn"),
        (Reply(200, 60007), "warn"),
        (Reply(200, 80001), "warn"),
        (Reply(200, 424242), "warn"),
        (Reply(200, 11000), "fail"),
        (Reply(200, 10019), "fail"),
        (Reply(200, 60999, "new"), "fail"),
        (Reply(200, 70009), "fail"),
        (Reply(200, 70003), "fail"),
        (Reply(200, 70050), "fail"),
        (Reply(200, 60009), "fail"),
        (Reply(failure="no answer in time"), "fail"),
        (Reply(503, failure="HTTP 503"), "fail"),
        (Reply(), "fail"),
    ],
)
def test_the_answer_to_a_call_that_makes_nothing_is_judged(reply: Reply, grade: str) -> None:
    found = judge_import(reply)
    assert found.grade == grade
    assert bool(found.advice) is (grade != "pass")


def test_the_call_that_makes_nothing_names_no_community() -> None:
    assert not IMPOSSIBLE_GROUP.startswith("@TGS#")


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        (TopicsReply(200, 0), "pass"),
        (TopicsReply(200, 10010), "pass"),
        (TopicsReply(200, 10007), "warn"),
        (TopicsReply(200, 60009), "warn"),
        (TopicsReply(200, 10002), "warn"),
        (TopicsReply(200, 70009), "fail"),
        (TopicsReply(failure="cut"), "warn"),
        (TopicsReply(), "warn"),
    ],
)
def test_reading_that_is_not_allowed_is_no_failure(reply: TopicsReply, grade: str) -> None:
    assert judge_reading(reply).grade == grade


def test_only_what_may_pass_is_asked_again_and_nothing_after_a_refused_signature() -> None:
    assert [is_passing(code, 200) for code in (10002, 60007, 70009, 10004)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert [is_passing(None, status) for status in (None, 502, 429, 404)] == [
        True, True, True, False,
    ]  # fmt: skip
    refused = {
        code: is_signature_refused(code) for code in (70009, 70003, 70050, 60020, 60009, 10004)
    }
    assert refused == {
        70009: True, 70003: True, 70050: True, 60020: True, 60009: False, 10004: False,
    }  # fmt: skip
    assert not is_signature_refused(None)


def test_a_network_share_fails_and_memory_is_a_warning() -> None:
    kinds = {kind: judge_kind(kind) for kind in ("nfs4", "fuse.sshfs", "tmpfs", "ext4", None)}
    found = {kind: finding and finding.grade.value for kind, finding in kinds.items()}
    assert found == {
        "nfs4": "fail", "fuse.sshfs": "fail", "tmpfs": "warn", "ext4": None, None: None,
    }  # fmt: skip


def test_room_and_speed_of_a_disk_are_judged() -> None:
    assert judge_space(5 * GIB, None).grade is Grade.PASS
    assert judge_space(GIB - 1, 1000).grade is Grade.WARN
    assert judge_space(1 << 20, 1000).grade is Grade.FAIL
    assert judge_space(5 * GIB, 3).grade is Grade.FAIL
    assert judge_sync(0.05).grade is Grade.PASS
    assert judge_sync(0.06).grade is Grade.WARN


def test_the_file_system_of_the_longest_place_holds_a_path() -> None:
    mounts = (
        "/dev/sda / ext4 rw 0 0\nhost:/x /mnt/my\\040share nfs4 rw 0 0\n"
        "tmpfs /mnt tmpfs rw 0 0\noverlay / overlay rw 0 0\nbroken"
    )
    assert kind_of("/mnt/my share/out", mounts) == "nfs4"
    assert kind_of("/mnt", mounts) == "tmpfs"
    assert kind_of("/mntx", mounts) == "overlay"
    assert kind_of("/x", "") is None


GOOD = {"redis_version": "7.2.4", "aof_enabled": "1", "maxmemory_policy": "noeviction"}


def judged(info: dict[str, str], latency_s: float = 0.001) -> dict[str, str]:
    return grades(list(judge_server(Server(GOOD | info, latency_s, save=""), "queue")))


def test_a_redis_that_keeps_everything_passes() -> None:
    assert set(judged({}).values()) == {"pass"}
    valkey = list(judge_server(Server(GOOD | {"valkey_version": "8.0.1"}, 0.001), "queue"))
    assert "Valkey 8.0.1" in valkey[0].message
    durable = list(judge_server(Server(GOOD, 0.001, appendfsync="always"), "queue"))
    assert any("every write" in finding.message for finding in durable)


@pytest.mark.parametrize(
    ("info", "name", "grade"),
    [
        ({"redis_version": "6.0.16"}, "queue version", "fail"),
        ({"redis_version": ""}, "queue version", "fail"),
        ({"role": "slave"}, "queue role", "fail"),
        ({"maxmemory_policy": "allkeys-lru"}, "queue eviction", "fail"),
        ({"maxmemory_policy": "volatile-ttl"}, "queue eviction", "warn"),
        ({"aof_last_write_status": "err"}, "queue persistence", "fail"),
        ({"aof_enabled": "0"}, "queue persistence", "fail"),
    ],
)
def test_a_redis_that_may_lose_records_is_found(
    info: dict[str, str], name: str, grade: str
) -> None:
    assert judged(info)[name] == grade


def test_snapshots_alone_are_a_warning_and_failed_ones_a_failure() -> None:
    def persistence(save: str | None, **info: str) -> str:
        server = Server(GOOD | {"aof_enabled": "0"} | info, 0.001, save=save)
        return grades(list(judge_server(server, "queue")))["queue persistence"]

    assert persistence("3600 1") == "warn"
    assert persistence("3600 1", rdb_last_bgsave_status="err") == "fail"
    assert persistence(None, rdb_last_save_time="0") == "fail"
    assert persistence(None, rdb_last_save_time="17") == "warn"


def test_a_redis_far_away_is_a_warning_and_the_quota_needs_no_persistence() -> None:
    assert judged({}, latency_s=0.03)["queue latency"] == "warn"
    quota = grades(
        list(judge_server(Server({"redis_version": "7.0.0"}, 0.001), "quota", keeps_queue=False))
    )
    assert quota == {"quota version": "pass", "quota latency": "pass"}
