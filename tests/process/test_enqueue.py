"""The commands enqueue, status and replay on both queue engines."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from tests.support.processes import PATIENCE_S, Job, simulator
from tests.support.redis_server import RedisServer, binaries
from tests.support.topics import record, records
from tests.support.waiting import wait_until

MISSING = {"GroupId": "@TGS#_missing", "TopicName": "a"}


def test_enqueue_reads_records_once_and_replaces_mended_ones(
    offline_job: Job, settings: dict[str, Any]
) -> None:
    path = offline_job.write([*records(20), b"{", record(3)])
    done = offline_job.run("enqueue", path, **settings)
    assert done.returncode == 1, done.stderr
    assert b"22 records read: 22 new, 0 read before; 1 invalid" in done.stdout
    assert b"read 22 = queued 20 + imported 0 + dead 1 + duplicate 1" in done.stdout
    again = offline_job.run("enqueue", path, **settings)
    assert again.returncode == 1
    assert b"22 records read: 0 new, 22 read before; 1 invalid" in again.stdout
    mended = offline_job.run(
        "enqueue", offline_job.write([*records(20), record(50), record(3)]), **settings
    )
    assert mended.returncode == 0
    assert b"read 22 = queued 21 + imported 0 + dead 0 + duplicate 1" in mended.stdout


def test_replay_requeues_the_selected_dead_letters(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    with simulator("--quota", "0") as service:
        job = Job(tmp_path, service.url)
        forbidden = {"GroupId": "@TGS#_b", "TopicName": "forbidden"}
        path = job.write([*records(5), MISSING, forbidden, b"{"])
        job.run("enqueue", path, **settings)
        serving = {"APP__BASE_URL": service.url, "ADMIN__LISTEN": "127.0.0.1:0"} | settings
        assert job.run("serve", "--until-empty", **serving).returncode == 1, "some dead letters"
        seen = orjson.loads(job.run("status", "--json", **settings).stdout)
        assert (seen["imported"], seen["dead"], seen["agree"]) == (5, 3, True)
        assert seen["by_code"] == {"10010": 1, "80001": 1}
        assert job.run("replay", "--code", "1", **settings).returncode == 1
        for choice in (("--code", "10010"), ("--reason", "rejected"), ("--reason", "invalid")):
            assert job.run("replay", *choice, **settings).returncode == 0
        assert job.run("replay", "--group", "@TGS#_missing", **settings).returncode == 1
        job.run("serve", "--until-empty", **serving)
        seen = orjson.loads(job.run("status", "--json", **settings).stdout)
        assert (seen["read"], seen["imported"], seen["dead"], seen["agree"]) == (8, 5, 3, True)
        assert service.ledger()["calls"] == 5 + 2 + 2


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        (["enqueue", "topics.jsonl"], {"APP__SDK_APP_ID": ""}, "app.sdk_app_id is not set"),
        (["enqueue", "none.jsonl"], {}, "none.jsonl"),
        (["replay"], {}, "there is no job"),
        (["serve"], {"ADMIN__LISTEN": "nowhere"}, "admin.listen"),
        (["enqueue", "topics.jsonl"], {"ADMIN__LISTEN": "nowhere:99999"}, "ADMIN__LISTEN: admin"),
        (["serve"], {"QUEUE__URL": "amqp://x"}, "queue.url"),
        (["serve"], {"APP__SECRET_KEY": "", "APP__BASE_URL": "http://127.0.0.1:9"}, "no key"),
    ],
)
def test_a_usage_mistake_prints_one_sentence_and_exits_with_2(
    offline_job: Job, words: list[str], given: dict[str, Any], message: str
) -> None:
    offline_job.write(records(1))
    done = offline_job.run(*words, **({"APP__BASE_URL": "http://127.0.0.1:9"} | given))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["enqueue", "topics.jsonl"], ["status"], ["replay"]])
def test_a_queue_that_cannot_be_used_exits_with_3(offline_job: Job, words: list[str]) -> None:
    offline_job.write(records(1))
    done = offline_job.run(*words, QUEUE__URL="redis://127.0.0.1:9")
    assert done.returncode == 3
    assert done.stderr.decode().startswith("topic-import: queue.url: Redis: ")
    offline_job.out.mkdir(exist_ok=True)
    (offline_job.out / "queue.sqlite3").write_bytes(b"my precious notes" * 100)
    done = offline_job.run(*words)
    assert done.returncode == 3
    assert b"It is damaged, or no queue at all" in done.stderr
    assert b"Traceback" not in done.stderr


def test_replaying_many_pages_of_invalid_letters_ends(offline_job: Job) -> None:
    path = offline_job.write([*([b"{"] * 1200), *records(1)])
    assert offline_job.run("enqueue", path).returncode == 1
    done = offline_job.run("replay", "--reason", "invalid")
    assert b"0 dead letters put back into the queue, 1,200 are still invalid" in done.stdout
    assert (offline_job.status()["dead"], offline_job.status()["agree"]) == (1200, True)


def test_replay_keeps_result_files_in_agreement_with_the_queue(tmp_path: Path) -> None:
    with simulator("--quota", "0") as service:
        job = Job(tmp_path, service.url)
        serving: dict[str, Any] = {"APP__BASE_URL": service.url, "ADMIN__LISTEN": "127.0.0.1:0"}
        job.run("enqueue", job.write([*records(5), MISSING, b"{"]))
        job.run("serve", "--until-empty", **serving)
        assert job.run("replay", "--code", "10010").returncode == 0
        assert len(job.dead()) == 1
        assert job.status()["agree"]
        done = job.run("serve", "--until-empty", **serving)
        assert b"set aside" not in done.stderr
        assert not list(job.out.glob("*.edited-*"))
        running = job.start("serve", **serving)
        for _ in range(2):
            wait_until(lambda: len(job.dead()) == 2)
            job.run("replay")
        wait_until(lambda: len(job.dead()) == 2 and job.status()["agree"])
        running.terminate()
        running.communicate(timeout=PATIENCE_S)
        assert len(job.dead()) == 2


def test_a_signal_ends_an_enqueue_that_waits_for_redis(tmp_path: Path) -> None:
    directory = tmp_path / "redis"
    directory.mkdir()
    server = RedisServer(binaries()[0], directory)
    server.start()
    try:
        job = Job(tmp_path, "http://127.0.0.1:9")
        running = job.start(
            "enqueue", job.write(records(50_000)), QUEUE__URL=f"{server.url}?stream=topics"
        )
        with redis.Redis(port=server.port) as client:
            wait_until(lambda: client.xlen("topics") > 0)
        with server.hanging():
            running.terminate()
            output, logged = running.communicate(timeout=PATIENCE_S)
        assert running.returncode == 143, logged
        assert "the inputs were not read to their end: the same command goes on" in output
        assert "Traceback" not in logged
    finally:
        server.kill()


def test_an_empty_input_is_said_to_be_empty(offline_job: Job) -> None:
    offline_job.write([], "empty.jsonl")
    done = offline_job.run("enqueue", "empty.jsonl", offline_job.write(records(2)))
    assert done.returncode == 0
    assert re.search(rb"an input is empty +input=empty.jsonl", done.stderr)
    assert done.stderr.count(b"is empty") == 1
