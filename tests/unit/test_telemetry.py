"""Repeated log events: the first is logged at once, the rest are counted."""

from structlog.testing import capture_logs

from worker.logs import WINDOW_S, WINDOWS_MAX, RepeatedEvents, logger


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
