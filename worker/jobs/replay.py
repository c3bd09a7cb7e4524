"""Put dead letters back into the queue after a fix."""

from pathlib import Path

from worker.jobs import Exit, print_result
from worker.jobs.engine import Choice
from worker.jobs.opening import choose_engine
from worker.outputs.report import sums
from worker.settings.model import Settings


async def replay(settings: Settings, choice: Choice, out: Path) -> Exit:
    """Put the chosen dead letters back, with their TopicIds and doubts.

    Returns PROBLEMS if none matched. Raises UsageError if there is no job, QueueError if the queue
    cannot be used.
    """
    done = await choose_engine(settings, out).replay(choice)
    if not done.matched:
        print_result("no dead letter matched", *sums(done.counts))
        return Exit.PROBLEMS
    line = f"{done.replayed:,} dead letters put back into the queue"
    if done.replayed < done.matched:
        line += f", {done.matched - done.replayed:,} {done.why_not}"
    print_result(line, *sums(done.counts))
    return Exit.DONE
