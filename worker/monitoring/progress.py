"""The progress of a run: a live line on a terminal, a log line every few seconds elsewhere."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from worker.limits import Limits
from worker.logs import is_drawable, logger
from worker.rules.counts import Counters, Counts

log = logger()

TERMINAL_EVERY_S = 0.5
LOG_EVERY_S = 10.0

ReadCounts = Callable[[], Awaitable[Counts]]


async def show(
    read_counts: ReadCounts,
    counters: Counters,
    limits: Limits,
    is_feeding: Callable[[], bool],
) -> None:
    """Show the progress on standard error until cancelled."""
    if is_drawable(sys.stderr):
        await _on_terminal(read_counts, counters, limits, is_feeding)
    else:
        await _in_log(read_counts, counters, limits)


async def _on_terminal(
    read_counts: ReadCounts,
    counters: Counters,
    limits: Limits,
    is_feeding: Callable[[], bool],
) -> None:
    from rich.console import Console  # noqa: PLC0415 - paid only where there is a terminal
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("importing", total=None, detail="")
        calls, loop = 0, asyncio.get_running_loop()
        since_s = loop.time()
        while True:
            counts = await read_counts()
            now_s = loop.time()
            rate = (counters.calls - calls) / max(now_s - since_s, 1e-9)
            calls, since_s = counters.calls, now_s
            progress.update(
                task,
                description="reading and importing" if is_feeding() else "importing",
                total=counts.read,
                completed=counts.read - counts.queued,
                detail=f"{_speed(rate, limits)}, dead {counts.dead}",
            )
            await asyncio.sleep(TERMINAL_EVERY_S)


def _speed(calls_per_s: float, limits: Limits) -> str:
    if limits.is_probing:
        return f"outage for {limits.probing_for_s:.0f} s, single calls only"
    allowed = f" of {limits.rate_per_s:.0f}" if limits.rate_per_s else ""
    return f"{calls_per_s:.0f}{allowed} calls/s"


async def _in_log(read_counts: ReadCounts, counters: Counters, limits: Limits) -> None:
    while True:
        await asyncio.sleep(LOG_EVERY_S)
        log_progress(await read_counts(), counters, limits)


def log_progress(counts: Counts, counters: Counters, limits: Limits) -> None:
    """Log where all records are and how fast calls are made."""
    log.info(
        "progress",
        read=counts.read,
        **counts.places(),
        calls=counters.calls,
        throttled=counters.throttled,
        rate_in_force=round(limits.rate_per_s, 1),
        **({"probing_for_s": round(limits.probing_for_s)} if limits.is_probing else {}),
    )
