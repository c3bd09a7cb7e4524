"""The settings, the key and the signature that calls are made with."""

import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.credentials import LIFE_S
from worker.redaction import keep_secret
from worker.rules.diagnosis.credentials import judge_key, judge_ticket
from worker.rules.diagnosis.finding import Finding, Grade, failed, passed, warned
from worker.rules.usersig import sign, unpack
from worker.settings.addresses import REDIS_URLS
from worker.settings.advice import app_problems, unwise
from worker.settings.errors import SettingsError
from worker.settings.loading import load_with_origins
from worker.settings.model import App, Settings
from worker.settings.secret_key import given_usersig, secret_key

NAME = "settings"


def read_settings(
    config: Path | None, options: Mapping[str, Mapping[str, Any]]
) -> tuple[Settings | None, list[Finding]]:
    """Return the settings and what is found of them; None if they cannot be used at all."""
    try:
        loaded = load_with_origins(config, options=options)
    except SettingsError as error:
        return None, [failed(NAME, str(line), "correct it or take it out") for line in error.args]
    settings = loaded.settings
    findings = [_missing(sentence) for sentence in app_problems(settings.app)]
    findings += [
        warned(NAME, sentence, "change it, unless it is meant")
        for sentence in (*unwise(settings), *_unwise_for_replicas(settings))
    ]
    if not any(finding.grade is Grade.FAIL for finding in findings):
        source = f"read from {loaded.file}" if loaded.file else "no file; environment and defaults"
        findings.insert(0, passed(NAME, f"{source}; `topic-import settings` shows them"))
    return settings, findings


def _missing(sentence: str) -> Finding:
    what, _, advice = sentence.partition(": ")
    return failed(NAME, what, advice)


def _unwise_for_replicas(settings: Settings) -> Iterator[str]:
    queue, rate = settings.queue.url, settings.rate
    is_redis = queue and queue.get_secret_value().startswith(REDIS_URLS)
    if is_redis and rate.shared is None:
        yield "queue.url is in Redis and rate.shared is not set: each replica uses the whole quota"
    if rate.replicas and rate.shared is None:
        yield "rate.replicas is set without rate.shared: it has no effect"


def signature(settings: Settings) -> tuple[list[Finding], str | None]:
    """Return what is found of the key or the ready signature, and the signature for the calls.

    None instead of a signature that no service can accept.
    """
    app = settings.app
    try:
        key = secret_key(app)
        usersig = given_usersig(app) if key is None and app.usersig else None
    except SettingsError as error:
        what, _, advice = str(error).rpartition(": ")
        return [failed("key", what or advice, advice if what else "")], None
    if usersig is not None:
        keep_secret(usersig)
        finding = judge_ticket(unpack(usersig), app.admin, app.sdk_app_id, time.time())
        return [finding], None if finding.grade is Grade.FAIL else usersig
    if key is None:
        return [], None  # that it is missing was found with the settings
    keep_secret(key)
    finding = judge_key(key, app.admin)
    findings = [finding, *_readable_by_others(app)]
    if finding.grade is Grade.FAIL or app.sdk_app_id is None:
        return findings, None
    made = sign(app.sdk_app_id, app.admin, key, issued_s=int(time.time()), life_s=LIFE_S)
    keep_secret(made, passing=True)
    return findings, made


def _readable_by_others(app: App) -> Iterator[Finding]:
    if app.secret_key_file and app.secret_key_file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warned(
            "key file",
            f"{app.secret_key_file} may be read by others than its owner",
            f"chmod 600 {app.secret_key_file}",
        )
