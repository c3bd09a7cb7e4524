"""The embedded queue against a model of it, through random operations and crashes."""

import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.queues import RULES, imported, read_record
from worker.intake.formats.json_lines import Line
from worker.intake.reader import read
from worker.queues.sqlite import communities
from worker.queues.sqlite.store import SqliteStore
from worker.rules.outcome import DeadLetter, Delivery, History, Outcome, Reason, Released
from worker.rules.record import Record, content_hash

Content = tuple[str | None, str]
Position = tuple[int, Content]
BROKEN: Content = (None, "broken")
CONTENTS: list[Content] = [("x", "a"), ("x", "b"), ("y", "a"), ("z", "a"), BROKEN]
COMMUNITIES = {"x": "@TGS#_one", "y": "@TGS#_one", "z": "@TGS#_two"}
READY = (
    "SELECT queued.id FROM queued JOIN communities ON communities.id = community "
    "WHERE (lane < 2 OR (lane IS NULL AND queued.id > coalesce("
    "(SELECT n FROM counts WHERE name = 'watermark'), 0))) "
    "AND group_id NOT IN (SELECT value FROM json_each(?)) ORDER BY "
)


def as_read(line: int, content: Content) -> Record:
    own_id, name = content
    if own_id is None:
        return read_record(line, raw=b"{")
    group_id = COMMUNITIES[own_id]
    given = {"GroupId": group_id, "TopicName": name, "TopicId": f"{group_id}@TOPIC#_own-{own_id}"}
    return read_record(line, raw=orjson.dumps(given))


class Model:
    """What the queue must hold: the state of each record, and which one holds each TopicId."""

    def __init__(self) -> None:
        self.states: dict[Position, str] = {}
        self.holders: dict[str, Position] = {}
        self.duplicate_of: dict[Position, Position] = {}
        self.may_exist: set[Position] = set()

    def put(self, line: int, content: Content, *, is_in_place: bool) -> None:
        here = (line, content)
        if here in self.states:
            return
        own_id = content[0]
        at_line = [p for p in self.states if p[0] == line]
        for old in [p for p in at_line if self.cannot_exist(p)]:
            is_same = own_id is not None and old[1][0] == own_id
            if is_same or (is_in_place and old == at_line[-1]):
                self.replace(old)
        holder = self.holders.get(own_id or "")
        if own_id is None or (holder and holder[1] != content and not self.cannot_exist(holder)):
            self.states[here] = "dead"
        elif holder and not self.cannot_exist(holder):
            self.states[here] = "duplicate"
            self.duplicate_of[here] = holder
        else:
            self.states[here] = "queued"
            self.holders[own_id] = here
            if holder and holder[1] == content:
                self.states[holder] = "duplicate"
                self.inherit(holder, here)
                self.duplicate_of[holder] = here

    def cannot_exist(self, position: Position) -> bool:
        return self.states[position] == "dead" and position not in self.may_exist

    def inherit(self, old: Position, successor: Position) -> None:
        self.duplicate_of = {p: successor if h == old else h for p, h in self.duplicate_of.items()}

    def replace(self, old: Position) -> None:
        successors = [p for p, holder in self.duplicate_of.items() if holder == old]
        held = [own_id for own_id, holder in self.holders.items() if holder == old]
        for own_id in held:
            del self.holders[own_id]
        if successors:
            successor = min(successors, key=list(self.states).index)
            del self.duplicate_of[successor]
            self.states[successor] = "dead"
            self.inherit(old, successor)
            self.holders |= dict.fromkeys(held, successor)
        del self.states[old]


