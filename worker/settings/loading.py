"""Where settings come from: command line, else environment, else TOML file, else default."""

import difflib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worker.settings.model import (
    ENVIRONMENT_PREFIX,
    Settings,
    SettingsError,
    setting_names,
    variable,
)

TABLES_OF_USERS = frozenset(("fields", "constants", "where"))
"""Settings that hold names from the user's data, with their capitals."""
CONFIG_VARIABLE = "TOPIC_IMPORT_CONFIG"
_PACKAGE = Path(__file__).resolve().parents[1]
RECIPES = next(
    (
        folder
        for folder in (_PACKAGE / "recipes", _PACKAGE.parent / "config" / "recipes")
        if folder.is_dir()
    ),
    _PACKAGE / "recipes",
)
"""In an installed package beside the modules, in a working copy under `config`."""
SettingPath = tuple[str, ...]
"""The sections of a setting and its name."""
OPTIONS: Mapping[SettingPath, str] = {
    ("app", "base_url"): "--base-url",
    ("rate", "calls_per_second"): "--rate",
    ("records", "key_field"): "--key-field",
    ("records", "fields"): "--field",
    ("records", "constants"): "--set",
    ("records", "unknown"): "--ignore-unknown",
}


def load(
    config: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    recipe: str | None = None,
) -> Settings:
    """Return the settings.

    `config`: the TOML file; if None, the one that `$TOPIC_IMPORT_CONFIG` names, if any.
    `environment`: `os.environ` if None. `options`: the values of the command line, by section and
    name. `recipe`: one of those that come with the program, over which every other source goes.
    Raises SettingsError with every problem and the place where its value was set.
    """
    environment = os.environ if environment is None else environment
    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    origins: dict[SettingPath, str] = {}
    merged: dict[str, Any] = {}
    if recipe is not None:
        file = recipe_file(recipe)
        text, table = _read_toml(file)
        _merge(merged, table, origins, _TomlOrigin(file, text))
    if config is not None:
        text, table = _read_toml(config)
        _merge(merged, table, origins, _TomlOrigin(config, text))
    _merge(merged, _from_environment(environment), origins, _environment_origin)
    _merge(merged, options or {}, origins, lambda path: OPTIONS.get(path, "command line"))
    _prefer_base_url_option(merged, options or {})
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(*_problems(error, origins)) from None


def recipe_file(name: str) -> Path:
    """Return the settings file of a recipe. Raises SettingsError if there is none of this name."""
    names = recipe_names()
    if name not in names:
        raise SettingsError(f"--recipe: there is no recipe {name}: one of {', '.join(names)}")
    return RECIPES / f"{name}.toml"


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the program."""
    return sorted(file.stem for file in RECIPES.glob("*.toml"))


def _read_toml(config: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = config.read_text()
        return text, tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{config}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{config}: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{config}: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in sorted(environment.items()):
        if not name.upper().startswith(ENVIRONMENT_PREFIX) or name.upper() == CONFIG_VARIABLE:
            continue
        if not value:
            continue  # compose files and unit files write an unset variable as an empty one
        # Only the field names of the user's data are case-sensitive.
        path = name[len(ENVIRONMENT_PREFIX) :].split("__")
        path = [part.lower() for part in path[:2]] + [
            part if path[1].lower() in TABLES_OF_USERS else part.lower() for part in path[2:]
        ]
        inner = table
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise SettingsError(f"{name}: {part} is a setting, not a section")
        inner[path[-1]] = value
    return table


def _environment_origin(path: SettingPath) -> str:
    return variable(*path)


class _TomlOrigin:
    """Finds the file and line of a setting in a TOML file."""

    def __init__(self, config: Path, text: str) -> None:
        self._config = config
        self._lines = text.splitlines()

    def __call__(self, path: SettingPath) -> str:
        section: list[str] = []
        for number, line in enumerate(self._lines, 1):
            bare = line.strip()
            if bare.startswith("["):
                section = bare.strip("[]").split(".")
                if section == list(path):
                    return f"{self._config}:{number}"
            name = [part.strip().strip("\"'") for part in bare.split("=")[0].split(".")]
            if "=" in bare and section + name == list(path):
                return f"{self._config}:{number}"
        return str(self._config)


def _merge(
    into: dict[str, Any],
    table: Mapping[str, Any],
    origins: dict[SettingPath, str],
    origin: Callable[[SettingPath], str],
    path: SettingPath = (),
) -> None:
    """Put the values of a source over those of lower sources, and note where they come from."""
    for name, value in table.items():
        here = (*path, name)
        if isinstance(value, Mapping):
            inner = into.get(name)
            if not isinstance(inner, dict):
                inner = into[name] = {}
            origins.setdefault(here, origin(here))
            _merge(inner, value, origins, origin, here)
        else:
            into[name] = value
            origins[here] = origin(here)


def _prefer_base_url_option(
    merged: dict[str, Any], options: Mapping[str, Mapping[str, Any]]
) -> None:
    """Let `--base-url` replace a region. Raises SettingsError if the two come from elsewhere."""
    app = merged.get("app")
    if not isinstance(app, dict) or not (app.get("region") and app.get("base_url")):
        return
    if "base_url" not in options.get("app", {}):
        raise SettingsError("app.region and app.base_url are set: exactly one may be")
    del app["region"]


def _problems(error: ValidationError, origins: Mapping[SettingPath, str]) -> Iterator[str]:
    for problem in error.errors(include_input=False, include_url=False):
        path = tuple(str(part) for part in problem["loc"])
        while path and path not in origins and path[:-1] in origins:
            path = path[:-1]
        name = ".".join(path)
        where = _origin_of(path, origins)
        if problem["type"] == "extra_forbidden":
            message = f"unknown setting {name}{_suggestion(path)}"
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            named = _setting_named_in(reason)
            if named:
                where = _origin_of(named, origins)
            message = reason if named else f"{name}: {reason}"
        yield f"{where}: {message}" if where else message


def _setting_named_in(reason: str) -> SettingPath | None:
    """Return the setting that a check of a whole section blames, as in `app.base_url: ...`."""
    name = reason.partition(":")[0]
    return tuple(name.split(".")) if name in setting_names() else None


def _origin_of(path: SettingPath, origins: Mapping[SettingPath, str]) -> str | None:
    """Return where a setting was given; for a section in the environment, one of its variables."""
    where = origins.get(path)
    if where == variable(*path):
        below = (p for p in origins if p[: len(path)] == path and len(p) > len(path))
        return origins[next(below, path)]
    return where


def _suggestion(path: SettingPath) -> str:
    known = [*setting_names(), *Settings.model_fields]
    name = ".".join(path).lower()
    close = [known_name for known_name in known if known_name.startswith(name)]
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (is it {close[0]}?)" if close else ""
