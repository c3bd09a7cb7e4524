"""Which texts are removed as secrets, and which ordinary words stay."""

import pytest

from worker.redaction import PASSING_SECRETS_MAX, keep_secret, redact
from worker.rules.usersig import sign

URL_SIGNED = "https://x.example/v4?usersig=eJshort&random=1"


def some_usersig(number: int) -> str:
    return sign(1400000000, "administrator", f"{number:064d}", issued_s=number, life_s=86400)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL_SIGNED, "https://x.example/v4?usersig=[redacted]&random=1"),
        ('{"usersig": "secret"}', '{"usersig": "[redacted]"}'),
        ("UserSig: eJshort", "UserSig: [redacted]"),
        (f"usersig: {'x' * 20}", "usersig: [redacted]"),
        ("redis://me:hunter2@host", "redis://me:[redacted]@host"),
    ],
)
def test_signatures_and_passwords_are_redacted(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "check usersig: a new signature does not help",
        "usersig: expired",
        "eJust a word, and eJwords",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert redact(text) == text


def test_a_usersig_is_recognised_after_many_others() -> None:
    usersigs = [some_usersig(number) for number in range(2 * PASSING_SECRETS_MAX)]
    for usersig in usersigs:
        keep_secret(usersig, passing=True)
    for usersig in (*usersigs, *(each.replace("*", "%2A") for each in usersigs)):
        assert redact(f"bad {usersig}!") == "bad [redacted]!"
