"""The error of settings, apart from the settings: reporting it needs none of their machinery."""


class SettingsError(Exception):
    """Settings with which nothing can start. Each argument is a line that names one problem."""

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))
