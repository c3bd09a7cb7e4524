"""Removes secrets from every text that leaves the process."""

import re
from collections import deque
from urllib.parse import quote

REDACTED = "[redacted]"
PASSING_SECRETS_MAX = 64

_SIGNED = re.compile(
    r"(usersig=[\"']?|usersig[\"']\s*[=:]\s*[\"']?"
    # After "usersig: " a sentence may go on, so only a long word is taken for a signature.
    r"|usersig\s*[=:]\s*[\"']?(?=eJ|\S{20}))[^&\s\"',;]+",
    re.IGNORECASE,
)
_USERSIG = re.compile(r"eJ[w-z](?:[A-Za-z0-9*_-]|%2[ADad]|%5[Ff]){32,}")
"""Any UserSig, also one that is cut off or was forgotten: base64 of what zlib packs begins so."""
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
    if not text:
        return text
    for secret in (*_secrets, *_passing_secrets):
        text = text.replace(secret, REDACTED)
    text = _USERSIG.sub(REDACTED, text)
    text = _SIGNED.sub(rf"\1{REDACTED}", text)
    return _PASSWORD.sub(rf"\1{REDACTED}\2", text)
