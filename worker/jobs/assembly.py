"""From settings to the machinery that imports: quota, limits, carrier, bounds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from worker.chat import ImportTopicClient
from worker.delivery import Carrier, Credentials
from worker.health import Health
from worker.jobs import UsageError, parts
from worker.limits import Limits, Quota
from worker.pipeline import Bounds
from worker.quota.local import LocalQuota
from worker.settings import Settings
from worker.telemetry import Counters

WAITING_MAX = 100
WAITING_SHARE = 0.1
"""Seconds of quota that wait for their turn: few, for a taker that dies leaves each in doubt."""
QUOTA_WINDOW_S = 1.0
REDIS_TIMEOUT_S = 1.0
NO_REDIS = "Redis needs the extra: pip install 'topic-import-worker[redis]'"

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
        raise UsageError(f"rate.shared: {NO_REDIS}") from None
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
    retry = parts.retry_policy(settings)
    health = Health(retry, same_rejection=same_rejection)
    limits = Limits(quota, parts.slots(settings), clock, health.breaker)
    carrier = Carrier(
        chat=chat,
        credentials=credentials,
        limits=limits,
        health=health,
        retry=retry,
        counters=counters,
        clock=clock,
        wall_clock=time.time,
        skip_existing=settings.records.on_existing == "skip",
        anything_imported=anything_imported,
        observe=observe,
    )
    return Machinery(limits, carrier)


def bounds(settings: Settings, *, take_max: int | None = None) -> Bounds:
    """Bound what waits in memory by the quota."""
    quota_per_s = settings.rate.calls_per_second
    waiting = max(1, min(WAITING_MAX, int(quota_per_s * WAITING_SHARE)))
    return Bounds(waiting_max=waiting if quota_per_s else WAITING_MAX, take_max=take_max)
