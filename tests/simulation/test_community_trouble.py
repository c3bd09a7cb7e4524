"""Trouble of one community, of the run, and of the app: what a small service makes of each."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.memory_queue import MemoryQueue
from tests.support.virtual_clock import VirtualLoop
from worker.credentials import SigningCredentials
from worker.delivery import Carrier
from worker.limits import Limits
from worker.pipeline import Bounds, Pipeline
from worker.quota.local import LocalQuota
from worker.rules.codes import ADMIN_WITHOUT_ACCOUNT
from worker.rules.counts import Counters
from worker.rules.health import Health
from worker.rules.outcome import DeadLetter, Imported, Reason
from worker.rules.retry import RetryPolicy
from worker.rules.topic.topic import RecordRules, to_topic
from worker.rules.usersig import Signature
from worker.rules.verdict import Reply
from worker.traffic import Traffic

APP, ADMIN, KEY = 1400000000, "administrator", "k" * 64
QUOTA_PER_S = 200
DAY_S = 86_400.0
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Called:
    """One call as the service saw it; `group`, `topic`: the names without their prefixes."""

    at_s: float
    group: str
    topic: str
    account: str


Answer = int | Reply
"""An ErrorCode, 0 for success, or a whole reply."""


class Chat:
    """A service that answers as a function of the call says."""

    def __init__(self, answer: Callable[[Called], Answer], latency_s: Callable[[], float]) -> None:
        self._answer = answer
        self._latency_s = latency_s
        self.calls: list[Called] = []

    async def import_topic(self, body: bytes, signature: Signature) -> Reply:
        call = Called(
            asyncio.get_running_loop().time(),
            _between(body, b'"GroupId":"@TGS#_'),
            _between(body, b'"TopicName":"'),
            _between(body, b'"From_Account":"'),
        )
        self.calls.append(call)
        await asyncio.sleep(self._latency_s())
        answer = self._answer(call)
        if isinstance(answer, Reply):
            return answer
        if answer:
            return Reply(status=200, code=answer, action_status="FAIL")
        topic_id = _between(body, b'"TopicId":"')
        return Reply(status=200, code=0, topic_id=topic_id, action_status="OK")

    def met(self, group: str) -> list[float]:
        """Return when a community was called."""
        return [call.at_s for call in self.calls if call.group == group]


def _between(body: bytes, begin: bytes) -> str:
    parts = body.split(begin)
    return parts[1].split(b'"')[0].decode() if len(parts) > 1 else ""


@dataclass
class Story:
    """What came of a job."""

    queue: MemoryQueue
    chat: Chat
    carrier: Carrier
    health: Health
    ended_s: float
    dead: dict[str, list[DeadLetter]] = field(default_factory=lambda: defaultdict(list))
    imported: Counter[str] = field(default_factory=Counter)

    @property
    def halted(self) -> int | str | None:
        return self.carrier.halted.code if self.carrier.halted else None

    def dead_of(self, group: str) -> Counter[tuple[Reason, int | None]]:
        return Counter((letter.reason, letter.code) for letter in self.dead[group])


Records = dict[str, Any] | tuple[str, int]
"""A whole record, or so many of a community."""


class Feed:
    """Puts records into a queue: some at once, some at their time."""

    def __init__(self, queue: MemoryQueue, later: dict[float, list[tuple[str, int]]]) -> None:
        self._queue = queue
        self._later = later
        self._names = iter(range(10**9))

    def put(self, records: Iterable[Records]) -> None:
        for record in records:
            if isinstance(record, dict):
                self._put(record)
            else:
                group, count = record
                for _ in range(count):
                    self._put({"GroupId": f"@TGS#_{group}"})

    def _put(self, fields: dict[str, Any]) -> None:
        self._queue.put(to_topic({"TopicName": str(next(self._names)), **fields}, RecordRules()))

    @property
    def is_feeding(self) -> bool:
        return bool(self._later)

    async def run(self, clock: Callable[[], float], pipeline: Pipeline) -> None:
        for at_s in sorted(self._later):
            await asyncio.sleep(at_s - clock())
            self.put(self._later.pop(at_s))
            pipeline.queue_was_fed()


def play(
    records: Iterable[Records],
    answer: Callable[[Called], Answer],
    *,
    latency_s: float | Callable[[], float] = 0.05,
    retry: RetryPolicy | None = None,
    later: dict[float, list[tuple[str, int]]] | None = None,
    until_s: float = DAY_S,
    is_service: bool = False,
    same_rejection: int = 0,
    slots: int = 1000,
    backing_off_max: int = 4000,
) -> Story:
    """Import records, those of `later` from their time on; stop after `until_s`."""
    loop, queue, traffic = VirtualLoop(), MemoryQueue(), Traffic()
    retry = retry or RetryPolicy(patience_s=PATIENCE_S)
    chat = Chat(answer, latency_s if callable(latency_s) else lambda: latency_s)
    feed = Feed(queue, dict(later or {}))
    feed.put(records)
    health = Health(retry, same_rejection=same_rejection, is_service=is_service)
    carrier = Carrier(
        chat=chat,
        credentials=SigningCredentials(APP, ADMIN, KEY, wall_clock=loop.time, clock=loop.time),
        limits=Limits(LocalQuota(QUOTA_PER_S, loop.time), slots, loop.time, health.breaker),
        traffic=traffic,
        health=health,
        retry=retry,
        counters=Counters(),
        clock=loop.time,
        wall_clock=loop.time,
        chance=random.Random(1).random,
    )
    pipeline = Pipeline(queue, carrier, traffic, Bounds(200, backing_off_max))

    async def story() -> float:
        feeder = asyncio.ensure_future(feed.run(loop.time, pipeline))
        loop.call_later(until_s, carrier.stop)
        await pipeline.run(lambda: is_service or feed.is_feeding)
        feeder.cancel()
        await asyncio.wait([feeder])
        return loop.time()

    try:
        ended_s = loop.run_until_complete(story())
    finally:
        loop.close()
    return _sorted(Story(queue, chat, carrier, health, ended_s))


def _sorted(story: Story) -> Story:
    for record, outcome in story.queue.outcomes.items():
        group = story.queue.topics[record].group_id.removeprefix("@TGS#_")
        if isinstance(outcome, Imported):
            story.imported[group] += 1
        else:
            story.dead[group].append(outcome)
    return story


def good(count: int, records: int = 100) -> list[tuple[str, int]]:
    """Return so many communities that are well, with so many records each."""
    return [(f"good{number}", records) for number in range(count)]


def shuffled(*groups: tuple[str, int]) -> list[tuple[str, int]]:
    """Return the records of all communities one by one, in any order."""
    ones = [(group, 1) for group, count in groups for _ in range(count)]
    random.Random(7).shuffle(ones)
    return ones


def most_in(starts: list[float], seconds: float) -> int:
    """Return the most calls in any time of so many seconds."""
    return max((sum(a <= at < a + seconds for at in starts) for a in starts), default=0)


def of(codes: dict[str, Answer], default: Answer = 0) -> Callable[[Called], Answer]:
    """Answer by the community."""
    return lambda call: codes.get(call.group, default)


# ---- held


@pytest.mark.parametrize("code", [10002, 80005, 10008])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_a_community_that_is_down_is_held_while_others_are_imported(
    code: int, *, is_sorted: bool
) -> None:
    groups = [("down", 300), *good(5, 300)]
    records = groups if is_sorted else shuffled(*groups)
    story = play(records, of({"down": code}), until_s=60.0)
    assert story.health.communities.held == {"@TGS#_down"}
    assert story.imported.total() == 1500
    assert not story.dead
    met = story.chat.met("down")
    settled = [at for at in met if at > 3.0]
    assert most_in(settled, 1.0) <= 2
    assert len(settled) <= 10, "the pauses grow to 30 s"


def test_a_single_bad_record_is_its_own_trouble() -> None:
    records = [("mixed", 1), *good(1, 3000), ("mixed", 200)]
    story = play(records, lambda call: 80005 if call.topic == "0" else 0)
    assert story.halted is None
    assert story.dead_of("mixed") == {(Reason.EXHAUSTED, 80005): 1}
    assert story.imported["mixed"] == 200


def test_a_community_that_heals_is_forgiven() -> None:
    story = play(
        shuffled(("down", 100), *good(5, 300)),
        lambda call: 10002 if call.group == "down" and call.at_s < 60.0 else 0,
        retry=RetryPolicy(max_attempts=3, patience_s=PATIENCE_S),
    )
    assert story.imported["down"] == 100
    assert not story.dead
    assert story.ended_s < 60.0 + 31.0 + 2.0


def test_what_is_queued_when_patience_ends_is_exhausted_and_what_comes_later_is_tried() -> None:
    heals_s = 700.0
    story = play(
        [("down", 1200), *good(5, 100)],
        lambda call: 10002 if call.group == "down" and call.at_s < heals_s else 0,
        later={heals_s: [("down", 50)]},
    )
    assert story.dead_of("down") == {(Reason.EXHAUSTED, 10002): 1200}
    assert story.imported == {**{group: 100 for group, _ in good(5)}, "down": 50}


def test_a_community_is_open_again_after_its_patience() -> None:
    story = play(
        [("down", 20), *good(5, 100)],
        of({"down": 10002}),
        later={650.0: [("down", 20), *good(5, 10)]},
    )
    assert story.dead_of("down") == {(Reason.EXHAUSTED, 10002): 40}
    assert 1250.0 <= story.ended_s < 1260.0, "the later ones had a patience of their own"


@pytest.mark.parametrize("down", [2, 12])
def test_several_communities_that_stay_down_are_exhausted_too(down: int) -> None:
    sick = [(f"down{number}", 20) for number in range(down)]
    story = play(
        shuffled(*sick, *good(5, 300)), lambda call: 10002 if call.group.startswith("down") else 0
    )
    assert story.halted is None
    assert story.imported.total() == 1500
    assert sum(len(letters) for letters in story.dead.values()) == 20 * down


@pytest.mark.parametrize("kind", [Reply(status=502, may_have_taken_effect=True), 10002])
def test_an_outage_uses_up_no_patience_of_a_held_community(kind: Answer) -> None:
    """Held at 1 s; all are down from 3 s to 590 s; the community heals at 650 s."""

    def answer(call: Called) -> Answer:
        is_down = call.group == "down" and call.at_s < 650.0
        return kind if is_down or 3.0 <= call.at_s < 590.0 else 0

    story = play(shuffled(("down", 100), *good(5, 300)), answer)
    assert story.halted is None
    assert not story.dead
    assert story.imported.total() == 1600


def test_an_outage_right_after_another_exhausts_nobody() -> None:
    """The service comes back for a moment: few communities show that they are well."""

    def answer(call: Called) -> Answer:
        return 10002 if 0.5 <= call.at_s < 20.0 or 20.3 <= call.at_s < 700.0 else 0

    story = play(shuffled(*good(4, 200)), answer)
    assert story.halted in {None, "outage"}
    assert not story.dead


# ---- full


def test_a_full_community_beside_good_ones_is_dead_lettered_after_few_calls() -> None:
    story = play(shuffled(("full", 300), *good(5, 300)), of({"full": 10037}), latency_s=0.05)
    assert story.halted is None
    assert story.dead_of("full") == {(Reason.REJECTED, 10037): 300}
    assert story.imported.total() == 1500
    assert "buy more" in story.dead["full"][0].hint


def test_a_full_community_at_the_head_of_a_sorted_file_meets_few_calls() -> None:
    story = play([("full", 300), *good(5, 300)], of({"full": 10037}), latency_s=0.05)
    assert len(story.chat.met("full")) <= 15
    assert story.dead_of("full") == {(Reason.REJECTED, 10037): 300}


def test_two_full_communities_without_a_success_between_halt() -> None:
    story = play([("full1", 50), ("full2", 50), *good(2)], of({"full1": 10037, "full2": 10037}))
    assert story.halted == 10037
    assert not story.dead


@pytest.mark.parametrize("code", [10037, 11000])
def test_one_community_alone_cannot_be_judged_and_halts(code: int) -> None:
    story = play([("alone", 50)], of({"alone": code}))
    assert story.halted == code
    assert not story.dead
    assert story.queue.unsettled == 50


def test_a_full_community_at_the_end_with_nothing_left_to_compare_halts() -> None:
    story = play([*good(1, 10), ("full", 50)], of({"full": 10037}), latency_s=0.05, slots=1)
    assert story.halted == 10037
    assert not story.dead


# ---- not there


@pytest.mark.parametrize("code", [10010, 10015])
def test_after_three_in_a_row_the_rest_of_a_missing_community_is_not_called(code: int) -> None:
    records = [*good(1, 10), ("missing", 500), *good(1, 2000)]
    story = play(records, of({"missing": code}), slots=3)
    dead = story.dead["missing"]
    assert story.dead_of("missing") == {(Reason.REJECTED, code): 500}
    uncalled = [letter for letter in dead if not letter.history.attempts]
    assert len(story.chat.met("missing")) <= 6
    assert len(uncalled) >= 494
    assert all("without a call" in letter.message for letter in uncalled)


def test_a_missing_community_is_asked_again_after_a_minute() -> None:
    story = play(
        [*good(1, 10), ("made", 20)],
        lambda call: 10010 if call.group == "made" and call.at_s < 30.0 else 0,
        later={50.0: [("made", 10)], 62.0: [("made", 1)], 63.0: [("made", 10)]},
        slots=1,
    )
    assert story.dead_of("made") == {(Reason.REJECTED, 10010): 30}
    assert story.imported["made"] == 11


def test_twenty_missing_communities_with_nothing_imported_halt() -> None:
    missing = [(f"missing{number}", 3) for number in range(40)]
    story = play(missing, lambda call: 10010, slots=1)
    assert story.halted == 10010
    assert len({call.group for call in story.chat.calls}) == 20
    assert story.carrier.halted
    assert "app.region" in story.carrier.halted.message


def test_hundreds_of_missing_communities_beside_good_ones_halt_nothing() -> None:
    missing = [(f"missing{number}", 5) for number in range(300)]
    story = play(
        [*good(1, 10), *shuffled(*missing, *good(20, 20))],
        lambda call: 10010 if call.group.startswith("missing") else 0,
    )
    assert story.halted is None
    assert story.imported.total() == 410
    assert sum(len(letters) for letters in story.dead.values()) == 1500


# ---- no topics, no permission


def test_a_community_without_topics_at_the_head_is_dead_lettered_once_others_worked() -> None:
    story = play([("none", 200), *good(5, 200)], of({"none": 11000}))
    assert story.halted is None
    assert story.dead_of("none") == {(Reason.REJECTED, 11000): 200}
    assert story.imported.total() == 1000


@pytest.mark.parametrize("code", [11000, 10007])
def test_two_communities_alike_with_nothing_imported_halt(code: int) -> None:
    story = play([("one", 100), ("two", 100), ("three", 100)], lambda call: code)
    assert story.halted == code
    assert not story.dead_of("two")


def test_no_permission_for_two_communities_beside_imports_halts_nothing() -> None:
    story = play(
        [*good(1, 10), *shuffled(("one", 10), ("two", 10), *good(1, 50))],
        of({"one": 10007, "two": 10007}),
    )
    assert story.halted is None
    assert story.dead_of("one") == {(Reason.REJECTED, 10007): 10}


# ---- accounts and signatures


def of_accounts(*accounts: str) -> list[dict[str, Any]]:
    return [
        {"GroupId": f"@TGS#_g{number % 7}", "From_Account": account}
        for number, account in enumerate(accounts)
    ]


def test_a_key_that_is_revoked_in_the_middle_halts_and_dead_letters_nobody() -> None:
    records = of_accounts(*(f"user{number % 50}" for number in range(3000)))
    story = play(records, lambda call: 60004 if call.at_s > 5.0 else 0)
    assert story.halted == 60004
    assert not story.dead
    assert story.ended_s < 60.0


def test_a_service_whose_key_is_revoked_halts_and_dead_letters_nobody() -> None:
    records = of_accounts(*(f"user{number % 50}" for number in range(3000)))
    story = play(records, lambda call: 60004 if call.at_s > 5.0 else 0, is_service=True)
    assert story.halted == 60004
    assert not story.dead


def test_one_bad_account_beside_good_ones_is_dead_lettered() -> None:
    accounts = ["good"] * 2000
    accounts[100] = "bad"
    story = play(of_accounts(*accounts), lambda call: 60004 if call.account == "bad" else 0)
    assert story.halted is None
    assert sum(len(letters) for letters in story.dead.values()) == 1
    assert story.imported.total() == 1999


def test_bad_accounts_in_ten_do_not_slow_the_others_down() -> None:
    accounts = ["bad" if number % 10 == 0 else "good" for number in range(3000)] + ["good"] * 100
    story = play(of_accounts(*accounts), lambda call: 60004 if call.account == "bad" else 0)
    assert story.halted is None
    assert sum(len(letters) for letters in story.dead.values()) == 300
    assert story.ended_s < 1.5 * 3100 / QUOTA_PER_S


@pytest.mark.parametrize("code", sorted(ADMIN_WITHOUT_ACCOUNT))
def test_an_account_code_without_an_account_halts(code: int) -> None:
    story = play(shuffled(*good(3)), lambda call: code)
    assert story.halted == code
    assert not story.dead


# ---- unknown codes


@pytest.mark.parametrize("records", [3, 500])
def test_an_unknown_code_of_the_access_layer_halts_soon(records: int) -> None:
    story = play([("a", records)], lambda call: 60999, latency_s=0.05, slots=1)
    assert story.halted == 60999
    assert not story.dead
    assert len(story.chat.calls) <= 10
    assert story.ended_s < 30.0


def test_an_unknown_code_of_the_account_service_renews_once_and_halts() -> None:
    story = play([("a", 500)], lambda call: 70999, slots=1)
    assert story.halted == 70999
    assert len(story.chat.calls) == 2
    assert not story.dead


def test_any_other_unknown_code_halts_after_ten_where_nothing_was_imported() -> None:
    story = play(shuffled(*good(5)), lambda call: 12345, slots=1)
    assert story.halted == 12345
    assert len(story.chat.calls) == 10
    assert not story.dead


# ---- the same rejection in a service


def test_a_service_with_one_rejection_after_another_probes_others_and_closes_by_itself() -> None:
    heals_s = 60.0
    story = play(
        shuffled(("bad1", 300), ("bad2", 300)),
        lambda call: 10004 if call.group.startswith("bad") and call.at_s < heals_s else 0,
        later={30.0: good(2, 10)},
        is_service=True,
        same_rejection=20,
        until_s=120.0,
        slots=5,
    )
    assert story.halted is None
    before = [call.at_s for call in story.chat.calls if 5.0 <= call.at_s < 30.0]
    assert 24 <= len(before) <= 28, "it probes at least once a second"
    first_good = next(call.at_s for call in story.chat.calls if call.group.startswith("good"))
    assert first_good < 32.0, "others go first"
    assert story.imported["good0"] == 10
    assert story.health.stopped_by_rejections is None or story.queue.unsettled == 0


def test_a_service_whose_last_records_back_off_for_another_reason_probes_with_them() -> None:
    def answer(call: Called) -> Answer:
        if int(call.topic) % 3 == 0 and call.at_s < 20.0:
            return 10002
        return 10004 if call.at_s < 60.0 else 0

    story = play(
        shuffled(("bad1", 100), ("bad2", 100)),
        answer,
        is_service=True,
        same_rejection=20,
        until_s=120.0,
        slots=5,
    )
    assert story.halted is None
    assert story.queue.unsettled == 0
    assert story.imported.total() > 100


# ---- services that flap, or fail for a part


@pytest.mark.parametrize("latency_s", [0.05, 3.0])
@pytest.mark.parametrize("every", [1, 3])
def test_communities_that_come_and_go_lose_nothing(every: int, latency_s: float) -> None:
    def answer(call: Called) -> Answer:
        number = int(call.group.removeprefix("good"))
        is_down = number % every == 0 and int(call.at_s / (5 + number % 7)) % 2 == 0
        return 10002 if is_down else 0

    story = play(shuffled(*good(100, 10)), answer, latency_s=latency_s)
    assert story.halted is None
    assert story.imported.total() == 1000


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_a_service_that_fails_a_part_of_all_calls_exhausts_nobody(share: float) -> None:
    chance = random.Random(3)
    story = play(
        shuffled(*good(50, 40)),
        lambda call: 10002 if call.at_s < 60.0 and chance.random() < share else 0,
    )
    assert story.halted is None
    assert story.imported.total() == 2000


@pytest.mark.parametrize("groups", [good(1), good(3), [("a", 2), ("b", 2), ("c", 1)]])
def test_a_service_waits_for_the_end_of_an_outage_of_few_communities(
    groups: list[tuple[str, int]],
) -> None:
    story = play(
        shuffled(*groups),
        lambda call: 10002 if 0.2 < call.at_s < 900.0 else 0,
        is_service=True,
        until_s=1500.0,
    )
    assert story.halted is None
    assert not story.dead
    assert story.queue.unsettled == 0


@pytest.mark.parametrize("groups", [good(1), good(3)])
def test_a_backfill_halts_after_its_patience_with_an_outage_of_few_communities(
    groups: list[tuple[str, int]],
) -> None:
    story = play(shuffled(*groups), lambda call: 10002 if call.at_s > 0.2 else 0)
    assert story.halted == "outage"
    assert not story.dead


def test_an_outage_ends_where_little_room_is_left_for_records_that_wait() -> None:
    story = play(
        shuffled(*good(4, 50)), lambda call: 10002 if call.at_s < 60.0 else 0, backing_off_max=2
    )
    assert story.imported.total() == 200
    assert story.ended_s < 70.0


def test_a_throttle_of_the_whole_app_ends_although_only_held_records_are_left() -> None:
    def answer(call: Called) -> Answer:
        if 2.0 < call.at_s < 30.0:
            return 60011
        return 10002 if call.group == "down" and call.at_s < 40.0 else 0

    story = play(shuffled(("down", 50), *good(3)), answer)
    assert story.imported.total() == 350


# ---- Retry-After


def test_retry_after_of_429_pauses_the_worker() -> None:
    asked: list[float] = []

    def answer(call: Called) -> Answer:
        if call.at_s > 2.0 and not asked:
            asked.append(call.at_s)
            return Reply(status=429, failure="HTTP 429", retry_after_s=40.0)
        return 0

    story = play(shuffled(*good(5, 300)), answer)
    paused = [c.at_s for c in story.chat.calls if asked[0] + 0.1 < c.at_s < asked[0] + 40.0]
    assert not paused
    assert story.imported.total() == 1500


def test_retry_after_of_503_delays_its_record_only() -> None:
    def answer(call: Called) -> Answer:
        if call.topic == "10" and call.at_s < 30.0:
            return Reply(status=503, failure="HTTP 503", retry_after_s=40.0)
        return 0

    story = play(shuffled(*good(5, 300)), answer)
    again = [call.at_s for call in story.chat.calls if call.topic == "10"]
    assert len(again) == 2
    assert again[1] - again[0] >= 40.0
    others = [call.at_s for call in story.chat.calls if call.topic != "10"]
    assert max(others) < 10.0
    assert story.imported.total() == 1500
