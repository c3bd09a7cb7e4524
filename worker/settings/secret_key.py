"""The app's secret key, from its setting or its file, or a signature made with it."""

from worker.settings.errors import SettingsError
from worker.settings.model import App

SECRET_CHARACTERS_MIN = 32
"""A key has 64, a signature more. Logs are redacted of both; a short one could be a word."""

OLD_KEY_BEGINS = "-----BEGIN"
"""Apps made before July 2019 may have keys of this kind."""


def secret_key(app: App) -> str | None:
    """Return the app's key, read from its setting or file; None if a UserSig is set instead.

    Raises SettingsError if the file cannot be read, or if what it holds is no key.
    """
    if app.secret_key:
        return _checked(app.secret_key.get_secret_value(), "app.secret_key")
    if app.secret_key_file is None:
        return None
    name = f"app.secret_key_file {app.secret_key_file}"
    try:
        key = app.secret_key_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise SettingsError(f"{name}: {reason}") from None
    if not key:
        raise SettingsError(f"{name}: it is empty")
    return _checked(key, name)


def given_usersig(app: App) -> str:
    """Return `app.usersig`, which must be set. Raises SettingsError for what is no signature."""
    assert app.usersig is not None  # noqa: S101 - the caller asks only where there is no key
    usersig = app.usersig.get_secret_value()
    if trouble := _placeholder(usersig):
        raise SettingsError(
            f"app.usersig: {trouble}, so it is a placeholder, not a signature: make one in the "
            "console, or set the key"
        )
    return usersig


def _checked(key: str, name: str) -> str:
    """Return the key. Raises SettingsError, which repeats nothing of it, for what is none."""
    if key.startswith(OLD_KEY_BEGINS):
        raise SettingsError(
            f"{name}: it is a private key of the old kind (ECDSA): change the app to HMAC-SHA256 "
            "in the console, and take the new key"
        )
    if trouble := _placeholder(key):
        raise SettingsError(
            f"{name}: {trouble}, so it is a placeholder, not a key: copy the app's key from the "
            "console, 64 hex digits"
        )
    return key


def _placeholder(secret: str) -> str | None:
    """Return why this text cannot be a secret, None if it may be one."""
    if len(secret) < SECRET_CHARACTERS_MIN:
        return f"it has {len(secret)} characters"
    return "there is white space in it" if any(map(str.isspace, secret)) else None
