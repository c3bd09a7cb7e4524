"""What a job holds, by state, reason and code, and whether queue and files agree."""

from pathlib import Path
from typing import Any

import orjson

from worker.job_directory import DEAD_LETTER_NAME, IMPORTED_NAME, QUEUE_NAME
from worker.jobs import Exit, UsageError, parts, say
from worker.jobs.engines import redis_feed
from worker.outputs.report import sums
from worker.outputs.result_file import Agreement, compare
from worker.queues.directory_lock import taker_of
from worker.queues.sqlite.store import SqliteStore
from worker.rules.counts import Counts
from worker.settings.model import Settings


async def status(settings: Settings, out: Path, *, as_json: bool) -> Exit:
    """Tell what the queue that the settings name holds, beside its takers.

    Raises UsageError where there is no job, QueueError where the queue cannot be read.
    """
    url = parts.redis_url(settings, out)
    return await _distributed(url, as_json=as_json) if url else _embedded(out, as_json=as_json)


async def _distributed(url: str, *, as_json: bool) -> Exit:
    """Tell of the streams: what waits, who holds how much, what came of the rest."""
    queue = redis_feed(url)
    try:
        counts, lengths = await queue.look()
        consumers, unfinished = await queue.consumers(), await queue.unfinished_inputs()
        oldest_s = await queue.oldest_age_s()
    finally:
        await queue.close()
    agree = lengths["dead"] == counts.dead and not counts.lost
    if as_json:
        content = _counts_dict(counts) | {
            "pending": consumers,
            "streams": lengths,
            "lost": counts.lost,
            "oldest_s": round(oldest_s, 1),
            "unfinished_inputs": unfinished,
            "agree": agree,
        }
        say(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())
        return Exit.DONE if agree else Exit.PROBLEMS
    say(queue.name, *sums(counts))
    if counts.queued:
        say(f"the oldest has been in the queue for {oldest_s:.0f} s")
    for consumer, pending in consumers.items():
        say(f"{consumer} holds {pending:,}")
    if counts.lost:
        say("LOST: records that were taken, and that Redis no longer held when they were due")
    if lengths["dead"] != counts.dead:
        say(f"the stream of dead letters holds {lengths['dead']:,}, not {counts.dead:,}")
    for name in unfinished:
        say(f"{name} was not read to its end: give it again to go on with it")
    return Exit.DONE if agree else Exit.PROBLEMS


def _embedded(out: Path, *, as_json: bool) -> Exit:
    path = out / QUEUE_NAME
    if not path.exists():
        raise UsageError(parts.no_job(out))
    taker = taker_of(out)
    store = SqliteStore(path, read_only=True)
    try:
        kept, counted = store.counts(), store.counts_by_counting()
        files = {
            IMPORTED_NAME: _agreement(out / IMPORTED_NAME, store, "imported"),
            DEAD_LETTER_NAME: _agreement(out / DEAD_LETTER_NAME, store, "dead"),
        }
        if store.dead_file_is_stale() and files[DEAD_LETTER_NAME] is Agreement.OTHER:
            # Letters were replaced since it was written.
            files[DEAD_LETTER_NAME] = Agreement.SHORTER
        identity = store.identity()
        unfinished = store.unfinished_inputs()
    finally:
        store.close()
    # Beside a taker the counts move between two looks, and the files follow a moment later.
    counts_agree = counted.is_balanced and (taker is not None or kept == counted)
    files_agree = all(_is_fine(agreement, taker) for agreement in files.values())
    agree = counts_agree and files_agree
    if as_json:
        _print_json(identity, taker, counted, files, unfinished, agree=agree)
    else:
        _print_text(identity, taker, counted, files, counts_agree=counts_agree)
        for name in unfinished:
            say(f"{name} was not read to its end: give it again to go on with it")
    return Exit.DONE if agree else Exit.PROBLEMS


def _agreement(path: Path, store: SqliteStore, kind: Any) -> Agreement:
    rotated_seq = store.rotated(kind)
    return compare(path, lambda seq, count: store.lines(kind, seq, count), rotated_seq)[0]


def _is_fine(agreement: Agreement, taker: str | None) -> bool:
    return agreement is Agreement.AGREES or (
        taker is not None and agreement in {Agreement.SHORTER, Agreement.LONGER}
    )


def _print_json(
    identity: dict[str, str],
    taker: str | None,
    counts: Counts,
    files: dict[str, Agreement],
    unfinished: list[str],
    *,
    agree: bool,
) -> None:
    content = {
        "app": identity.get("app"),
        "taker": taker,
        **_counts_dict(counts),
        "files": {name: agreement.value for name, agreement in files.items()},
        "unfinished_inputs": unfinished,
        "agree": agree,
    }
    say(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())


def _counts_dict(counts: Counts) -> dict[str, Any]:
    return {
        "read": counts.read,
        "queued": counts.queued,
        "imported": counts.imported,
        "already_own": counts.already_own,
        "already_before": counts.already_before,
        "already_before_derived": counts.already_before_derived,
        "may_exist_twice": counts.may_exist_twice,
        "dead": counts.dead,
        "duplicate": counts.duplicate,
        "by_reason": counts.by_reason,
        "by_code": counts.by_code,
    }


_SAID = {
    Agreement.AGREES: "agrees with the queue",
    Agreement.SHORTER: "is behind the queue; the next run completes it",
    Agreement.LONGER: "holds more than the queue; the next run cuts it",
    Agreement.OTHER: "was edited; the next run sets it aside and writes it anew",
}


def _print_text(
    identity: dict[str, str],
    taker: str | None,
    counts: Counts,
    files: dict[str, Agreement],
    *,
    counts_agree: bool,
) -> None:
    say(f"job of app {identity.get('app', '?')}, {'running: ' + taker if taker else 'not running'}")
    for line in sums(counts):
        say(line)
    for name, agreement in files.items():
        say(f"{name} {_SAID[agreement]}")
    if not counts_agree:
        say("the kept counts are not those of the rows: a defect, please report it")
