"""From settings to values that every job shares; nothing here loads what calls the service."""

from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from worker.queues.contract import JobIdentity
from worker.redaction import keep_secret
from worker.rules.topic.fields import FieldLimits
from worker.rules.topic.topic import RecordRules
from worker.settings.model import Settings

NO_REDIS = "Redis needs the extra: pip install 'topic-import-worker[redis]'"


def record_rules(settings: Settings) -> RecordRules:
    """Return how records are read."""
    records = settings.records
    return RecordRules(
        limits=FieldLimits(**records.limits.model_dump()),
        truncate=records.on_too_long == "truncate",
        derive_ids=records.topic_ids == "derive",
        fields=records.fields,
        key_field=records.key_field,
        constants=records.constants,
        ignored=records.ignore,
        ignore_unknown=records.unknown == "ignore",
        where=records.where,
        create_time=records.create_time,
    )


def job_identity(settings: Settings) -> JobIdentity:
    """Return what makes two runs the same job."""
    return JobIdentity(
        app=str(settings.app.sdk_app_id),
        key_field=settings.records.key_field or "",
        topic_ids=settings.records.topic_ids,
    )


def reveal_redis_url(setting: SecretStr) -> str:
    """Return a URL of Redis, and redact its passwords in all logs from now on."""
    url = setting.get_secret_value()
    parts = urlsplit(url)
    written = parts.password or ""
    # As it is written in the URL, and as it is sent.
    for password in (written, unquote(written), dict(parse_qsl(parts.query)).get("password", "")):
        keep_secret(password)
    return url