class QueueMachine(RuleBasedStateMachine):
    """Applies each operation to the store and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.store = self._open()
        self.moved_per_take = communities.MOVED_PER_TAKE
        # Small enough that setting aside and bringing back take several steps here, too.
        communities.MOVED_PER_TAKE = 1
        self.model = Model()
        self.taken: dict[int, Position] = {}
        self.imported_into: set[str] = set()

    def _open(self) -> SqliteStore:
        return SqliteStore(self.directory / "queue.sqlite3", synchronous="OFF")

    def teardown(self) -> None:
        communities.MOVED_PER_TAKE = self.moved_per_take
        self.store.close()
        shutil.rmtree(self.directory)

    @rule(
        reads=st.lists(st.tuples(st.integers(1, 4), st.sampled_from(CONTENTS)), max_size=5),
        is_in_place=st.booleans(),
    )
    def put(self, reads: list[Position], *, is_in_place: bool) -> None:
        batch = []
        for line, content in reads:
            batch.append(replace(as_read(line, content), is_in_place=is_in_place))
            self.model.put(line, content, is_in_place=is_in_place)
        self.store.put(batch)

    @rule(
        count=st.integers(1, 3),
        held=st.frozensets(st.sampled_from(sorted(set(COMMUNITIES.values())))),
        untried_first=st.booleans(),
    )
    def take(self, count: int, held: frozenset[str], *, untried_first: bool) -> None:
        expected = self.ready("attempts > 0, queued.id" if untried_first else "queued.id", held)[
            :count
        ]
        taken = self.store.take(count, untried_first=untried_first, without=held)
        assert [delivery.id for delivery in taken] == expected
        free = [p for p in self.free() if COMMUNITIES[str(p[1][0])] not in held]
        self.check_taken(taken)
        assert len(taken) == min(count, len(free)), "a free record was not taken"

    @rule(count=st.integers(1, 3), group_id=st.sampled_from(sorted(set(COMMUNITIES.values()))))
    def take_of(self, count: int, group_id: str) -> None:
        others = frozenset(COMMUNITIES.values()) - {group_id}
        expected = self.ready("attempts, queued.id", others)[:count]
        taken = self.store.take_of(group_id, count)
        assert [delivery.id for delivery in taken] == expected
        self.check_taken(taken)

    def free(self) -> list[Position]:
        taken = set(self.taken.values())
        return [p for p, s in self.model.states.items() if s == "queued" and p not in taken]

    def ready(self, order: str, without: frozenset[str]) -> list[int]:
        """Return the row IDs of the ready records as a query finds them that needs no index."""
        with closing(sqlite3.connect(self.directory / "queue.sqlite3")) as db:
            rows = db.execute(READY + order, (orjson.dumps(list(without)).decode(),))
            return [row_id for (row_id,) in rows]

    def check_taken(self, taken: list[Delivery]) -> None:
        free = self.free()
        for row in taken:
            assert row.topic.topic_id is not None
            here = self.model.holders[row.topic.topic_id.rsplit("own-")[-1][-1]]
            assert here in free, "only free records are taken"
            assert row.history.may_exist == (here in self.model.may_exist)
            assert row.was_imported_into == (row.topic.group_id in self.imported_into)
            free.remove(here)
            self.taken[row.id] = here

    @rule(how=st.sampled_from(["imported", "dead", "dead, may exist", "released"]))
    def settle(self, how: str) -> None:
        outcomes: list[Outcome] = []
        for record, here in self.taken.items():
            may_exist = how == "dead, may exist" or here in self.model.may_exist
            history = History(attempts=1, may_exist=may_exist)
            if how == "imported":
                outcomes.append(imported(record))
                self.model.states[here] = "imported"
                self.imported_into.add(COMMUNITIES[str(here[1][0])])
            elif how == "released":
                outcomes.append(Released(record, history))
            else:
                outcomes.append(DeadLetter(record, Reason.REJECTED, 10010, "", "", history))
                self.model.states[here] = "dead"
                self.model.may_exist |= {here} if may_exist else set()
        self.store.settle(outcomes)
        self.taken.clear()

    @rule()
    def crash(self) -> None:
        self.store.close()
        self.store = self._open()
        assert self.store.recover() == len(self.taken)
        self.model.may_exist |= set(self.taken.values())
        self.taken.clear()

    @invariant()
    def the_queue_holds_what_the_model_holds(self) -> None:
        counts = self.store.counts()
        states = Counter(self.model.states.values())
        assert counts.is_balanced
        assert counts == self.store.counts_by_counting()
        assert counts.read == len(self.model.states)
        for state in ("queued", "imported", "dead", "duplicate"):
            assert getattr(counts, state) == states[state]
        dead_lines = len(self.store.lines("dead", 0, 100))
        assert (len(self.store.lines("imported", 0, 100)), dead_lines) == (
            counts.imported,
            counts.dead,
        )


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=80, stateful_step_count=30)


class LettersMachine(RuleBasedStateMachine):
    """Resubmits letters, edited or mended wrongly: counts balance, no topic is imported twice."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.store = SqliteStore(self.directory / "queue.sqlite3", synchronous="OFF")
        self.old_letters: list[bytes] = []
        self.imported: set[str] = set()
        self.doubtful: set[str] = set()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.directory)

    @rule(line=st.integers(1, 3), name=st.sampled_from(["a", "b", "twin", ""]))
    def read_a_line(self, line: int, name: str) -> None:
        self.store.put([read_record(line, raw=None if name else b"{", name=name or None)])

    @rule(name=st.sampled_from(["", "mended", "x" * 31]), pick=st.integers(0, 5))
    def hand_in_a_letter(self, name: str, pick: int) -> None:
        self.old_letters += [line for _, line in self.store.lines("dead", 0, 100)]
        if not self.old_letters:
            return
        letter = orjson.loads(self.old_letters[pick % len(self.old_letters)])
        if name and "record" in letter:
            letter["record"]["TopicName"] = name
        content = orjson.dumps(letter)
        self.store.put([read("dead.jsonl", Line(1, content, content_hash(content)), RULES)])

    @rule(how=st.sampled_from(["imported", "refused", "exhausted"]))
    def settle_all(self, how: str) -> None:
        for row in self.store.take(100):
            topic_id = row.topic.topic_id
            assert topic_id is not None
            assert topic_id not in self.imported, "the topic would be imported twice"
            assert row.history.may_exist or topic_id not in self.doubtful, "a doubt was forgotten"
            history = History(attempts=1, may_exist=row.history.may_exist or how == "exhausted")
            if how == "imported":
                self.imported.add(topic_id)
                self.store.settle([imported(row.id)])
            else:
                if history.may_exist:
                    self.doubtful.add(topic_id)
                letter = DeadLetter(row.id, Reason.REJECTED, 10010, "", "", history)
                self.store.settle([letter])

    @invariant()
    def the_sums_hold(self) -> None:
        counts = self.store.counts()
        assert counts.is_balanced
        assert counts == self.store.counts_by_counting()
        assert len(self.store.lines("dead", 0, 1000)) == counts.dead


TestLettersMachine = LettersMachine.TestCase
TestLettersMachine.settings = settings(max_examples=80, stateful_step_count=30)
