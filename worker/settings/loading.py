"""Where settings come from: command line, else environment, else TOML file, else default."""

import difflib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from worker.settings.errors import SettingsError
from worker.settings.model import (
    ALTERNATIVES,
    ENVIRONMENT_PREFIX,
    SettingPath,
    Settings,
    setting_names,
    variable,
)

TABLES_OF_USERS = frozenset(("fields", "constants", "where"))
"""Settings that hold names from the user's data, with their capitals."""
CONFIG_VARIABLE = "TOPIC_IMPORT_CONFIG"
OWN_FILE = Path("topic-import.toml")
"""The file that is read if no other is named, if there is one."""
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
OPTIONS: Mapping[SettingPath, str] = {
    ("app", "base_url"): "--base-url",
    ("rate", "calls_per_second"): "--rate",
    ("records", "key_field"): "--key-field",
    ("records", "fields"): "--field",
    ("records", "constants"): "--set",
    ("records", "unknown"): "--ignore-unknown",
}
SourceKind = Literal["option", "environment", "file", "recipe"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was given. `place`: an option, a variable, or `file:line`."""

    kind: SourceKind
    place: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force and where they come from.

    `file`: the TOML file that was read, None without one. `origins`: of each value and section that
    was given; what is not in it has its default. `replaced`: a setting that was given, and the one
    of a higher source that stands in its place (`ALTERNATIVES`).
    """

    settings: Settings
    file: Path | None
    origins: Mapping[SettingPath, Origin]
    replaced: Mapping[SettingPath, SettingPath] = field(default_factory=dict)


def load(
    config: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    recipe: str | None = None,
) -> Settings:
    """Return the settings alone; otherwise as `load_with_origins`."""
    loaded = load_with_origins(config, environment=environment, options=options, recipe=recipe)
    return loaded.settings


def load_with_origins(
    config: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    recipe: str | None = None,
) -> Loaded:
    """Return the settings and where each comes from.

    `config`: the TOML file; if None, the one that `$TOPIC_IMPORT_CONFIG` names, else
    `./topic-import.toml` if there is one. `environment`: `os.environ` if None. `options`: the
    values of the command line, by section and name. `recipe`: one of those that come with the
    program, over which every other source goes. Raises SettingsError with every problem and
    the place where its value was set.
    """
    environment = os.environ if environment is None else environment
    merging = _Merging()
    if recipe is not None:
        text, table = _read_toml(recipe_file(recipe))
        merging.add("recipe", table, _TomlOrigin(recipe_file(recipe), text))
    file = config or _named_or_own_file(environment)
    if file is not None:
        text, table = _read_toml(file)
        merging.add("file", table, _TomlOrigin(file, text))
    merging.add("environment", _from_environment(environment), _environment_origin)
    merging.add("option", options or {}, lambda path: OPTIONS.get(path, "command line"))
    try:
        settings = Settings.model_validate(merging.values)
    except ValidationError as error:
        raise SettingsError(*_problems(error, merging.origins)) from None
    return Loaded(settings, file, merging.origins, merging.replaced)


def _named_or_own_file(environment: Mapping[str, str]) -> Path | None:
    if named := environment.get(CONFIG_VARIABLE):
        return Path(named)
    return OWN_FILE if OWN_FILE.exists() else None


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


class _Merging:
    """The values of all sources in one table, the lower sources added first."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[SettingPath, Origin] = {}
        self.replaced: dict[SettingPath, SettingPath] = {}

    def add(
        self, kind: SourceKind, table: Mapping[str, Any], place: Callable[[SettingPath], str]
    ) -> None:
        """Put the values of a source over those of lower sources.

        Of alternatives the one that this source sets replaces those of lower sources. Raises
        SettingsError if it sets two.
        """
        for group in ALTERNATIVES:
            given = [path for path in group if _value(table, path)]
            if len(given) > 1:
                names = " and ".join(".".join(path) for path in given)
                raise SettingsError(f"{place(given[-1])}: {names} are set: exactly one may be")
            for lower in group:
                if given and lower != given[0] and _value(self.values, lower):
                    del self.values[lower[0]][lower[1]]
                    del self.origins[lower]
                    self.replaced[lower] = given[0]
            if given:
                self.replaced.pop(given[0], None)
        self._merge(self.values, table, lambda path: Origin(kind, place(path)), ())

    def _merge(
        self,
        into: dict[str, Any],
        table: Mapping[str, Any],
        origin: Callable[[SettingPath], Origin],
        path: SettingPath,
    ) -> None:
        for name, value in table.items():
            here = (*path, name)
            if isinstance(value, Mapping):
                inner = into.get(name)
                if not isinstance(inner, dict):
                    inner = into[name] = {}
                self.origins.setdefault(here, origin(here))
                self._merge(inner, value, origin, here)
            else:
                into[name] = value
                self.origins[here] = origin(here)


def _value(table: Mapping[str, Any], path: SettingPath) -> Any:
    """Return the value of a setting in a table that nobody has checked yet, None without one."""
    section = table.get(path[0])
    return section.get(path[1]) if isinstance(section, Mapping) else None


def _problems(error: ValidationError, origins: Mapping[SettingPath, Origin]) -> Iterator[str]:
    for problem in error.errors(include_input=False, include_url=False):
        path = tuple(str(part) for part in problem["loc"])
        while path and path not in origins and path[:-1] in origins:
            path = path[:-1]
        name = ".".join(path)
        where = _place_of(path, origins)
        if problem["type"] == "extra_forbidden":
            message = f"unknown setting {name}{_suggestion(path)}"
        else:
            reason = problem["msg"].removeprefix("Value error, ")
            named = _setting_named_in(reason)
            if named:
                where = _place_of(named, origins)
            message = reason if named else f"{name}: {reason}"
        yield f"{where}: {message}" if where else message


def _setting_named_in(reason: str) -> SettingPath | None:
    """Return the setting that a check of a whole section blames, as in `app.base_url: ...`."""
    name = reason.partition(":")[0]
    return tuple(name.split(".")) if name in setting_names() else None


def _place_of(path: SettingPath, origins: Mapping[SettingPath, Origin]) -> str | None:
    """Return where a setting was given; for a section in the environment, one of its variables."""
    origin = origins.get(path)
    if origin and origin.place == variable(*path):
        below = (p for p in origins if p[: len(path)] == path and len(p) > len(path))
        return origins[next(below, path)].place
    return origin.place if origin else None


def _suggestion(path: SettingPath) -> str:
    known = [*setting_names(), *Settings.model_fields]
    name = ".".join(path).lower()
    close = [known_name for known_name in known if known_name.startswith(name)]
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (is it {close[0]}?)" if close else ""
