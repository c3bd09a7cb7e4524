"""The app's secret key, from its setting or its file."""

from worker.settings.model import App, SettingsError


def secret_key(app: App) -> str | None:
    """Return the app's key, read from its setting or file; None if a UserSig is set instead.

    Raises SettingsError if the file cannot be read or is empty.
    """
    if app.secret_key:
        return app.secret_key.get_secret_value()
    if app.secret_key_file is None:
        return None
    try:
        key = app.secret_key_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise SettingsError(f"app.secret_key_file {app.secret_key_file}: {reason}") from None
    if not key:
        raise SettingsError(f"app.secret_key_file {app.secret_key_file}: it is empty")
    return key
