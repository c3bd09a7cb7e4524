"""From settings to the machinery that imports: quota, limits, carrier, bounds."""

import asyncio
import resource
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from worker.chat import Endpoint, ImportTopicClient, proxy_from_environment
from worker.credentials import GivenCredentials, SigningCredentials
from worker.delivery import Carrier, Credentials
from worker.jobs import UsageError, parts
from worker.limits import Limits, Quota
from worker.logs import logger
from worker.pipeline import Bounds
from worker.quota.local import LocalQuota
from worker.redaction import keep_secret
from worker.rules.counts import Counters
from worker.rules.health import Health
from worker.rules.retry import RetryPolicy
from worker.settings.addresses import is_proxy_url
from worker.settings.advice import app_problems
from worker.settings.model import Settings, SettingsError, base_url
from worker.settings.secret_key import secret_key
from worker.traffic import Traffic

log = logger()

WAITING_MAX = 100
WAITING_SHARE = 0.1
"""Seconds of quota that wait for their turn: few, for a taker that dies leaves each in doubt."""
QUOTA_WINDOW_S = 1.0
REDIS_TIMEOUT_S = 1.0
FILES_BESIDE_CONNECTIONS = 64

Observe = Callable[[str, int | None, float], None]


@asynccontextmanager
async def open_quota(settings: Settings, *, closed_for_s: float = 0.0) -> AsyncIterator[Quota]:
    """Make the quota, shared with others where `rate.shared` says so."""
    rate, clock = settings.rate, asyncio.get_running_loop().time
    if rate.shared is None:
        yield LocalQuota(rate.calls_per_second, clock, closed_for_s=closed_for_s)
        return
    try:
        from worker.quota.shared import SharedQuota  # noqa: PLC0415 - an extra
        from worker.redis_client import redis_client  # noqa: PLC0415
    except ImportError:
        raise UsageError(f"rate.shared: {parts.NO_REDIS}") from None
    url = rate.shared.get_secret_value()
    parts.keep_passwords(url)
    try:
        client = redis_client(url, REDIS_TIMEOUT_S, REDIS_TIMEOUT_S)
    except ValueError as error:
        raise UsageError(f"rate.shared: {error}") from None
    fallback = None
    if rate.replicas:
        fallback = LocalQuota(rate.calls_per_second / rate.replicas, clock)
    quota = SharedQuota(
        client, str(settings.app.sdk_app_id), rate.calls_per_second, clock=clock, fallback=fallback
    )
    try:
        yield quota
    finally:
        await quota.close()
        await client.aclose()


@dataclass(frozen=True, slots=True)
class Machinery:
    """What carries deliveries."""

    limits: Limits
    traffic: Traffic
    carrier: Carrier


def assemble(
    settings: Settings,
    *,
    chat: ImportTopicClient,
    credentials: Credentials,
    quota: Quota,
    counters: Counters,
    anything_imported: bool,
    same_rejection: int = 0,
    observe: Observe = lambda *_: None,
) -> Machinery:
    """Put the parts together that carry deliveries to their outcomes."""
    clock = asyncio.get_running_loop().time
    retry = retry_policy(settings)
    health, traffic = (
        Health(retry, same_rejection=same_rejection, anything_imported=anything_imported),
        Traffic(),
    )
    limits = Limits(quota, slots(settings), clock, health.breaker)
    carrier = Carrier(
        chat=chat,
        credentials=credentials,
        limits=limits,
        traffic=traffic,
        health=health,
        retry=retry,
        counters=counters,
        clock=clock,
        wall_clock=time.time,
        skip_existing=settings.records.on_existing == "skip",
        observe=observe,
    )
    return Machinery(limits, traffic, carrier)


def bounds(settings: Settings, *, take_max: int | None = None) -> Bounds:
    """Bound what waits in memory by the quota."""
    quota_per_s = settings.rate.calls_per_second
    waiting = max(1, min(WAITING_MAX, int(quota_per_s * WAITING_SHARE)))
    return Bounds(waiting_max=waiting if quota_per_s else WAITING_MAX, take_max=take_max)


def retry_policy(settings: Settings) -> RetryPolicy:
    retry = settings.retry
    return RetryPolicy(retry.max_attempts, retry.base_delay, retry.max_delay, retry.patience)


def credentials(settings: Settings) -> Credentials:
    """Make the credentials, or say all that is missing."""
    app = settings.app
    problems = list(app_problems(app))
    if problems:
        raise UsageError("\n".join(problems))
    try:
        key = secret_key(app)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    if key is None:
        assert app.usersig is not None  # noqa: S101 - app_problems saw to it
        return GivenCredentials(app.usersig.get_secret_value())
    return SigningCredentials(
        app.sdk_app_id or 0,
        app.admin,
        key,
        wall_clock=time.time,
        clock=asyncio.get_running_loop().time,
    )


def endpoint(settings: Settings) -> Endpoint:
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


def slots(settings: Settings) -> int:
    """Bound the open calls by what the system lets this process open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in {hard, resource.RLIM_INFINITY}:
        wanted = settings.http.max_in_flight + FILES_BESIDE_CONNECTIONS
        soft = max(soft, wanted if hard == resource.RLIM_INFINITY else min(hard, wanted))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return settings.http.max_in_flight
    room = max(
        1, soft - FILES_BESIDE_CONNECTIONS if soft > 2 * FILES_BESIDE_CONNECTIONS else soft // 2
    )
    if room < settings.http.max_in_flight:
        log.warning(
            "fewer calls at once than http.max_in_flight: raise ulimit -n",
            calls=room,
            open_files=soft,
        )
    return min(room, settings.http.max_in_flight)
