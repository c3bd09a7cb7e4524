"""Carry the records of a queue on a virtual clock, without a quota unless one is given."""

from typing import Any

from tests.support.memory_queue import MemoryQueue
from tests.support.virtual_clock import VirtualLoop
from worker.credentials import SigningCredentials
from worker.delivery import Carrier, Chat
from worker.limits import Limits
from worker.pipeline import Bounds, Pipeline
from worker.quota.local import LocalQuota
from worker.rules.counts import Counters
from worker.rules.health import Health
from worker.rules.retry import RetryPolicy
from worker.traffic import Traffic

APP, ADMIN, KEY = 1400000000, "administrator", "k" * 64
DEFAULTS = RetryPolicy()


def carry(
    queue: MemoryQueue,
    chat: Chat,
    *,
    loop: VirtualLoop | None = None,
    slots: int = 10,
    retry: RetryPolicy = DEFAULTS,
    counters: Counters | None = None,
    quota_per_s: int = 0,
    **more: Any,
) -> Carrier:
    """Carry all to their outcomes; `more` is for the carrier, which comes back as it ended."""
    loop = loop or VirtualLoop()
    health, traffic = Health(retry), Traffic()
    carrier = Carrier(
        chat=chat,
        credentials=SigningCredentials(APP, ADMIN, KEY, wall_clock=loop.time, clock=loop.time),
        limits=Limits(LocalQuota(quota_per_s, loop.time), slots, loop.time, health.breaker),
        traffic=traffic,
        health=health,
        retry=retry,
        counters=counters or Counters(),
        clock=loop.time,
        wall_clock=loop.time,
        **more,
    )
    try:
        loop.run_until_complete(Pipeline(queue, carrier, traffic, Bounds()).run(lambda: False))
    finally:
        loop.close()
    return carrier
