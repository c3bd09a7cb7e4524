"""From settings to what calls the service: credentials, endpoint, retries, bounds."""

import asyncio
import ssl
import time

from worker.chat import Endpoint, proxy_from_environment
from worker.credentials import GivenCredentials, SigningCredentials
from worker.delivery import Credentials
from worker.jobs import UsageError
from worker.pipeline import Bounds
from worker.redaction import keep_secret
from worker.rules.retry import RetryPolicy
from worker.settings.addresses import is_proxy_url
from worker.settings.advice import app_problems
from worker.settings.errors import SettingsError
from worker.settings.model import Settings, base_url
from worker.settings.secret_key import given_usersig, secret_key

WAITING_MAX = 100
WAITING_WITHOUT_QUOTA = 256
"""More than with a quota: at thousands of calls a second 100 are used up during one put."""
WAITING_SHARE = 0.2
"""Seconds of quota that wait for their turn; few, as a taker that dies leaves each in doubt."""


def retry_policy(settings: Settings) -> RetryPolicy:
    """Return the bounds of the repetition of a record's call."""
    retry = settings.retry
    return RetryPolicy(
        max_attempts=retry.max_attempts,
        base_delay_s=retry.base_delay,
        max_delay_s=retry.max_delay,
        patience_s=retry.patience,
    )


def bounds(settings: Settings, *, take_max: int | None = None) -> Bounds:
    """Return how many records may be in memory; those that wait for a turn depend on the quota."""
    quota_per_s = settings.rate.calls_per_second
    waiting = max(1, min(WAITING_MAX, int(quota_per_s * WAITING_SHARE)))
    return Bounds(waiting_max=waiting if quota_per_s else WAITING_WITHOUT_QUOTA, take_max=take_max)


def credentials(settings: Settings) -> Credentials:
    """Return the credentials of the app. Raises UsageError that names everything missing."""
    app = settings.app
    problems = list(app_problems(app))
    if problems:
        raise UsageError(*problems)
    try:
        key = secret_key(app)
        if key is None:
            return GivenCredentials(given_usersig(app))
    except SettingsError as error:
        raise UsageError(*error.args) from None
    return SigningCredentials(
        app.sdk_app_id or 0,
        app.admin,
        key,
        wall_clock=time.time,
        clock=asyncio.get_running_loop().time,
    )


def endpoint(settings: Settings) -> Endpoint:
    """Return where and as whom to call.

    Raises UsageError if the proxy of the environment is no URL, or `http.ca_file` cannot be used.
    """
    app, http = settings.app, settings.http
    proxy = http.proxy.get_secret_value() if http.proxy else None
    proxy = proxy or proxy_from_environment(base_url(app))
    if proxy and not is_proxy_url(proxy):
        raise UsageError("the proxy of the environment (HTTPS_PROXY) is no URL like http://x:3128")
    keep_secret(proxy or "")
    if http.ca_file:
        try:
            ssl.create_default_context(cafile=http.ca_file)
        except OSError as error:
            reason = "no certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise UsageError(f"http.ca_file {http.ca_file}: {reason}") from None
    return Endpoint(
        base_url=base_url(app),
        path=app.path,
        sdk_app_id=app.sdk_app_id or 0,
        admin=app.admin,
        connect_timeout_s=http.connect_timeout,
        total_timeout_s=http.total_timeout,
        proxy=proxy,
        ca_file=str(http.ca_file) if http.ca_file else None,
    )
