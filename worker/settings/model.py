"""Every setting with its type, its default and its checks; config/worker.toml explains them."""

import codecs
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from worker.rules.retry import RetryPolicy
from worker.rules.topic.fields import FIELDS, FieldLimits
from worker.rules.topic.times import TimeForm
from worker.settings.addresses import (
    REDIS_URLS,
    check_redis_url,
    check_service_url,
    host_and_port,
    is_loopback,
    is_proxy_url,
)

ENVIRONMENT_PREFIX = "TOPIC_IMPORT_"
REGIONS = {
    "china": "console.tim.qq.com",
    "singapore": "adminapisgp.im.qcloud.com",
    "seoul": "adminapikr.im.qcloud.com",
    "tokyo": "adminapijpn.im.qcloud.com",
    "frankfurt": "adminapiger.im.qcloud.com",
    "silicon-valley": "adminapiusa.im.qcloud.com",
    "jakarta": "adminapiidn.im.qcloud.com",
    "riyadh": "adminapiksa.im.qcloud.com",
}
"""The host of each data centre (REST overview)."""
SettingPath = tuple[str, ...]
"""The sections of a setting and its name."""
HOSTS: tuple[SettingPath, ...] = (("app", "region"), ("app", "base_url"))
SIGNERS: tuple[SettingPath, ...] = (
    ("app", "secret_key"),
    ("app", "secret_key_file"),
    ("app", "usersig"),
)
ALTERNATIVES = (HOSTS, SIGNERS)
"""Settings of which exactly one is needed; that of the higher source replaces the others."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, str_strip_whitespace=True,
        hide_input_in_errors=True,
    )  # fmt: skip


class App(_Section):
    """Which app to import into, and the account that calls."""

    sdk_app_id: Annotated[int, Field(gt=0, lt=2**32)] | None = None
    admin: Annotated[str, Field(min_length=1)] = "administrator"
    secret_key: SecretStr | None = None
    secret_key_file: Path | None = None
    usersig: SecretStr | None = None
    region: Literal[
        "china", "singapore", "seoul", "tokyo", "frankfurt", "silicon-valley", "jakarta", "riyadh"
    ] | None = None  # fmt: skip
    base_url: str | None = None
    allow_http: bool = False
    path: Annotated[str, Field(pattern=r"^/?[\w./-]+$")] = "v4/group_open_http_svc/import_topic"

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None:
            check_service_url(url)
        return url

    @model_validator(mode="after")
    def _check_scheme(self) -> Self:
        url = urlsplit(self.base_url or "")
        if url.scheme == "http" and not self.allow_http and not is_loopback(url.hostname or ""):
            raise ValueError(
                "app.base_url: plain http:// would send the signature readable to all on the "
                "way; use https://, or set app.allow_http"
            )
        return self


def _check_redis_url(url: SecretStr) -> SecretStr:
    check_redis_url(url.get_secret_value())
    return url


def _check_queue_url(url: SecretStr) -> SecretStr:
    is_redis = url.get_secret_value().startswith(REDIS_URLS)
    return _check_redis_url(url) if is_redis else url


class Rate(_Section):
    """The quota of calls."""

    calls_per_second: Seconds = 200.0
    shared: Annotated[SecretStr, AfterValidator(_check_redis_url)] | None = None
    replicas: PositiveCount | None = None


class Http(_Section):
    """Connections to the service."""

    max_in_flight: PositiveCount = 1000
    connect_timeout: PositiveSeconds = 5.0
    total_timeout: PositiveSeconds = 10.0
    proxy: SecretStr | None = None
    ca_file: Path | None = None

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, proxy: SecretStr | None) -> SecretStr | None:
        if proxy and not is_proxy_url(proxy.get_secret_value()):
            raise ValueError("must be a URL like http://proxy.example:3128")
        return proxy


_RETRY = RetryPolicy()


class Retry(_Section):
    """When a failed record is tried again; the defaults are those of the rule."""

    max_attempts: PositiveCount = _RETRY.max_attempts
    base_delay: Seconds = _RETRY.base_delay_s
    max_delay: Seconds = _RETRY.max_delay_s
    patience: Seconds = _RETRY.patience_s


_LONGEST = FieldLimits()


class RecordLimits(_Section):
    """Longest values, in bytes of UTF-8; the defaults are those of the rule."""

    topic_name: PositiveCount = _LONGEST.topic_name
    custom_string: PositiveCount = _LONGEST.custom_string
    face_url: PositiveCount = _LONGEST.face_url
    notification: PositiveCount = _LONGEST.notification
    introduction: PositiveCount = _LONGEST.introduction


class Records(_Section):
    """How records are read and become topics."""

    topic_ids: Literal["derive", "as-given"] = "derive"
    on_existing: Literal["dead-letter", "skip"] = "dead-letter"
    on_too_long: Literal["reject", "truncate"] = "reject"
    limits: RecordLimits = RecordLimits()
    fields: dict[str, str] = {}
    key_field: Annotated[str, Field(min_length=1)] | None = None
    max_line_bytes: PositiveCount = 1_048_576

    constants: dict[str, str | int] = {}
    ignore: list[str] = []
    unknown: Literal["reject", "ignore"] = "reject"
    where: dict[str, Any] = {}
    path: Annotated[str, Field(min_length=1)] | None = None
    encoding: str | None = None
    create_time: TimeForm = "seconds"

    @field_validator("fields", "constants", "ignore", "where", mode="before")
    @classmethod
    def _read_json(cls, given: Any) -> Any:
        """Accept a table or a list as JSON, as an environment variable holds it."""
        if not isinstance(given, str):
            return given
        try:
            return orjson.loads(given)
        except orjson.JSONDecodeError:
            raise ValueError('must be JSON like {"title": "TopicName"}, or a list') from None

    @field_validator("fields")
    @classmethod
    def _check_fields(cls, fields: dict[str, str]) -> dict[str, str]:
        # The mapping is unambiguous the other way round, too: TopicName = "title".
        mapping = {
            (ours if theirs in FIELDS and ours not in FIELDS else theirs): (
                theirs if theirs in FIELDS and ours not in FIELDS else ours
            )
            for theirs, ours in fields.items()
        }
        for theirs, ours in mapping.items():
            _check_field_name(ours, f"{theirs} names no field of the API: {ours}")
        return mapping

    @field_validator("constants")
    @classmethod
    def _check_constants(cls, constants: dict[str, str | int]) -> dict[str, str | int]:
        for name in constants:
            _check_field_name(name, f"{name} is no field of the API")
        return constants

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str | None) -> str | None:
        try:
            "a".encode(encoding or "utf-8")  # refuses codecs that are not for text, too
        except LookupError:
            raise ValueError(f"{encoding} is no encoding; cp1252, gb18030 and others are") from None
        return encoding and codecs.lookup(encoding).name

    @field_validator("key_field")
    @classmethod
    def _check_key_field(cls, key_field: str | None) -> str | None:
        if key_field in FIELDS:
            raise ValueError("must name a field beside those of the API")
        return key_field


def _check_field_name(name: str, problem: str) -> None:
    if name not in FIELDS:
        close = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f" (is it {close[0]}?)" if close else f": one of {', '.join(FIELDS)}"
        raise ValueError(problem + hint)


class Verify(_Section):
    """Reading topics that exist, to compare them with what was sent."""

    calls_per_second: Seconds = 50.0


class Undo(_Section):
    """Taking back topics that a job made."""

    calls_per_second: Seconds = 20.0


class HaltSettings(_Section):
    """When a run stops although calls are answered."""

    same_rejection: Count = 1000


class QueueSettings(_Section):
    """The queue."""

    url: Annotated[SecretStr, AfterValidator(_check_queue_url)] | None = None
    lease: PositiveSeconds = 60.0
    keep_results: PositiveCount = 1_000_000


class Outputs(_Section):
    """The result files of a service."""

    max_bytes: ByteSize = ByteSize(1 << 30)


def _check_listen(listen: str) -> str:
    host_and_port(listen)
    return listen


class Admin(_Section):
    """The endpoint that monitors ask."""

    listen: Annotated[str, AfterValidator(_check_listen)] = "127.0.0.1:9180"


class Drain(_Section):
    """How a service stops."""

    timeout: Seconds = 30.0


class Settings(_Section):
    """All settings, by section."""

    app: App = App()
    rate: Rate = Rate()
    http: Http = Http()
    retry: Retry = Retry()
    records: Records = Records()
    verify: Verify = Verify()
    undo: Undo = Undo()
    halt: HaltSettings = HaltSettings()
    queue: QueueSettings = QueueSettings()
    outputs: Outputs = Outputs()
    admin: Admin = Admin()
    drain: Drain = Drain()


def base_url(app: App) -> str:
    """Return the URL of the service's host."""
    return app.base_url or f"https://{REGIONS[app.region or 'china']}"


def variable(*path: str) -> str:
    """Return the environment variable of a setting: `TOPIC_IMPORT_<SECTION>__<NAME>`."""
    return ENVIRONMENT_PREFIX + "__".join(path).upper()


def setting_names(model: type[BaseModel] = Settings, path: str = "") -> Iterator[str]:
    """Yield the name of every setting with its sections, as `records.limits.topic_name`."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_names(field.annotation, f"{path}{name}.")
        else:
            yield f"{path}{name}"
