"""Put the records of files into the queue; run again: continue, add nothing twice."""

import asyncio
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from worker.intake.sources import InputError, Source
from worker.jobs import Exit, UsageError, parts, say
from worker.jobs.engines import redis_feed
from worker.jobs.feeding import Feeder, PutQueue
from worker.jobs.signals import stop_signals
from worker.outputs.report import sums
from worker.queues.contract import JobMismatchError, QueueError
from worker.queues.sqlite.queue import SqliteQueue
from worker.rules.counts import Counts
from worker.rules.record import Record
from worker.rules.topic.problems import InvalidRecordError
from worker.settings.model import Settings


@dataclass(frozen=True, slots=True)
class _Opened:
    """A queue to put into, its sums, and how to wait for it no longer."""

    queue: PutQueue
    counts: Callable[[], Awaitable[Counts]]
    give_up: Callable[[], None]


class _Counting:
    """The queue that is fed, with a count of what goes in."""

    def __init__(self, queue: PutQueue) -> None:
        self._queue = queue
        self.read = self.new = self.invalid = 0

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        await self._queue.mark_input(path, unfinished=unfinished)

    async def put(self, records: list[Record]) -> int:
        new = await self._queue.put(records)
        self.read += len(records)
        self.new += new
        self.invalid += sum(isinstance(record.topic, InvalidRecordError) for record in records)
        return new


async def enqueue(settings: Settings, inputs: list[str], out: Path) -> Exit:
    """Put all records of the inputs into the queue that the settings name.

    Raises UsageError where nothing was started, QueueError where the queue cannot be used.
    """
    sources = parts.resolve_inputs(inputs)
    if settings.app.sdk_app_id is None:
        raise UsageError(
            "app.sdk_app_id is not set, and a queue belongs to one app: set it, for example as "
            "TOPIC_IMPORT_APP__SDK_APP_ID"
        )
    async with _open(settings, out) as opened:
        counting = _Counting(opened.queue)
        failure, exit_code = await _feed(settings, sources, counting, opened.give_up)
        known: list[str] = []
        with suppress(QueueError):
            known = sums(await opened.counts())
    say(
        f"{counting.read:,} records read: {counting.new:,} new, "
        f"{counting.read - counting.new:,} read before; {counting.invalid:,} invalid",
        *known,
    )
    if counting.invalid:
        say("what is wrong with the invalid ones: topic-import check " + shlex.join(inputs))
    if exit_code:
        say("the inputs were not read to their end: the same command goes on with them")
    if isinstance(failure, (InputError, QueueError)):
        say(f"STOPPED: {failure}", "the same command continues")
        return Exit.HALTED
    if failure:
        raise failure
    return exit_code or (Exit.SOME_DEAD if counting.invalid else Exit.DONE)


@asynccontextmanager
async def _open(settings: Settings, out: Path) -> AsyncIterator[_Opened]:
    url, identity = parts.redis_url(settings, out), parts.job_identity(settings)
    if url:
        distributed = redis_feed(url)
        try:
            await distributed.open(identity)
            yield _Opened(distributed, distributed.counts, distributed.give_up)
        except JobMismatchError as error:
            raise UsageError(str(error)) from None
        finally:
            distributed.give_up()
            await distributed.close()
        return
    parts.prepare_directory(out)
    embedded = SqliteQueue(out)
    try:
        await embedded.run(lambda: embedded.store.identify(identity))
        yield _Opened(embedded, embedded.counts, lambda: None)
    except JobMismatchError as error:
        raise UsageError(str(error)) from None
    finally:
        embedded.close()


async def _feed(
    settings: Settings, sources: list[Source], queue: _Counting, give_up: Callable[[], None]
) -> tuple[Exception | None, Exit | None]:
    """Feed the queue to the end of the sources or to a stop; why it ended early, if it did."""
    ended = asyncio.Event()
    feeder = Feeder(
        queue,
        sources,
        parts.record_rules(settings),
        line_bytes_max=settings.records.max_line_bytes,
        on_change=lambda: ended.set() if not feeder.feeding else None,
    )

    def stop() -> None:
        feeder.stop()
        give_up()
        ended.set()

    with stop_signals(stop, stop) as request:
        feeder.start()
        await ended.wait()
    # What gave up at a signal did not fail.
    return None if request.exit else feeder.failure, request.exit
