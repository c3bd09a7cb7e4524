"""Field names, file names and messages of the service: shown as text, obeyed by no terminal."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest
from aiohttp import web

from tests.support.processes import Job
from tests.support.topics import record

SHOWN = r"bad \x1b[31mvalue\x1b[2J\r\nFAKE LINE imported 100"
ERROR_INFO = "bad \x1b[31mvalue\x1b[2J\r\nFAKE LINE imported 100"


@contextmanager
def hostile_service() -> Iterator[str]:
    """Serve a stand-in whose ErrorInfo holds terminal codes and a line break. Yields its URL."""

    async def answer(request: web.Request) -> web.Response:
        name = orjson.loads(await request.read())["TopicName"]
        code = 70009 if name == "halt" else 10004
        return web.json_response(
            {"ActionStatus": "FAIL", "ErrorCode": code, "ErrorInfo": ERROR_INFO}
        )

    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
    serving = threading.Thread(target=loop.run_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        serving.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


def obeyed(output: bytes) -> list[str]:
    """Return the characters of an output that a terminal obeys or nobody sees."""
    return [c for c in output.decode() if c != "\n" and not c.isprintable()]


def test_odd_field_names_and_types_forge_no_line_of_check(offline_job: Job) -> None:
    forged = "Privat\nread 9 = valid 9 + invalid 0 + duplicate 0"
    path = offline_job.write(
        [
            record(1, **{"\x1b[2J\x1b[31mfield": 1}),
            record(2, **{"a\u202eb\u2028c\x9b": 1}),
            record(3, Type=forged),
        ],
        "odd\x1b[2J\nread 9 = valid 9.jsonl",
    )
    done = offline_job.run("check", path)
    assert done.returncode == 1
    lines = done.stdout.decode().split("\n")
    assert [line for line in lines if line.startswith("read ")] == [
        "read 3 = valid 0 + invalid 3 + duplicate 0"
    ]
    assert obeyed(done.stdout) == []
    assert r"unknown field \x1b[2J\x1b[31mfield" in done.stdout.decode()


def test_an_odd_file_name_forges_no_line_of_an_error(offline_job: Job) -> None:
    done = offline_job.run("check", "none\x1b[2J\ntopic-import: all is well.jsonl")
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert r"none\x1b[2J\ntopic-import: all is well.jsonl: No such file" in line
    assert obeyed(done.stderr) == []


def test_an_odd_argument_forges_no_line_of_an_error(offline_job: Job) -> None:
    done = offline_job.run("status", "a\x1b[2J\nError: none")
    assert done.returncode == 2
    assert obeyed(done.stderr) == []
    assert b"\nError: none" not in done.stderr


@pytest.mark.parametrize("name", ["halt", "reject"])
def test_a_message_of_the_service_forges_no_line(offline_job: Job, name: str) -> None:
    with hostile_service() as url:
        offline_job.url = url
        path = offline_job.write([record(1, TopicName=name)])
        done = offline_job.backfill(path)
    assert done.returncode == (3 if name == "halt" else 1)
    assert obeyed(done.stdout + done.stderr) == []
    lines = (done.stdout + done.stderr).decode().splitlines()
    assert not [line for line in lines if line.startswith("FAKE LINE")]
    if name == "halt":
        assert f"HALTED (70009): {SHOWN}" in done.stdout.decode()
        assert ERROR_INFO in offline_job.report()["halted"]["sentence"]
    else:
        assert ERROR_INFO in offline_job.dead()[0]["message"]
