"""No secret leaves the process: what is known as one is taken out of every text."""

import re
from collections import deque
from urllib.parse import quote

REDACTED = "[redacted]"


_SIGNED = re.compile(r"(usersig[\"']?\s*[=:]\s*[\"']?)[^&\s\"',;]+", re.IGNORECASE)


_PASSWORD = re.compile(r"(\w+://[^:/@\s]*:)[^@\s/]+(@)")


_secrets: set[str] = set()


_passing_secrets: deque[str] = deque(maxlen=64)


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
