"""Show every setting: its value, and where the value comes from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from worker.jobs import Exit, print_json, print_result, print_table
from worker.settings.loading import Loaded, Origin
from worker.settings.model import HOSTS, SIGNERS, SettingPath, setting_names

SET = "set"
MISSING = "missing"
REQUIRED: tuple[tuple[SettingPath, ...], ...] = ((("app", "sdk_app_id"),), SIGNERS, HOSTS)
"""A call needs one setting of each of these; the first is shown as missing where all lack."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """A setting as it is shown. `source`: option, environment, file, default; None if missing."""

    name: str
    value: Any
    source: str | None
    place: str


def show_settings(loaded: Loaded, *, as_json: bool) -> Exit:
    """Print the settings in force; secrets as `set`, required ones that lack as `missing`."""
    shown = list(_all(loaded))
    file = str(loaded.file) if loaded.file else None
    if as_json:
        table = {
            one.name: {"value": one.value, "from": one.source, "place": one.place or None}
            for one in shown
        }
        print_json({"file": file, "settings": table})
        return Exit.DONE
    print_result(f"settings file: {file or 'none was read'}")
    print_table(
        ("setting", "value", "from"), [(one.name, _text(one.value), _whence(one)) for one in shown]
    )
    return Exit.DONE


def _all(loaded: Loaded) -> Iterator[_Shown]:
    lacking = {group[0]: group for group in REQUIRED if not any(_raw(loaded, p) for p in group)}
    for name in setting_names():
        path = tuple(name.split("."))
        if path in lacking:
            others = [".".join(other) for other in lacking[path][1:]]
            yield _Shown(name, MISSING, None, " or ".join(["required", *others]))
        else:
            origin = _origin(loaded, path)
            yield _Shown(name, _plain(_raw(loaded, path)), origin[0], origin[1])


def _raw(loaded: Loaded, path: SettingPath) -> Any:
    value: Any = loaded.settings
    for part in path:
        value = getattr(value, part)
    return value


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it, without secrets."""
    if isinstance(value, SecretStr):
        return SET
    if value is None or isinstance(value, bool | int | float | list | dict):
        return value
    return str(value)


def _origin(loaded: Loaded, path: SettingPath) -> tuple[str, str]:
    """Return the kind and the place of the source; of a table, those of all its entries."""
    if path in loaded.replaced:
        return "default", f"replaced by {'.'.join(loaded.replaced[path])}"
    found = [
        origin
        for given, origin in loaded.origins.items()
        if given[: len(path)] == path and not _is_table(loaded, given)
    ]
    highest = _highest(found)
    if highest is None:
        return "default", ""
    return highest.kind, ", ".join(dict.fromkeys(origin.place for origin in found))


def _is_table(loaded: Loaded, path: SettingPath) -> bool:
    """Return whether entries of this one have origins of their own."""
    return any(len(other) > len(path) and other[: len(path)] == path for other in loaded.origins)


def _highest(origins: list[Origin]) -> Origin | None:
    ranks = ("recipe", "file", "environment", "option")
    return max(origins, key=lambda origin: ranks.index(origin.kind), default=None)


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _whence(shown: _Shown) -> str:
    if shown.source is None:
        return shown.place
    if shown.place.startswith("replaced"):
        return shown.place
    return shown.place or shown.source
