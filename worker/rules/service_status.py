"""What monitors read of a running service: its state, why it is not ready, facts for people.

Pure functions of a snapshot. The order of the reasons is the order in which a person needs them.
"""

from dataclasses import dataclass
from enum import StrEnum

from worker.rules.counts import Counts, balance
from worker.rules.verdict import Halt

HELD_SHOWN = 5


class State(StrEnum):
    """What a service does; the label of the metric `topic_import_health`."""

    RUN = "run"
    PROBE = "probe"
    HALT = "halt"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a service knows of itself at one moment.

    - `is_open`: the queue and the quota are open, and records are being imported.
    - `queue_trouble`, `queue_away`: why the open queue cannot be used, or why no queue can be
      opened.
    - `counts`: None while the queue was never read.
    - `held`: communities whose records wait.
    - `calling`, `backing_off`: records whose call is open, and that wait for their next attempt.
    - `outcomes_waiting`: outcomes that are not in the queue yet.
    - `rate_per_s`: calls a second that the quota allows now; None while there is no quota.
    - `quota_gives_turns`: by the quota itself, or by its fallback (`rate.replicas`).
    - `probing_for_s`: for how long only single calls have gone out; None while all may.
    - `drain_left_s`: seconds that calls in flight still have; None while no stop was asked for.
    """

    is_open: bool = False
    halt: Halt | None = None
    queue_away: str | None = None
    queue_trouble: str | None = None
    quota_gives_turns: bool = True
    probing_for_s: float | None = None
    drain_left_s: float | None = None
    counts: Counts | None = None
    oldest_age_s: float = 0.0
    held: tuple[str, ...] = ()
    calling: int = 0
    backing_off: int = 0
    outcomes_waiting: int = 0
    calls: int = 0
    throttled: int = 0
    rate_per_s: float | None = None


def state(now: Snapshot) -> State:
    """Return what the service does now."""
    if now.drain_left_s is not None:
        return State.DRAIN
    if now.halt:
        return State.HALT
    return State.RUN if now.probing_for_s is None else State.PROBE


def reason_not_ready(now: Snapshot) -> str | None:
    """Return why the service imports nothing now; None if it is ready."""
    if now.drain_left_s is not None:
        return drain_sentence(now)
    if now.halt:
        return f"halted ({now.halt.code}): {now.halt.message}"
    if now.queue_away:
        return f"queue: {now.queue_away}"
    if not now.is_open:
        return "starting: the queue is being opened"
    if now.queue_trouble:
        return f"queue: {now.queue_trouble}"
    if not now.quota_gives_turns:
        return "quota: the Redis of rate.shared cannot be used"
    if now.probing_for_s is not None:
        return (
            f"outage: calls have failed for {now.probing_for_s:.0f} s; single calls find out when "
            "the service is back"
        )
    return None


def drain_sentence(now: Snapshot) -> str:
    """Return what a service that was asked to stop still waits for."""
    sentence = (
        f"draining: {now.calling} in flight, {now.backing_off} waiting for retry, "
        f"{now.drain_left_s or 0.0:.0f} s left"
    )
    if not now.queue_trouble:
        return sentence
    return f"{sentence}; {now.outcomes_waiting} outcomes wait for the queue: {now.queue_trouble}"


def facts(now: Snapshot) -> dict[str, str]:
    """Return the facts of the status page, by their label."""
    return {
        "state": state(now),
        "records": balance(now.counts) if now.counts else "not known yet",
        "oldest in the queue": f"{now.oldest_age_s:.0f} s",
        "in flight": f"{now.calling}",
        "waiting for retry": f"{now.backing_off}",
        "held communities": _some(now.held),
        "calls": f"{now.calls:,}, {now.throttled:,} throttled",
        "rate in force": "none yet" if now.rate_per_s is None else f"{now.rate_per_s:.1f}/s",
    }


def _some(names: tuple[str, ...]) -> str:
    """Return the first of many names, and how many more there are."""
    if not names:
        return "none"
    more = f" and {len(names) - HELD_SHOWN:,} more" if len(names) > HELD_SHOWN else ""
    return ", ".join(names[:HELD_SHOWN]) + more
