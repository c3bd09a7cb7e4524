"""What is logged: repeated events are counted, text from strangers forges no line."""

import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from worker.logs import WINDOW_S, WINDOWS_MAX, RepeatedEvents, configure, logger


def logged(code: int, **more: object) -> dict[str, object]:
    return {"event": "refused", "log_level": "warning", "code": code, **more}


def test_a_repeated_event_is_logged_first_then_counted() -> None:
    now_s = 0.0
    events = RepeatedEvents(logger(), lambda: now_s)
    with capture_logs() as logs:
        for _ in range(4):
            events.warning("refused", code=1)
        events.warning("refused", code=2)
        now_s = WINDOW_S
        for _ in range(3):
            events.warning("refused", code=1)
        events.tell_rest()
        events.tell_rest()
    assert logs == [logged(1), logged(2), logged(1, more_since=3), logged(1, more_since=2)]


def test_no_count_is_lost_with_many_kinds_of_events() -> None:
    events = RepeatedEvents(logger(), lambda: 0.0)
    with capture_logs() as logs:
        for code in range(WINDOWS_MAX + 1):
            events.warning("refused", code=code)
            events.warning("refused", code=code)
        events.tell_rest()
    assert sum(line.get("more_since", 0) for line in logs) == WINDOWS_MAX + 1


@pytest.fixture
def _logs_as_before() -> Iterator[None]:
    handlers = logging.root.handlers[:]
    yield
    logging.root.handlers[:] = handlers
    structlog.reset_defaults()


HOSTILE = "bad \x1b[2J\r\n2026 [error] forged\u202e"


@pytest.mark.usefixtures("_logs_as_before")
def test_a_log_line_shows_text_from_strangers_as_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("console")
    logger().warning(HOSTILE, reason=HOSTILE, bare="\x1b[2J", parts=[HOSTILE])
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    assert all(character == "\n" or character.isprintable() for character in shown)


@pytest.mark.usefixtures("_logs_as_before")
def test_a_json_log_line_keeps_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    logger().warning("refused", reason=HOSTILE)
    (line,) = capsys.readouterr().err.splitlines()
    assert orjson.loads(line)["reason"] == HOSTILE


@pytest.mark.usefixtures("_logs_as_before")
def test_a_failure_in_a_library_is_one_line_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("console")
    error = ValueError(f"{HOSTILE} usersig=eJsecret")
    logging.getLogger("asyncio").error("Task failed\nat %s", HOSTILE, exc_info=error)
    (line,) = capsys.readouterr().err.splitlines()
    assert "Task failed" in line
    assert "Traceback" not in line
    assert "eJsecret" not in line
