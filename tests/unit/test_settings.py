"""Settings from every source; every mistake is reported with its place."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from worker.settings.advice import app_problems, unwise
from worker.settings.errors import SettingsError
from worker.settings.loading import Origin, load, load_with_origins, recipe_file, recipe_names
from worker.settings.model import Settings, setting_names
from worker.settings.secret_key import given_usersig, secret_key

REFERENCE = Path("config/worker.toml")
UNSET = re.compile(r"^# (?P<name>\w+) = ", re.MULTILINE)


def flat(table: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and name not in {"fields", "constants", "where"}:
            found |= flat(value, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = value
    return found


def documented() -> tuple[dict[str, Any], set[str]]:
    """Return the values of the reference file, and the names of its unset settings."""
    text = REFERENCE.read_text()
    unset, section = set(), ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif match := UNSET.match(line):
            unset.add(f"{section}.{match['name']}")
    return flat(tomllib.loads(text)), unset


def test_the_reference_file_lists_every_setting_with_its_default() -> None:
    values, unset = documented()
    assert values.keys() | unset == set(setting_names())
    defaults = flat(Settings().model_dump(mode="json"))
    assert values == {name: value for name, value in defaults.items() if value is not None}


def test_every_setting_in_the_reference_file_has_a_comment() -> None:
    lines = [line for line in REFERENCE.read_text().splitlines() if " = " in line]
    assert all("  # " in line for line in lines)


def test_command_line_overrides_environment_and_environment_overrides_file(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('[rate]\ncalls_per_second = 1\n[app]\nadmin = "file"\npath = "file"\n')
    environment = {
        "TOPIC_IMPORT_CONFIG": str(file),
        "TOPIC_IMPORT_RATE__CALLS_PER_SECOND": "2",
        "TOPIC_IMPORT_APP__ADMIN": "environment",
    }
    settings = load(environment=environment, options={"rate": {"calls_per_second": 3}})
    assert settings.rate.calls_per_second == 3
    assert settings.app.admin == "environment"
    assert settings.app.path == "file"


def test_values_are_converted_to_their_types() -> None:
    environment = {
        "TOPIC_IMPORT_APP__SDK_APP_ID": "1400000000",
        "TOPIC_IMPORT_APP__ALLOW_HTTP": "true",
        "TOPIC_IMPORT_OUTPUTS__MAX_BYTES": "2 GiB",
        "TOPIC_IMPORT_RECORDS__FIELDS__Title": "TopicName",
    }
    settings = load(environment=environment, options={"app": {"admin": 7}})
    assert settings.app.sdk_app_id == 1400000000
    assert settings.app.allow_http is True
    assert settings.app.admin == "7"
    assert settings.outputs.max_bytes == 2 << 30
    assert settings.records.fields == {"Title": "TopicName"}


def test_a_field_mapping_may_be_written_in_either_direction() -> None:
    options = {"records": {"fields": {"TopicName": "title"}}}
    assert load(environment={}, options=options).records.fields == {"title": "TopicName"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rate]\ncall_per_second = 1\n", r":2: unknown setting rate.call_per_second \(is it rate"),
        ("[retry]\nmax_attempts = 0\n", r":2: retry.max_attempts: .*greater than 0"),
        ("[app]\nregion = 'mars'\n", r":2: app.region: .*china"),
        ("[app]\nbase_url = 'console'\n", r":2: app.base_url: must be a URL"),
        ("[app]\nbase_url = 'http://[::1'\n", r":2: app.base_url: must be a URL"),
        ("[app]\nbase_url = 'https://u:p@x'\n", r":2: app.base_url: must hold no"),
        ("[app]\nbase_url = 'http://far.example'\n", r"plain http:// would send"),
        ("[app]\nregion = 'china'\nbase_url = 'https://x'\n", r"exactly one may be"),
        ("[records.fields]\ntitle = 'TopicNam'\n", r"names no field of the API.*TopicName"),
        ("[records]\nkey_field = 'GroupId'\n", r":2: records.key_field: must name a field beside"),
        ("[http]\nproxy = 'socks5://x'\n", r":2: http.proxy: must be a URL like"),
        ("[rat]\nx = 1\n", r":1: unknown setting rat"),
        ("[app\n", r"line 1"),
    ],
)
def test_a_mistake_in_the_file_is_reported_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        load(file, environment={})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TOPIC_IMPORT_RATE__CALL_PER_SECOND", "1", "TOPIC_IMPORT_RATE__CALL_PER_SECOND: unknown"),
        ("TOPIC_IMPORT_RATES__X", "1", "TOPIC_IMPORT_RATES__X: unknown setting"),
        ("TOPIC_IMPORT_RATE", "1", "TOPIC_IMPORT_RATE"),
        ("TOPIC_IMPORT_RATE__CALLS_PER_SECOND", "many", "TOPIC_IMPORT_RATE__CALLS_PER_SECOND"),
        ("TOPIC_IMPORT_CONFIG", "/no/such/file", "/no/such/file: No such file"),
        ("TOPIC_IMPORT_TYPO", "1", "TOPIC_IMPORT_TYPO: unknown setting typo"),
    ],
)
def test_a_mistake_in_the_environment_is_reported_with_its_variable(
    variable: str, value: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load(environment={variable: value})


def test_an_error_contains_no_secret() -> None:
    with pytest.raises(SettingsError) as caught:
        load(environment={"TOPIC_IMPORT_HTTP__PROXY": "socks5://user:hidden@x"})
    assert "hidden" not in str(caught.value)


def test_of_alternatives_the_one_of_the_higher_source_replaces_the_others(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('[app]\nregion = "china"\nsecret_key_file = "app.key"\n')
    loaded = load_with_origins(
        file,
        environment={"TOPIC_IMPORT_APP__USERSIG": "eJx", "TOPIC_IMPORT_APP__REGION": "seoul"},
        options={"app": {"base_url": "https://x.example"}},
    )
    app = loaded.settings.app
    assert (app.region, app.base_url) == (None, "https://x.example")
    assert app.secret_key_file is None
    assert app.usersig
    assert loaded.replaced == {
        ("app", "region"): ("app", "base_url"),
        ("app", "secret_key_file"): ("app", "usersig"),
    }


def test_a_value_that_is_replaced_twice_comes_from_the_highest_source(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('[app]\nbase_url = "https://file.example"\n')
    loaded = load_with_origins(
        file,
        environment={"TOPIC_IMPORT_APP__REGION": "china"},
        options={"app": {"base_url": "https://x.example"}},
    )
    assert loaded.settings.app.base_url == "https://x.example"
    assert loaded.origins["app", "base_url"] == Origin("option", "--base-url")
    assert loaded.replaced == {("app", "region"): ("app", "base_url")}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("SECRET_KEY", "USERSIG"), "app.secret_key and app.usersig are set: exactly one may be"),
        (("SECRET_KEY_FILE", "SECRET_KEY"), "app.secret_key and app.secret_key_file are set"),
        (("REGION", "BASE_URL"), "TOPIC_IMPORT_APP__BASE_URL: app.region and app.base_url are"),
    ],
)
def test_two_alternatives_in_one_source_are_an_error(names: tuple[str, str], message: str) -> None:
    environment = {f"TOPIC_IMPORT_APP__{name}": "hunter2" for name in names}
    with pytest.raises(SettingsError, match=message) as caught:
        load(environment=environment)
    assert "hunter2" not in str(caught.value)


def test_the_file_of_this_directory_is_read_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_with_origins(environment={}).file is None
    Path("topic-import.toml").write_text("[rate]\ncalls_per_second = 7\n")
    Path("other.toml").write_text("[rate]\ncalls_per_second = 8\n")
    loaded = load_with_origins(environment={})
    assert (loaded.file, loaded.settings.rate.calls_per_second) == (Path("topic-import.toml"), 7)
    assert loaded.origins["rate", "calls_per_second"] == Origin("file", "topic-import.toml:2")
    named = load_with_origins(environment={"TOPIC_IMPORT_CONFIG": "other.toml"})
    assert (named.file, named.settings.rate.calls_per_second) == (Path("other.toml"), 8)


def test_all_settings_missing_for_a_call_are_reported_together() -> None:
    message = "\n".join(app_problems(Settings().app))
    for part in ("app.sdk_app_id", "TOPIC_IMPORT_APP__SECRET_KEY", "app.region"):
        assert part in message


def test_unwise_values_cause_warnings() -> None:
    options: dict[str, dict[str, Any]] = {
        "rate": {"calls_per_second": 300},
        "http": {"total_timeout": 2, "connect_timeout": 5},
        "records": {"topic_ids": "as-given"},
    }
    assert len(list(unwise(load(environment={}, options=options)))) == 4
    assert len(list(unwise(load(environment={}, options={"rate": {"calls_per_second": 0}})))) == 1
    assert not list(unwise(Settings()))


@pytest.mark.parametrize(
    ("key", "trouble"),
    [("hunter2", "it has 7 characters"), ("your secret key of the app goes here", "white space")],
)
def test_a_placeholder_is_refused_as_key_and_not_repeated(
    tmp_path: Path, key: str, trouble: str
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{key}\n")
    for setting in ({"secret_key": key}, {"secret_key_file": str(file)}):
        with pytest.raises(SettingsError, match=f"{trouble}.*placeholder, not a key") as caught:
            secret_key(load(environment={}, options={"app": setting}).app)
        assert key not in str(caught.value)
    app = load(environment={}, options={"app": {"usersig": key}}).app
    with pytest.raises(SettingsError, match=f"app.usersig: .*{trouble}.*placeholder"):
        given_usersig(app)


def test_a_base_url_of_the_command_line_is_blamed_on_its_option() -> None:
    environment = {"TOPIC_IMPORT_APP__ADMIN": "me", "TOPIC_IMPORT_APP__SDK_APP_ID": "1400000000"}
    for url in ("http://far.example", "console"):
        with pytest.raises(SettingsError) as caught:
            load(environment=environment, options={"app": {"base_url": url}})
        assert str(caught.value).startswith("--base-url: app.base_url: ")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_it_maps_and_what_is_lost(name: str) -> None:
    lines = recipe_file(name).read_text().splitlines()
    assert [line.split(":")[0] for line in lines[1:4]] == [
        "# Maps",
        "# Lost",
        "# Give the community",
    ]
    records = load(environment={}, recipe=name).records
    assert "TopicName" in records.fields.values()
    # A channel of Mattermost has no key of its own: its name is unique within a team only.
    assert (records.key_field is None) == (name == "mattermost")


def test_every_source_goes_over_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('[records]\nunknown = "reject"\nignore = ["members"]\n')
    options = {"records": {"key_field": "name", "constants": {"GroupId": "@TGS#_a"}}}
    records = load(file, environment={}, options=options, recipe="slack").records
    assert (records.unknown, records.ignore, records.key_field) == ("reject", ["members"], "name")
    assert records.fields["purpose.value"] == "Introduction"


def test_recipes_are_part_of_the_package() -> None:
    build = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"]["force-include"]
    assert included == {"config/recipes": "worker/recipes"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CONSTANTS", '{"GroupID": "a"}', "GroupID is no field of the API (is it GroupId?)"),
        ("FIELDS", "{", "must be JSON like"),
        ("ENCODING", "klingon", "klingon is no encoding"),
        ("ENCODING", "hex", "hex is no encoding"),
        ("CREATE_TIME", "days", "records.create_time"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environment={f"TOPIC_IMPORT_RECORDS__{name}": value})
    assert message in str(caught.value)


def test_names_of_users_keep_their_capitals_in_the_environment() -> None:
    environment = {
        "TOPIC_IMPORT_RECORDS__WHERE__Type": "Channel",
        "TOPIC_IMPORT_RECORDS__CONSTANTS": '{"GroupId": "@TGS#_a"}',
        "TOPIC_IMPORT_RECORDS__IGNORE": '["a", "b.c"]',
    }
    records = load(environment=environment).records
    assert records.where == {"Type": "Channel"}
    assert records.constants == {"GroupId": "@TGS#_a"}
    assert records.ignore == ["a", "b.c"]
