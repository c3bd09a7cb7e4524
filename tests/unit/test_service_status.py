"""What monitors read of a service, from every kind of snapshot."""

from dataclasses import replace

import pytest

from worker.rules.counts import Counts
from worker.rules.service_status import (
    Snapshot,
    State,
    drain_sentence,
    facts,
    reason_not_ready,
    state,
)
from worker.rules.verdict import Halt

WORKING = Snapshot(is_open=True, counts=Counts(read=3, queued=1, imported=2), rate_per_s=198.0)
HALTED = Halt(70009, "the key is wrong")


def test_a_service_that_imports_is_ready() -> None:
    assert state(WORKING) is State.RUN
    assert reason_not_ready(WORKING) is None


@pytest.mark.parametrize(
    ("snapshot", "expected", "reason"),
    [
        (Snapshot(), State.RUN, "starting: the queue is being opened"),
        (replace(WORKING, halt=HALTED), State.HALT, "halted (70009): the key is wrong"),
        (Snapshot(queue_away="Redis: it is full"), State.RUN, "queue: Redis: it is full"),
        (replace(WORKING, queue_trouble="no room"), State.RUN, "queue: no room"),
        (replace(WORKING, quota_gives_turns=False), State.RUN, "quota: the Redis of rate.shared"),
        (replace(WORKING, probing_for_s=12.4), State.PROBE, "outage: "),
        (replace(WORKING, drain_left_s=7.6), State.DRAIN, "draining: 0 in flight"),
    ],
)
def test_a_service_says_why_it_is_not_ready(
    snapshot: Snapshot, expected: State, reason: str
) -> None:
    assert state(snapshot) is expected
    assert (reason_not_ready(snapshot) or "").startswith(reason)


def test_a_stop_is_named_before_a_halt_and_a_halt_before_an_outage() -> None:
    probing = replace(WORKING, probing_for_s=1.0, queue_trouble="no room")
    halted = replace(probing, halt=HALTED)
    stopping = replace(halted, drain_left_s=30.0)
    assert state(probing) is State.PROBE
    assert state(halted) is State.HALT
    assert state(stopping) is State.DRAIN
    assert (reason_not_ready(halted) or "").startswith("halted")
    assert (reason_not_ready(stopping) or "").startswith("draining")


def test_the_drain_sentence_names_what_is_waited_for() -> None:
    draining = replace(WORKING, drain_left_s=18.2, calling=37, backing_off=12, outcomes_waiting=5)
    sentence = "draining: 37 in flight, 12 waiting for retry, 18 s left"
    assert drain_sentence(draining) == sentence
    away = replace(draining, queue_trouble="Redis: it does not answer")
    assert drain_sentence(away) == (
        f"{sentence}; 5 outcomes wait for the queue: Redis: it does not answer"
    )


def test_the_facts_of_the_status_page_are_for_people() -> None:
    assert facts(replace(WORKING, oldest_age_s=61.3, calls=1200, throttled=3)) == {
        "state": "run",
        "records": "read 3 = queued 1 + imported 2 + dead 0 + duplicate 0",
        "oldest in the queue": "61 s",
        "in flight": "0",
        "waiting for retry": "0",
        "held communities": "none",
        "calls": "1,200, 3 throttled",
        "rate in force": "198.0/s",
    }
    unknown = facts(Snapshot())
    assert (unknown["records"], unknown["rate in force"]) == ("not known yet", "none yet")


def test_the_first_held_communities_are_named_and_the_others_counted() -> None:
    few = facts(replace(WORKING, held=("a", "b")))
    assert few["held communities"] == "a, b"
    many = facts(replace(WORKING, held=tuple("abcdefgh")))
    assert many["held communities"] == "a, b, c, d, e and 3 more"
