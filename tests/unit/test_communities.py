"""What replies say about single communities, as values on a clock that the test advances."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rules import communities as rules
from worker.rules.codes import FULL, NO_GROUP, NO_PERMISSION, NO_TOPICS
from worker.rules.communities import (
    FAILING_MAX,
    GIVEN_UP_S,
    PROBE_PAUSES_S,
    REJECTED_IN_A_ROW,
    WRONG_COMMUNITIES_HALT,
    Communities,
    Trouble,
)
from worker.rules.outcome import Reason
from worker.rules.verdict import Halt, Reject

PATIENCE_S = 600.0
EXHAUSTED = Reject(Reason.EXHAUSTED, 10002, "internal error", "later")


def letter(code: int) -> Reject:
    return Reject(Reason.REJECTED, code, f"code {code}", "a hint")


def new(*, anything_imported: bool = False) -> Communities:
    return Communities(patience_s=PATIENCE_S, anything_imported=anything_imported)


def fail(communities: Communities, group: str, records: int = 2, *, at_s: float = 1.0) -> None:
    for record in range(records):
        communities.failed(group, record, EXHAUSTED, at_s)


def held(*groups: str, at_s: float = 1.0) -> Communities:
    """Return what is known where these are held and another was answered since."""
    communities = new()
    communities.imported("well", 100, started_s=0.0)
    for group in groups:
        fail(communities, group, FAILING_MAX, at_s=at_s)
    communities.imported("well", 101, started_s=at_s + 0.1)
    assert communities.held == set(groups)
    return communities


# ---- held for failures


def test_two_distinct_records_that_fail_beside_good_ones_hold_a_community() -> None:
    communities = new()
    communities.imported("well", 100, started_s=0.0)
    assert communities.failed("down", 1, EXHAUSTED, 1.0) == 1
    assert communities.failed("down", 1, EXHAUSTED, 1.5) == 1, "the same record once more"
    assert not communities.is_held("down")
    assert communities.failed("down", 2, EXHAUSTED, 2.0) == 2
    assert communities.is_held("down")
    assert communities.troubles() == {"down": Trouble.FAILURES}


def test_a_proper_answer_between_holds_nothing() -> None:
    communities = new()
    for record in range(50):
        communities.failed("down", record, EXHAUSTED, 1.0)
        communities.answered("down", 100 + record, started_s=1.0)
    assert not communities.held


def test_where_all_fail_only_many_in_a_row_hold_a_community() -> None:
    communities = new()
    for record in range(FAILING_MAX - 1):
        for group in ("a", "b", "c"):
            communities.failed(group, hash((group, record)), EXHAUSTED, 1.0)
    assert not communities.held - {"a"}
    for group in ("a", "b", "c"):
        communities.failed(group, -1, EXHAUSTED, 1.0)
    assert communities.held == {"a", "b", "c"}


def test_where_half_of_all_fail_a_few_in_a_row_are_bad_luck() -> None:
    communities = new()
    for record in range(32):
        communities.failed(f"g{record}", record, EXHAUSTED, 1.0)
        communities.answered(f"h{record}", 1000 + record, started_s=1.0)
    for record in range(5):
        communities.failed("unlucky", 2000 + record, EXHAUSTED, 1.0)
    assert not communities.held
    for record in range(5, FAILING_MAX):
        communities.failed("unlucky", 2000 + record, EXHAUSTED, 1.0)
    assert communities.held == {"unlucky"}


def test_an_answer_of_a_call_from_before_opens_nothing() -> None:
    communities = held("down")
    communities.answered("down", 50, started_s=0.9)
    assert communities.is_held("down")
    communities.answered("down", 50, started_s=1.1)
    assert not communities.held


def test_several_communities_fail_together_until_anybody_is_answered() -> None:
    communities = new()
    fail(communities, "a")
    assert not communities.fails_with_others("a")
    fail(communities, "b")
    fail(communities, "c")
    assert communities.fails_with_others("a")
    communities.answered("well", 9, started_s=0.0)
    assert not communities.fails_with_others("a")


def test_communities_that_fail_alone_do_not_fail_together() -> None:
    communities = held("one", "two")
    fail(communities, "one", at_s=2.0)
    fail(communities, "two", at_s=2.0)
    assert not communities.fails_with_others("one")
    assert communities.fails_with_others("a third")


def test_the_share_of_failing_others_leaves_the_record_itself_out() -> None:
    communities = new()
    assert communities.failing_beside(1) == 0.0
    communities.failed("a", 1, EXHAUSTED, 1.0)
    assert communities.failing_beside(1) == 0.0
    communities.failed("a", 2, EXHAUSTED, 1.0)
    communities.answered("a", 3, started_s=1.0)
    assert communities.failing_beside(1) == 0.5


# ---- probes


def test_probes_of_a_held_community_come_at_growing_pauses() -> None:
    communities, now_s = held("down", at_s=0.0), 0.0
    starts: list[float] = []
    while now_s < 200.0:
        wait_s = communities.next_due_s(now_s)
        assert wait_s is not None
        now_s += wait_s
        assert communities.due(now_s) == ["down"]
        starts.append(now_s)
        communities.probe_started("down", now_s)
        assert communities.due(now_s + 100.0) == [], "one at a time"
        communities.probe_ended("down")
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert starts[0] == PROBE_PAUSES_S[0]
    assert pauses[: len(PROBE_PAUSES_S)] == pytest.approx(PROBE_PAUSES_S)
    assert set(pauses[len(PROBE_PAUSES_S) :]) == {PROBE_PAUSES_S[-1]}
    assert all(pause_s >= 0.5 for pause_s in pauses), "at most two calls a second"


def test_a_community_that_nobody_knows_changes_nothing() -> None:
    communities = new()
    communities.open("nobody")
    communities.probe_ended("nobody")
    assert communities.due(1e9) == []
    assert communities.next_due_s(0.0) is None


def test_in_an_outage_the_one_asked_longest_ago_probes_next() -> None:
    communities = new()
    assert communities.asked_longest_ago() is None
    communities.failed_in_outage("a", 1.0)
    communities.failed_in_outage("b", 2.0)
    communities.failed_in_outage("a", 3.0)
    assert communities.asked_longest_ago() == "a"
    communities.probe_started("a", 3.0)
    assert communities.asked_longest_ago() == "b"
    communities.probe_ended("a")
    communities.probe_started("b", 4.0)
    assert communities.asked_longest_ago() == "a"


def test_after_an_outage_all_that_failed_in_it_are_probed_at_once() -> None:
    communities = held("down", at_s=0.0)
    communities.failed_in_outage("a", 1.0)
    communities.exceeded(Trouble.FULL, "full", letter(FULL), 1.0, started_s=0.9)
    communities.outage_ended(100.0)
    assert set(communities.due(100.0)) == {"down", "a"}


# ---- patience


def test_patience_ends_while_others_are_answered_and_the_community_is_open_again() -> None:
    communities = held("down")
    assert communities.expired(1.0 + PATIENCE_S - 0.1) == []
    assert communities.expired(1.0 + PATIENCE_S) == ["down"]
    assert not communities.held
    given_up = communities.answer_without_call("down", 1e9)
    assert given_up is not None
    assert (given_up.reason, given_up.code) == (Reason.EXHAUSTED, 10002)
    assert "retry.patience" in given_up.message
    communities.open("down")
    assert communities.answer_without_call("down", 1e9) is None


def test_patience_does_not_end_where_nobody_else_was_answered_since() -> None:
    communities = new()
    communities.imported("well", 100, started_s=0.0)
    fail(communities, "down")
    assert communities.has_unconfirmed
    assert communities.expired(1e9) == []
    communities.answered("well", 101, started_s=2.0)
    assert not communities.has_unconfirmed
    assert communities.expired(1e9) == ["down"]


def test_its_own_answers_confirm_no_community() -> None:
    communities = new()
    fail(communities, "down", FAILING_MAX)
    communities.answered("down", 50, started_s=0.5)
    assert communities.has_unconfirmed


def test_an_outage_uses_up_no_patience() -> None:
    communities = held("down")
    communities.failed_in_outage("a", 100.0)
    assert communities.is_outage
    assert communities.expired(1000.0) == []
    communities.outage_ended(1000.0)
    communities.answered("well", 101, started_s=1000.1)
    assert communities.expired(1e9) == [], "it did not fail since"
    communities.failed("down", 1, EXHAUSTED, 1001.0)
    communities.answered("well", 102, started_s=1001.1)
    assert communities.expired(999.9 + PATIENCE_S) == []
    assert communities.expired(1000.0 + PATIENCE_S) == ["down"]


# ---- full, or without topics


def full(communities: Communities, group: str, at_s: float) -> Halt | Reject | None:
    return communities.exceeded(Trouble.FULL, group, letter(FULL), at_s, started_s=at_s - 0.1)


def test_a_full_community_is_held_until_another_is_imported_into() -> None:
    communities = new()
    assert full(communities, "full", 1.0) is None
    assert communities.due(1e9) == []
    communities.imported("full", 1, started_s=0.5)
    communities.imported("well", 2, started_s=0.9)
    assert communities.due(1e9) == [], "that call was under way"
    communities.imported("well", 2, started_s=1.1)
    assert communities.due(2.0) == ["full"]


def test_a_full_community_is_given_up_when_its_probe_says_so_after_an_import() -> None:
    communities = new()
    full(communities, "full", 1.0)
    assert full(communities, "full", 1.1) is None, "under way, no probe"
    communities.imported("well", 2, started_s=1.2)
    assert full(communities, "full", 1.4) is None, "no probe either"
    communities.probe_started("full", 2.0)
    assert full(communities, "full", 2.2) == letter(FULL)
    given_up = communities.answer_without_call("full", 3.0)
    assert given_up is not None
    assert "without a call" in given_up.message
    assert given_up.hint == letter(FULL).hint


def test_a_second_full_community_with_no_import_between_halts() -> None:
    communities = new()
    communities.imported("well", 1, started_s=0.0)
    full(communities, "one", 1.0)
    assert full(communities, "two", 1.05) is None, "its call was under way"
    halt = full(communities, "three", 2.0)
    assert isinstance(halt, Halt)
    assert halt.code == FULL


def test_a_second_full_community_after_an_import_is_held_too() -> None:
    communities = new()
    full(communities, "one", 1.0)
    communities.imported("well", 1, started_s=1.1)
    assert full(communities, "two", 2.0) is None
    assert communities.held == {"one", "two"}


def test_nothing_left_to_compare_halts_only_for_those_that_others_must_judge() -> None:
    communities = held("down")
    assert communities.nothing_left_to_compare() is None
    full(communities, "full", 2.0)
    halt = communities.nothing_left_to_compare()
    assert halt is not None
    assert halt.code == FULL
    communities.imported("well", 9, started_s=3.0)
    assert communities.nothing_left_to_compare() is None


def no_topics(communities: Communities, group: str, at_s: float) -> Halt | Reject | None:
    return communities.exceeded(
        Trouble.NO_TOPICS, group, letter(NO_TOPICS), at_s, started_s=at_s - 0.1
    )


def test_the_first_import_opens_what_was_held_for_want_of_topics() -> None:
    communities = new()
    assert no_topics(communities, "none", 1.0) is None
    full(communities, "full", 1.0)
    communities.imported("well", 1, started_s=0.5)
    assert communities.held == {"full"}


def test_two_communities_without_topics_halt_where_nothing_was_imported() -> None:
    communities = new()
    no_topics(communities, "one", 1.0)
    assert isinstance(no_topics(communities, "two", 2.0), Halt)
    communities = new(anything_imported=True)
    no_topics(communities, "one", 1.0)
    assert no_topics(communities, "two", 2.0) is None


# ---- not there


def reject(
    communities: Communities,
    group: str,
    code: int = NO_GROUP,
    *,
    at_s: float = 1.0,
    was_imported_into: bool = False,
) -> Halt | None:
    return communities.rejected(letter(code), group, at_s, was_imported_into=was_imported_into)


def test_three_in_a_row_give_a_missing_community_up_for_a_minute() -> None:
    communities = new()
    for count in range(REJECTED_IN_A_ROW):
        assert not communities.is_given_up("missing", 1.0), count
        reject(communities, "missing")
    assert communities.is_given_up("missing", 1.0)
    given_up = communities.answer_without_call("missing", 1.0)
    assert given_up is not None
    assert given_up.code == NO_GROUP
    assert "without a call" in given_up.message
    later_s = 1.0 + GIVEN_UP_S
    assert communities.answer_without_call("missing", later_s) is None, "one asks again"
    assert communities.answer_without_call("missing", later_s) is not None, "and no other"
    communities.imported("missing", 1, started_s=later_s)
    assert communities.answer_without_call("missing", later_s) is None
    assert not communities.is_given_up("missing", later_s)


def test_another_code_between_gives_no_community_up() -> None:
    communities = new()
    for code in (NO_GROUP, NO_GROUP, 10015, NO_GROUP, NO_GROUP, 10004, NO_GROUP, NO_GROUP):
        reject(communities, "a", code)
        assert communities.answer_without_call("a", 1.0) is None
    reject(communities, "nobody knows it", 10004)


def test_a_record_s_own_rejection_shows_that_the_community_is_there() -> None:
    communities = new()
    for _ in range(REJECTED_IN_A_ROW):
        reject(communities, "a")
    reject(communities, "a", 10004)
    assert communities.answer_without_call("a", 1.0) is None


def test_a_community_that_was_imported_into_is_never_given_up() -> None:
    communities = new()
    communities.imported("here", 1, started_s=0.0)
    for _ in range(10):
        reject(communities, "here")
        reject(communities, "queue", was_imported_into=True)
    assert communities.answer_without_call("here", 1.0) is None
    assert communities.answer_without_call("queue", 1.0) is None


def test_twenty_missing_communities_halt_where_nothing_was_imported() -> None:
    communities = new()
    halts = [reject(communities, f"g{n}") for n in range(WRONG_COMMUNITIES_HALT)]
    assert halts[:-1] == [None] * (WRONG_COMMUNITIES_HALT - 1)
    assert isinstance(halts[-1], Halt)
    assert "app.region" in halts[-1].message
    well = new(anything_imported=True)
    assert not any(reject(well, f"g{n}") for n in range(3 * WRONG_COMMUNITIES_HALT))


def test_a_rejection_of_another_kind_begins_the_row_of_missing_ones_anew() -> None:
    communities = new()
    for n in range(3 * WRONG_COMMUNITIES_HALT):
        assert reject(communities, f"g{n}", 10004 if n % 10 == 9 else NO_GROUP) is None


def test_no_permission_for_two_communities_halts_where_nothing_was_imported() -> None:
    communities = new()
    assert reject(communities, "a", NO_PERMISSION) is None
    assert reject(communities, "a", NO_PERMISSION) is None
    halt = reject(communities, "b", NO_PERMISSION)
    assert halt is not None
    assert "app.admin" in halt.message
    communities.imported("c", 1, started_s=0.0)
    assert reject(communities, "d", NO_PERMISSION) is None


# ---- bounds


def test_what_is_remembered_is_bounded_and_open_communities_go_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "TRACKED_MAX", 20)
    communities = held("down")
    for n in range(30):
        communities.failed(f"g{n}", 1, EXHAUSTED, 2.0)
        communities.answered("well", 2, started_s=2.0)
    assert communities.held == {"down"}
    for n in range(30):
        communities.failed_in_outage(f"h{n}", 3.0)
    assert len(communities.held) == 20
    assert communities.is_held("down"), "where all are held no other is remembered"


def test_communities_imported_into_are_remembered_within_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "IMPORTED_KEPT_MAX", 20)
    communities = new()
    for n in range(21):
        communities.imported(f"g{n}", n, started_s=0.0)
    for group in ("g0", "g20"):
        for _ in range(REJECTED_IN_A_ROW):
            reject(communities, group)
    assert communities.is_given_up("g0", 1.0), "forgotten"
    assert not communities.is_given_up("g20", 1.0)


def test_the_state_can_be_read_off() -> None:
    communities = held("down")
    for _ in range(REJECTED_IN_A_ROW):
        reject(communities, "missing")
    assert repr(communities) == "<Communities 1 held, 1 given up>"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100)), max_size=30))
def test_the_latest_call_beside_a_community_is_known_in_any_order(
    calls: list[tuple[str, float]],
) -> None:
    communities = new()
    for group, started_s in calls:
        communities.answered(group, 1, started_s=started_s)
    for group in "abc":
        expected = max((at for other, at in calls if other != group), default=float("-inf"))
        assert communities._answered.started_beside_s(group) == expected
