"""Logs: a common event is told at once, then counted."""

from structlog.testing import capture_logs

from worker.logs import WINDOW_S, WINDOWS_MAX, RepeatedEvents, logger


def told(code: int, **more: object) -> dict[str, object]:
    return {"event": "refused", "log_level": "warning", "code": code, **more}


def test_a_repeated_event_is_told_at_once_then_counted_and_told_at_the_end() -> None:
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
    assert logs == [told(1), told(2), told(1, more_since=3), told(1, more_since=2)]


def test_no_count_is_dropped_where_there_are_many_kinds_of_events() -> None:
    events = RepeatedEvents(logger(), lambda: 0.0)
    with capture_logs() as logs:
        for code in range(WINDOWS_MAX + 1):
            events.warning("refused", code=code)
            events.warning("refused", code=code)
        events.tell_rest()
    assert sum(line.get("more_since", 0) for line in logs) == WINDOWS_MAX + 1
