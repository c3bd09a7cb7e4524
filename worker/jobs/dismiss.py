"""Give dead letters up: they are counted, kept in `dismissed.jsonl`, and in nobody's way."""

from pathlib import Path

from worker.jobs import Exit, UsageError, print_result
from worker.jobs.engine import Choice
from worker.jobs.letters_shown import show_letter
from worker.jobs.opening import choose_engine
from worker.outputs.report import sums
from worker.settings.model import Settings


async def dismiss(settings: Settings, choice: Choice, out: Path, *, dry_run: bool) -> Exit:
    """Dismiss the chosen dead letters and queued records; `dry_run`: list and count them only.

    Returns PROBLEMS if none matched. Raises UsageError if nothing is chosen or there is no job,
    QueueTakenError while another process takes from the embedded queue, QueueError if the queue
    cannot be used.
    """
    if choice.is_empty:
        raise UsageError("name what to dismiss: --reason, --code, --group or --source")
    show = show_letter if dry_run else lambda _: None
    done = await choose_engine(settings, out).dismiss(choice, dry_run=dry_run, show=show)
    n = done.letters + done.queued
    verb = "would be dismissed" if dry_run else "dismissed"
    lines = [f"{n:,} records {verb}: {done.letters:,} dead letters, {done.queued:,} queued"]
    if not n:
        lines = ["no record matched"]
    if done.taken:
        lines.append(
            f"{done.taken:,} more are in the hands of a process that imports, and stay: dismiss "
            "them once it has ended"
        )
    print_result(*lines, *sums(done.counts))
    return Exit.DONE if n else Exit.PROBLEMS
