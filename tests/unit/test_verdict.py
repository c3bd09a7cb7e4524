"""What each reply means, over every code and every history."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rules.codes import ADMIN_WITHOUT_ACCOUNT, CODES, Action, lookup
from worker.rules.outcome import Already, History, Reason
from worker.rules.topic.identity import Origin
from worker.rules.topic.topic import Topic
from worker.rules.verdict import (
    Circumstances,
    Compare,
    Halt,
    HoldCommunity,
    Imported,
    Reject,
    Renew,
    Reply,
    Retry,
    SetupFault,
    Throttled,
    Verdict,
    decide,
)

ID = "@TGS#_a@TOPIC#_b"


def topic(origin: Origin = Origin.DERIVED, *, has_account: bool = False) -> Topic:
    topic_id = None if origin is Origin.NONE else ID
    return Topic(topic_id, origin, "@TGS#_a", "b", None, has_account, b"{}")


def answer(code: int) -> Reply:
    if code == 0:
        return Reply(status=200, code=0, topic_id=ID, action_status="OK")
    return Reply(status=200, code=code, action_status="FAIL")


AMBIGUOUS = {10002, 60008, 60013, 70169, 70202, 70500}
EXPECTED: dict[type, set[int]] = {
    Imported: {0},
    Retry: {
        10002, 10008, 20004, 20005, 60008, 60013, 60014, 70169, 70202, 70500, 80003, 80005,
        90992, 90994, 90995, 91000,
    },
    Throttled: {10006, 10023, 60007, 60011, 60018, 60019, 70050, 70114, 72010},
    Renew: {60004, 60005, 60025, 70001, 70003, 70005, 70052, 70101},
    Reject: {
        10004, 10005, 10007, 10010, 10011, 10015, 10016, 10018, 60003, 70206, 70399, 70402,
        80001, 80002, 80004, 80101, 90001, 90010, 93000, 110002, 110003, 110013,
    },
    HoldCommunity: {10037, 11000},
    Halt: {
        10003, 10012, 10019, 10026, 10036, 10058, 10059, 60002, 60006, 60009, 60010, 60012,
        60015, 60016, 60017, 60020, 60021, 60026, 60027, 60028, 70002, 70009, 70013, 70014,
        70016, 70020, 70051, 70107, 70398, 70403, 70404, 71000, 72000, 72001, 72002, 72011,
        72012, 90008, 90009, 90012, 90048,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "code"), [(kind, code) for kind, codes in EXPECTED.items() for code in sorted(codes)]
)
def test_every_documented_code_has_the_verdict_of_the_table(kind: type, code: int) -> None:
    decided = decide(answer(code), topic(), History())
    assert isinstance(decided, kind)
    if isinstance(decided, Retry):
        assert decided.ambiguous == (code in AMBIGUOUS)


def test_no_code_of_the_table_is_missing_above() -> None:
    assert set().union(*EXPECTED.values()) | {10021, 10025} == CODES.keys()


def test_every_code_says_what_it_means_and_what_to_do() -> None:
    assert all(entry.meaning and entry.hint for entry in CODES.values())


# The table of all histories: an ID in use, by whom the ID was chosen, whether an earlier attempt
# may have taken effect, and records.on_existing.
IN_USE: list[tuple[Origin, bool, bool, Imported | Reason | type[Compare]]] = [
    (Origin.DERIVED, False, False, Imported(Already.BEFORE)),
    (Origin.DERIVED, False, True, Imported(Already.BEFORE)),
    (Origin.DERIVED, True, False, Imported(Already.OWN)),
    (Origin.DERIVED, True, True, Imported(Already.OWN)),
    (Origin.GIVEN, False, False, Compare),
    (Origin.GIVEN, False, True, Imported(Already.BEFORE)),
    (Origin.GIVEN, True, False, Compare),
    (Origin.GIVEN, True, True, Compare),
    (Origin.NONE, False, False, Reason.REJECTED),
    (Origin.NONE, False, True, Reason.REJECTED),
    (Origin.NONE, True, False, Reason.REJECTED),
    (Origin.NONE, True, True, Reason.REJECTED),
]


@pytest.mark.parametrize("code", [10021, 10025])
@pytest.mark.parametrize(("origin", "may_exist", "skip", "expected"), IN_USE)
def test_an_id_in_use_is_ours_only_where_it_can_be_known(
    code: int,
    origin: Origin,
    *,
    may_exist: bool,
    skip: bool,
    expected: Imported | Reason | type[Compare],
) -> None:
    history = History(may_exist=may_exist)
    decided = decide(answer(code), topic(origin), history, Circumstances(skip_existing=skip))
    if isinstance(expected, Reason):
        assert isinstance(decided, Reject)
        assert decided.reason is expected
    elif isinstance(expected, Imported):
        assert decided == expected
    else:
        assert isinstance(decided, Compare)


def test_the_table_of_histories_is_whole() -> None:
    combinations = itertools.product(Origin, (False, True), (False, True))
    assert {row[:3] for row in IN_USE} == set(combinations)


EVENTS = {
    "ambiguous": Reply(failure="no answer in time", may_have_taken_effect=True),
    "internal error": answer(10002),
    "bad gateway": Reply(status=502, failure="HTTP 502", may_have_taken_effect=True),
    "throttled": answer(60007),
    "too many requests": Reply(status=429, failure="HTTP 429"),
    "renewed": answer(70001),
    "content check": answer(80005),
    "refused connection": Reply(failure="cannot connect"),
}
DOUBTFUL = {"ambiguous", "internal error", "bad gateway"}


def after(history: History, reply: Reply) -> History:
    decided = decide(reply, topic(), history)
    history = history.attempted(0.0)
    if isinstance(decided, Retry):
        return history.failed(ambiguous=decided.ambiguous)
    return history


@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=8), st.sampled_from(Origin))
def test_whatever_came_between_an_ambiguous_attempt_is_never_forgotten(
    events: list[str], origin: Origin
) -> None:
    history = History()
    for event in events:
        history = after(history, EVENTS[event])
    doubtful = bool(DOUBTFUL & set(events))
    assert history.may_exist == doubtful
    assert history.attempts == len(events)
    decided = decide(answer(10021), topic(origin), history)
    if origin is Origin.DERIVED:
        assert (decided == Imported(Already.OWN)) == doubtful
    if origin is Origin.GIVEN:
        assert isinstance(decided, Compare)


def test_a_call_cut_off_by_a_stop_may_have_taken_effect() -> None:
    assert History().cut_off().may_exist


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=200, code=0, topic_id=ID, action_status="FAIL"),
        Reply(status=200, code=0, topic_id=None, action_status="OK"),
        Reply(status=200, code=0, topic_id="@TGS#_a@TOPIC#_other", action_status="OK"),
    ],
)
def test_half_a_success_is_asked_about_again(reply: Reply) -> None:
    decided = decide(reply, topic(), History())
    assert isinstance(decided, Retry)
    assert decided.ambiguous


def test_a_topic_sent_without_id_takes_the_one_that_the_service_made() -> None:
    reply = Reply(status=200, code=0, topic_id="anything", action_status="OK")
    assert decide(reply, topic(Origin.NONE), History()) == Imported(made_id="anything")


def test_no_topics_is_this_community_s_fault_once_another_worked() -> None:
    assert isinstance(decide(answer(11000), topic(), History()), HoldCommunity)
    decided = decide(answer(11000), topic(), History(), Circumstances(anything_imported=True))
    assert isinstance(decided, Reject)


@pytest.mark.parametrize("anything_imported", [False, True])
def test_a_full_community_is_held_whatever_was_imported(*, anything_imported: bool) -> None:
    decided = decide(
        answer(10037), topic(), History(), Circumstances(anything_imported=anything_imported)
    )
    assert isinstance(decided, HoldCommunity)
    assert (decided.letter.reason, decided.letter.code) == (Reason.REJECTED, 10037)
    assert "buy more" in decided.letter.hint


@pytest.mark.parametrize("code", sorted(ADMIN_WITHOUT_ACCOUNT))
def test_an_account_not_imported_is_the_record_s_only_if_it_names_one(code: int) -> None:
    assert isinstance(decide(answer(code), topic(has_account=True), History()), Reject)
    without = decide(answer(code), topic(), History())
    assert isinstance(without, Halt)
    assert "app.admin" in without.message


def test_an_unknown_code_is_tried_again_and_one_of_the_signature_family_renews() -> None:
    unknown = decide(answer(123456), topic(), History())
    assert isinstance(unknown, Retry)
    assert unknown.ambiguous
    assert unknown.is_unknown
    assert lookup(123456).action is Action.UNKNOWN
    family = decide(answer(70346), topic(), History())
    assert isinstance(family, Renew)
    assert family.once
    assert not family.pauses_s


def test_an_unknown_code_of_the_access_layer_is_never_ambiguous() -> None:
    unknown = decide(answer(60999), topic(), History())
    assert isinstance(unknown, Retry)
    assert unknown.is_unknown
    assert not unknown.ambiguous
    assert not unknown.no_record_s_fault


def test_the_message_of_the_service_goes_before_our_own() -> None:
    said = decide(Reply(status=200, code=10004, info="TopicName too long"), topic(), History())
    assert isinstance(said, Reject)
    assert said.message == "TopicName too long"


def test_a_reply_without_any_failure_text_says_its_status() -> None:
    decided = decide(Reply(status=503), topic(), History())
    assert isinstance(decided, Retry)
    assert decided.message == "HTTP 503"


def test_429_pauses_for_as_long_as_it_asks() -> None:
    asked = decide(Reply(status=429, retry_after_s=17.0), topic(), History())
    assert isinstance(asked, Throttled)
    assert asked.pauses_s == (17.0,)
    silent = decide(Reply(status=429), topic(), History())
    assert isinstance(silent, Throttled)
    assert silent.pauses_s == (1.0, 2.0, 4.0, 8.0)


def test_503_delays_its_record_for_as_long_as_it_asks() -> None:
    decided = decide(Reply(status=503, retry_after_s=17.0), topic(), History())
    assert isinstance(decided, Retry)
    assert decided.wait_s == 17.0
    assert decided.setup_fault is None


def setup_fault(reply: Reply) -> SetupFault | None:
    decided: Verdict = decide(reply, topic(), History())
    assert isinstance(decided, Retry)
    return decided.setup_fault


@pytest.mark.parametrize("status", [400, 403, 404, 499, 501])
def test_statuses_of_nobody_who_imports_show_a_wrong_address(status: int) -> None:
    assert setup_fault(Reply(status=status)) is SetupFault.ADDRESS


@pytest.mark.parametrize("status", [200, 301, 408, 500, 502, 503])
def test_statuses_that_pass_show_no_wrong_address(status: int) -> None:
    assert setup_fault(Reply(status=status)) is None


def test_a_certificate_that_is_not_trusted_is_passed_on() -> None:
    reply = Reply(failure="not trusted", setup_fault=SetupFault.CERTIFICATE)
    assert setup_fault(reply) is SetupFault.CERTIFICATE
