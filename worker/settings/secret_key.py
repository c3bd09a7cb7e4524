"""The app's secret key, from its setting or its file."""

from worker.settings.model import App, SettingsError

KEY_CHARACTERS_MIN = 32
"""The console shows 64 hex digits. Logs are redacted of the key; a short one could be a word."""


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


def _checked(key: str, name: str) -> str:
    """Return the key. Raises SettingsError, which repeats nothing of it, for a placeholder."""
    if len(key) < KEY_CHARACTERS_MIN:
        trouble = f"it has {len(key)} characters"
    elif any(character.isspace() for character in key):
        trouble = "there is white space in it"
    else:
        return key
    raise SettingsError(
        f"{name}: {trouble}, so it is a placeholder, not a key: copy the app's key from the "
        "console, 64 hex digits"
    )
