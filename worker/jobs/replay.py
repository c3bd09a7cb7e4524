"""Put dead letters back into the queue after a fix."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from worker.intake.formats.json_lines import Line
from worker.intake.reader import read
from worker.job_directory import DEAD_LETTER_NAME, QUEUE_NAME
from worker.jobs import Exit, UsageError, parts, say
from worker.jobs.engines import redis_feed
from worker.outputs.report import sums
from worker.queues.contract import QueueTakenError
from worker.queues.directory_lock import DirectoryLock
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import Counts
from worker.rules.record import Record, content_hash
from worker.settings.model import Settings

PAGE = 500


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters: those that match all that is given."""

    reason: str | None = None
    code: int | None = None
    group: str | None = None

    def matches(self, line: bytes) -> bool:
        letter: dict[str, Any] = orjson.loads(line)
        if "reason" not in letter:
            return False  # nothing of ours
        wanted = {"reason": self.reason, "code": self.code, "group_id": self.group}
        return all(letter.get(name) == value for name, value in wanted.items() if value is not None)


async def replay(settings: Settings, choice: Choice, out: Path) -> Exit:
    """Put the chosen dead letters back, with their TopicIds and doubts.

    Raises UsageError where there is no job, QueueError where the queue cannot be used.
    """
    url = parts.redis_url(settings, out)
    if url:
        matched, replayed, counts = await _replay_distributed(settings, choice, url)
    else:
        matched, replayed, counts = _replay_embedded(settings, choice, out)
    if not matched:
        say("no dead letter matched", *sums(counts))
        return Exit.PROBLEMS
    said = f"{replayed:,} dead letters put back into the queue"
    if replayed < matched:
        why = "somebody else did" if url else "cannot be: they are invalid still"
        said += f", {matched - replayed:,} {why}"
    say(said, *sums(counts))
    return Exit.DONE


async def _replay_distributed(
    settings: Settings, choice: Choice, url: str
) -> tuple[int, int, Counts]:
    queue = redis_feed(url, is_patient=False)
    try:
        await queue.open(parts.job_identity(settings))
        matched = replayed = 0
        async for page in queue.letters():
            chosen = [letter for letter in page if choice.matches(letter[1])]
            matched += len(chosen)
            replayed += await queue.requeue(chosen) if chosen else 0
        return matched, replayed, await queue.counts()
    finally:
        await queue.close()


def _replay_embedded(settings: Settings, choice: Choice, out: Path) -> tuple[int, int, Counts]:
    path = out / QUEUE_NAME
    if not path.exists():
        raise UsageError(parts.no_job(out))
    is_alone, files = False, None
    with ExitStack() as held:
        with suppress(QueueTakenError):  # then its taker keeps the files
            held.callback(DirectoryLock(out).release)
            is_alone = True
        store = SqliteStore(path)
        held.callback(store.close)
        store.identify(parts.job_identity(settings))
        if is_alone:
            files = parts.ResultFiles(out, store)
            held.callback(files.close)
            files.reconcile([])
        matched = replayed = 0
        for records in _chosen(store, settings, choice, out):
            matched += len(records)
            replayed += store.requeue(records)
        if files:
            files.finish()
        return matched, replayed, store.counts()


def _chosen(
    store: SqliteStore, settings: Settings, choice: Choice, out: Path
) -> Iterator[list[Record]]:
    """Read the chosen dead letters of now as `backfill out/dead-letter.jsonl` would.

    Not those that come meanwhile: what is invalid still would be met again and never end.
    """
    name, rules = str(out / DEAD_LETTER_NAME), parts.record_rules(settings)
    seq, last_seq = 0, store.last_seq("dead")
    while seq < last_seq and (rows := store.lines("dead", seq, PAGE)):
        seq = rows[-1][0]
        lines = (line.rstrip() for n, line in rows if n <= last_seq and choice.matches(line))
        yield [read(name, Line(1, line, content_hash(line)), rules) for line in lines]
