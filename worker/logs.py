"""Log events with fields, written to standard error, each line redacted."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, TextIO

import orjson
import structlog

from worker.redaction import redact
from worker.rules.visible_text import visible, visible_lines

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
WINDOW_S = 10.0
"""For how long a repeated event is only counted after it was logged."""
WINDOWS_MAX = 100
"""How many different repeated events are counted at a time."""
PLAIN_TERMINALS = frozenset({"dumb", "unknown"})
"""Values of TERM of terminals that only print."""
_Fields = tuple[tuple[str, object], ...]


def logger() -> Any:
    """Return a logger, to be called as `log.warning("event", field=value)`."""
    return structlog.get_logger()


def is_drawable(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which lines can be drawn and changed."""
    return stream.isatty() and os.environ.get("TERM") not in PLAIN_TERMINALS


def configure(log_format: LogFormat = "console", level: LogLevel = "info") -> None:
    """Send all logs of this level and above to standard error, each line redacted as a whole."""
    renderers: list[Any]
    if log_format == "json":
        renderers = [structlog.processors.JSONRenderer(serializer=_dumps)]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=is_drawable(sys.stderr) and not os.environ.get("NO_COLOR"),
            exception_formatter=structlog.dev.plain_traceback,
        )
        renderers = [_make_visible, console]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
            _redact_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Lines(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Libraries(logging.WARNING)], force=True)


class _Libraries(logging.Handler):
    """Logs what libraries log as one line, without a traceback.

    Their messages repeat what a stranger sent, and a traceback may hold the URL of a call. asyncio
    reports here what failed in a callback or in a task that nobody waits for.
    """

    def emit(self, record: logging.LogRecord) -> None:
        log = logger().error if record.levelno >= logging.ERROR else logger().warning
        with suppress(Exception):  # a record whose arguments do not fit its message
            log(
                "a library reports a failure",
                library=record.name,
                message=record.getMessage().partition("\n")[0],
                **_cause(record.exc_info[1] if record.exc_info else None),
            )


def _cause(error: BaseException | None) -> dict[str, str]:
    """Return an error and the place where it was raised, for a log line."""
    if error is None:
        return {}
    frames = traceback.extract_tb(error.__traceback__)
    where = {"at": f"{frames[-1].filename}:{frames[-1].lineno}"} if frames else {}
    return {"error": f"{type(error).__name__}: {error}", **where}


class _Lines:
    """Writes log lines to standard error; a line that cannot be written is dropped."""

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = error = exception = critical = msg


class RepeatedEvents:
    """Logs an event that may occur thousands of times: at once, then once in WINDOW_S with a count.

    Events are the same if their fields are equal. `clock`: seconds of a monotonic clock.
    """

    def __init__(self, log: Any, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._windows: dict[tuple[str, _Fields], tuple[float, int]] = {}

    def warning(self, event: str, **fields: object) -> None:
        """Log the event, or count it if it was logged within the last WINDOW_S."""
        key = (event, tuple(fields.items()))
        now_s = self._clock()
        began_s, count = self._windows.get(key, (float("-inf"), 0))
        if now_s - began_s < WINDOW_S:
            self._windows[key] = (began_s, count + 1)
            return
        if len(self._windows) >= WINDOWS_MAX:
            self.tell_rest()
        self._windows[key] = (now_s, 0)
        since = {"more_since": count} if count else {}
        self._log.warning(event, **fields, **since)

    def tell_rest(self) -> None:
        """Log every event that was counted and not logged since; for the end of a run."""
        for (event, fields), (_, count) in self._windows.items():
            if count:
                self._log.warning(event, **dict(fields), more_since=count)
        self._windows.clear()


def _dumps(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


def _make_visible(_logger: Any, _name: str, event: Any) -> Any:
    """Escape what a terminal would obey instead of showing it; a traceback keeps its lines."""
    return {
        name: _visible_value(value, keeps_lines=name == "exception")
        for name, value in event.items()
    }


def _visible_value(value: object, *, keeps_lines: bool) -> object:
    # Redacted before it is escaped: an escaped secret would not be recognised. Values of other
    # types are shown by their repr, which escapes by itself.
    if not isinstance(value, str):
        return value
    return visible_lines(redact(value)) if keeps_lines else visible(redact(value))


def _redact_line(_logger: Any, _name: str, line: Any) -> Any:
    return redact(line) if isinstance(line, str) else line
