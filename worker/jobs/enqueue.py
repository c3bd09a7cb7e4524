"""Put the records of files into the queue; run again, it continues and adds nothing twice."""

import asyncio
import shlex
from contextlib import suppress
from pathlib import Path

from worker.intake.sources import InputError, Source
from worker.jobs import Exit, UsageError, print_result
from worker.jobs.engine import GiveUp
from worker.jobs.feeding import Feeder, PutQueue, resolve_inputs, stayed_lines
from worker.jobs.from_settings import record_rules
from worker.jobs.opening import choose_engine
from worker.jobs.signals import stop_signals
from worker.outputs.report import skipped_line, sums
from worker.queues.contract import QueueError
from worker.rules.record import Record
from worker.rules.surroundings import Surroundings
from worker.rules.topic.problems import InvalidRecordError
from worker.settings.model import Settings


class _CountingQueue:
    """The queue that is fed, with counts of what this command put."""

    def __init__(self, queue: PutQueue) -> None:
        self._queue = queue
        self.read = self.new = self.invalid = 0

    async def mark_input(self, path: str, *, unfinished: bool) -> None:
        await self._queue.mark_input(path, unfinished=unfinished)

    async def surroundings(self, records: list[Record]) -> list[Surroundings]:
        return await self._queue.surroundings(records)

    async def put(self, records: list[Record]) -> int:
        new = await self._queue.put(records)
        self.read += len(records)
        self.new += new
        self.invalid += sum(isinstance(record.topic, InvalidRecordError) for record in records)
        return new


async def enqueue(settings: Settings, inputs: list[str], out: Path) -> Exit:
    """Put all records of the inputs into the queue that the settings name.

    Raises UsageError or JobMismatchError if nothing was started, QueueError if the queue cannot be
    used.
    """
    sources = resolve_inputs(inputs, settings.records)
    if settings.app.sdk_app_id is None:
        raise UsageError(
            "app.sdk_app_id is not set, and a queue belongs to one app: set it, for example as "
            "TOPIC_IMPORT_APP__SDK_APP_ID"
        )
    sums_of_queue: list[str] = []
    async with choose_engine(settings, out).open_feed() as opened:
        counting = _CountingQueue(opened.queue)
        feeder, exit_code = await _feed(settings, sources, counting, opened.give_up)
        with suppress(QueueError):
            sums_of_queue = sums(await opened.queue.counts())
    print_result(
        f"{counting.read:,} records read: {counting.new:,} new, "
        f"{counting.read - counting.new:,} read before; {counting.invalid:,} invalid",
        *sums_of_queue,
        *stayed_lines(feeder.stayed.values(), out),
        *([skipped_line(feeder.skipped)] if feeder.skipped else []),
    )
    if counting.invalid:
        print_result(
            "what is wrong with the invalid ones: topic-import check " + shlex.join(inputs)
        )
    if exit_code:
        print_result("the inputs were not read to their end: the same command goes on with them")
    # A queue that was given up at a signal did not fail.
    failure = None if exit_code else feeder.failure
    if isinstance(failure, (InputError, QueueError)):
        print_result(f"STOPPED: {failure}", "the same command continues")
        return Exit.HALTED
    if failure:
        raise failure
    return exit_code or (Exit.SOME_DEAD if counting.invalid else Exit.DONE)


async def _feed(
    settings: Settings, sources: list[Source], queue: PutQueue, give_up: GiveUp
) -> tuple[Feeder, Exit | None]:
    """Feed the queue until the sources end or a stop is asked for.

    Returns what fed it, and the exit code of a stop, None without one.
    """
    ended = asyncio.Event()
    feeder = Feeder(
        queue,
        sources,
        record_rules(settings),
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
    return feeder, request.exit
