"""What people see while it runs: one line on a terminal, a log line now and then elsewhere."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from worker.outcome import Counts
from worker.telemetry import Counters, logger

log = logger()

TERMINAL_EVERY_S = 0.5
LOG_EVERY_S = 10.0

ReadCounts = Callable[[], Awaitable[Counts]]


async def show(read_counts: ReadCounts, counters: Counters, is_feeding: Callable[[], bool]) -> None:
    """Show progress on standard error until cancelled."""
    if sys.stderr.isatty():
        await _on_terminal(read_counts, counters, is_feeding)
    else:
        await _in_log(read_counts, counters)


async def _on_terminal(
    read_counts: ReadCounts, counters: Counters, is_feeding: Callable[[], bool]
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
                detail=f"{rate:.0f} calls/s, dead {counts.dead}",
            )
            await asyncio.sleep(TERMINAL_EVERY_S)


async def _in_log(read_counts: ReadCounts, counters: Counters) -> None:
    while True:
        await asyncio.sleep(LOG_EVERY_S)
        counts = await read_counts()
        log.info(
            "progress",
            read=counts.read,
            queued=counts.queued,
            imported=counts.imported,
            dead=counts.dead,
            duplicate=counts.duplicate,
            calls=counters.calls,
            throttled=counters.throttled,
        )
