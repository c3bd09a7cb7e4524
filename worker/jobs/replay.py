"""Put dead letters back into the queue after a fix."""

from pathlib import Path

from worker.jobs import Exit, print_result
from worker.jobs.engine import Choice
from worker.jobs.letters_shown import show_letter
from worker.jobs.next_command import next_command
from worker.jobs.opening import choose_engine
from worker.outputs.report import sums
from worker.settings.model import Settings


async def replay(settings: Settings, choice: Choice, out: Path, *, dry_run: bool) -> Exit:
    """Put the chosen dead letters back, with their TopicIds and doubts; `dry_run`: list them only.

    Returns PROBLEMS if none matched. Raises UsageError if there is no job, QueueError if the queue
    cannot be used.
    """
    engine = choose_engine(settings, out)
    show = show_letter if dry_run else lambda _: None
    done = await engine.replay(choice, dry_run=dry_run, show=show)
    if not done.matched:
        print_result("no dead letter matched", *sums(done.counts))
        return Exit.PROBLEMS
    verb = "would be put" if dry_run else "put"
    line = f"{done.replayed:,} dead letters {verb} back into the queue"
    if done.refused:
        line += f", {done.refused:,} are still invalid or in conflict"
    if others := done.matched - done.replayed - done.refused:
        line += f", {others:,} were put back by somebody else"
    print_result(line, *sums(done.counts))
    if done.counts.queued and not dry_run:
        command = next_command(engine.importing_command, out=out)
        print_result(f"import what is queued with: {command}")
    return Exit.DONE
