"""Logs without secrets, and the counters of a run by name."""

import logging
import re
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import orjson
import structlog

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

REDACTED = "[redacted]"
WINDOW_S = 10.0
WINDOWS_MAX = 100

_SIGNED = re.compile(r"(usersig[\"']?\s*[=:]\s*[\"']?)[^&\s\"',;]+", re.IGNORECASE)
_PASSWORD = re.compile(r"(\w+://[^:/@\s]*:)[^@\s/]+(@)")
_Fields = tuple[tuple[str, object], ...]
_secrets: set[str] = set()
_passing_secrets: deque[str] = deque(maxlen=64)


@dataclass(slots=True)
class Counters:
    """What this run did. `retries`: calls beyond a record's first; `throttled`: replies."""

    calls: int = 0
    retries: int = 0
    throttled: int = 0
    renewals: int = 0


def keep_secret(value: str, *, passing: bool = False) -> None:
    """Never let this value into a log, whatever it is part of.

    `passing`: one of many that come and go, of which the latest are remembered.
    """
    if not value:
        return
    for form in {value, quote(value, safe="")}:
        if not passing:
            _secrets.add(form)
        elif form not in _passing_secrets:
            _passing_secrets.append(form)


def redact(text: str) -> str:
    """Take signatures, passwords in URLs and every known secret out of a text."""
    for secret in (*_secrets, *_passing_secrets):
        text = text.replace(secret, REDACTED)
    text = _SIGNED.sub(rf"\1{REDACTED}", text)
    return _PASSWORD.sub(rf"\1{REDACTED}\2", text)


def logger() -> Any:
    return structlog.get_logger()


def configure(log_format: LogFormat = "console", level: LogLevel = "info") -> None:
    """Send all logs to standard error, each line redacted as a whole."""
    renderer: Any
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer(serializer=_dumps)
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
            _redact_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Lines(),
        cache_logger_on_first_use=True,
    )


class _Lines:
    """Writes log lines to standard error; one that cannot be written is no reason to stop."""

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = error = exception = critical = msg


class RepeatedEvents:
    """Logs an event that may come thousands of times: at once, then once a window with a count."""

    def __init__(self, log: Any, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._windows: dict[tuple[str, _Fields], tuple[float, int]] = {}

    def warning(self, event: str, **fields: object) -> None:
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
        """Log the counts that no later event told, at an end."""
        for (event, fields), (_, count) in self._windows.items():
            if count:
                self._log.warning(event, **dict(fields), more_since=count)
        self._windows.clear()


def _dumps(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()


def _redact_line(_logger: Any, _name: str, line: Any) -> Any:
    return redact(line) if isinstance(line, str) else line
