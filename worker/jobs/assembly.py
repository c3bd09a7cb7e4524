"""From settings to the machinery that imports: the quota, the slots, the carrier."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from worker.chat import ImportTopicClient
from worker.comparing import Comparer
from worker.delivery import Carrier, Credentials
from worker.jobs import UsageError
from worker.jobs.calling import retry_policy
from worker.jobs.from_settings import NO_REDIS, reveal_redis_url
from worker.limits import Limits, Quota
from worker.logs import logger
from worker.quota.local import LocalQuota
from worker.rules.counts import Counters
from worker.rules.health import Health
from worker.settings.model import Settings
from worker.traffic import Traffic

log = logger()

QUOTA_WINDOW_S = 1.0
"""The quota counts calls in a rolling second, so also those of a process that has just ended."""
REDIS_TIMEOUT_S = 1.0
FILES_BESIDE_CONNECTIONS = 64
"""Open files that this process needs for other things than calls."""

Observe = Callable[[str, int | None, float], None]


@asynccontextmanager
async def open_quota(settings: Settings, *, closed_for_s: float = 0.0) -> AsyncIterator[Quota]:
    """Open the quota: of this process alone, or shared in Redis if `rate.shared` is set.

    `closed_for_s`: seconds in which a quota of this process alone gives no turn at first. Raises
    UsageError if the extra for Redis is missing or the URL is wrong.
    """
    rate, clock = settings.rate, asyncio.get_running_loop().time
    if rate.shared is None:
        yield LocalQuota(rate.calls_per_second, clock, closed_for_s=closed_for_s)
        return
    try:
        from worker.quota.shared import SharedQuota  # noqa: PLC0415 - an extra
        from worker.redis_client import redis_client  # noqa: PLC0415
    except ImportError:
        raise UsageError(f"rate.shared: {NO_REDIS}") from None
    try:
        client = redis_client(reveal_redis_url(rate.shared), REDIS_TIMEOUT_S, REDIS_TIMEOUT_S)
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
    health: Health
    carrier: Carrier

    def held(self) -> dict[str, str]:
        """Return the communities whose records wait, and why."""
        troubles = self.health.communities.troubles()
        return {group: trouble.value for group, trouble in troubles.items()}


def assemble(
    settings: Settings,
    *,
    chat: ImportTopicClient,
    credentials: Credentials,
    quota: Quota,
    counters: Counters,
    anything_imported: bool,
    is_service: bool,
    observe: Observe = lambda *_: None,
) -> Machinery:
    """Put the parts together that carry deliveries to their outcomes.

    `is_service`: wait for the end of a trouble where a backfill halts.
    """
    clock = asyncio.get_running_loop().time
    retry = retry_policy(settings)
    traffic = Traffic()
    health = Health(
        retry,
        same_rejection=settings.halt.same_rejection,
        anything_imported=anything_imported,
        is_service=is_service,
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
        comparer=Comparer(
            chat=chat,
            credentials=credentials,
            quota=LocalQuota(settings.verify.calls_per_second, clock),
            clock=clock,
            retry=retry,
            is_held=lambda: health.breaker.is_open,
        ),
        observe=observe,
    )
    return Machinery(limits, traffic, health, carrier)


def slots(settings: Settings) -> int:
    """Return how many calls may be open at once; raise the limit of open files if it is allowed.

    At most `http.max_in_flight`, and fewer if this process may not open so many files.
    """
    wanted = settings.http.max_in_flight
    open_files = _raise_open_files(wanted + FILES_BESIDE_CONNECTIONS)
    if open_files == resource.RLIM_INFINITY:
        return wanted
    if open_files > 2 * FILES_BESIDE_CONNECTIONS:
        room = open_files - FILES_BESIDE_CONNECTIONS
    else:
        room = max(1, open_files // 2)
    if room < wanted:
        log.warning(
            "fewer calls at once than http.max_in_flight: raise ulimit -n",
            calls=room,
            open_files=open_files,
        )
    return min(room, wanted)


def _raise_open_files(wanted: int) -> int:
    """Raise the limit of open files to `wanted` as far as the system allows; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in {hard, resource.RLIM_INFINITY}:
        soft = max(soft, wanted if hard == resource.RLIM_INFINITY else min(hard, wanted))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
