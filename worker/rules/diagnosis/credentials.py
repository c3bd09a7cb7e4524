"""Judges a key, or a ready signature: whether the service can accept it.

Source: login page (form of a UserSig), FAQ on the validity, error page (at least 24 hours advised).
"""

import re

from worker.rules.diagnosis.finding import Finding, failed, passed, warned
from worker.rules.usersig import Ticket

KEY_CHARACTERS = 64
KEY_ADVICE = "copy the whole key from the console: 64 hex digits"
VERSION = "2.0"
IDENTIFIER_BYTES_MAX = 32
LIFE_ADVISED_S = 24 * 3600
CLOCK_TOLERANCE_S = 60.0


def judge_key(key: str, admin: str) -> Finding:
    """Judge the form of the app's key, and the account that signs with it."""
    if not re.fullmatch(rf"[0-9a-fA-F]{{{KEY_CHARACTERS}}}", key):
        return warned("key", f"it has {len(key)} characters, or others than hex digits", KEY_ADVICE)
    if too_long := _judge_admin(admin):
        return too_long
    return passed("key", f"has the form of a key; signs as {admin}, for 24 hours at a time")


def judge_ticket(
    ticket: Ticket | None, admin: str, sdk_app_id: int | None, now_s: float
) -> Finding:
    """Judge a ready signature. `ticket`: what it holds, None if it is no signature at all."""
    advice = "make a new one in the console, or set the key, which renews it"
    if ticket is None:
        return failed("signature", "app.usersig is no UserSig: it cannot be unpacked", advice)
    if ticket.version != VERSION:
        return failed("signature", f"its version is {ticket.version}, not {VERSION}", advice)
    if ticket.identifier != admin:
        return failed(
            "signature",
            f"it is of {ticket.identifier}, and app.admin is {admin}",
            "set app.admin to the account that it was made for",
        )
    if ticket.sdk_app_id != sdk_app_id:
        return failed(
            "signature",
            f"it is of the app {ticket.sdk_app_id}, and app.sdk_app_id is {sdk_app_id}",
            "set app.sdk_app_id to the app that it was made for",
        )
    return _judge_admin(admin) or _judge_life(ticket, now_s)


def _judge_admin(admin: str) -> Finding | None:
    if len(admin.encode()) <= IDENTIFIER_BYTES_MAX:
        return None
    return failed(
        "signature",
        f"app.admin has {len(admin.encode())} bytes, a user ID has at most {IDENTIFIER_BYTES_MAX}",
        "name an administrator of the app in app.admin",
    )


def _judge_life(ticket: Ticket, now_s: float) -> Finding:
    left_s = ticket.issued_s + ticket.life_s - now_s
    advice = "make a new one in the console, or set the key, which renews it"
    if left_s <= 0:
        return failed("signature", f"it expired {_duration(-left_s)} ago", advice)
    if ticket.issued_s - now_s > CLOCK_TOLERANCE_S:
        return warned(
            "signature",
            f"it was made {_duration(ticket.issued_s - now_s)} in the future",
            "check the clock of this machine, and of the one that made it",
        )
    if left_s < LIFE_ADVISED_S:
        return warned("signature", f"it is valid for {_duration(left_s)} only", advice)
    return passed("signature", f"of {ticket.identifier}, valid for {_duration(left_s)}")


def _duration(seconds: float) -> str:
    for unit, unit_s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} seconds"
