"""Removes secrets from every text that leaves the process."""

import re
from collections import deque
from urllib.parse import quote

REDACTED = "[redacted]"
PASSING_SECRETS_MAX = 64

_SIGNED = re.compile(r"(usersig[\"']?\s*[=:]\s*[\"']?)[^&\s\"',;]+", re.IGNORECASE)
_PASSWORD = re.compile(r"(\w+://[^:/@\s]*:)[^@\s/]+(@)")
_secrets: set[str] = set()
_passing_secrets: deque[str] = deque(maxlen=PASSING_SECRETS_MAX)


def keep_secret(value: str, *, passing: bool = False) -> None:
    """Register a secret: `redact` removes it from now on, also in its URL-encoded form.

    `passing`: a secret that others replace, as a signature; only the latest PASSING_SECRETS_MAX of
    these are remembered, so that a process of months stays bounded. An empty value is ignored.
    """
    if not value:
        return
    for form in {value, quote(value, safe="")}:
        if not passing:
            _secrets.add(form)
        elif form not in _passing_secrets:
            _passing_secrets.append(form)


def redact(text: str) -> str:
    """Return a text without signatures, passwords in URLs and registered secrets."""
    for secret in (*_secrets, *_passing_secrets):
        text = text.replace(secret, REDACTED)
    text = _SIGNED.sub(rf"\1{REDACTED}", text)
    return _PASSWORD.sub(rf"\1{REDACTED}\2", text)
