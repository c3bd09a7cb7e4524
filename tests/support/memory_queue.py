"""The queue's contract in memory, with a crash: what is not committed is gone."""

from dataclasses import replace

from worker.rules.outcome import DeadLetter, Delivery, History, Imported, Outcome, Released
from worker.rules.topic.topic import Topic


class MemoryQueue:
    """Keeps topics and outcomes over the processes of one simulated job."""

    def __init__(self) -> None:
        self.topics: dict[int, Topic] = {}
        self._histories: dict[int, History] = {}
        self._ready: list[int] = []
        self._taken: set[int] = set()
        self._imported_into: set[str] = set()
        self.outcomes: dict[int, Imported | DeadLetter] = {}
        self.is_dead = False
        self.is_drained = False

    def put(self, topic: Topic) -> None:
        record = len(self.topics) + 1
        self.topics[record] = topic
        self._histories[record] = History()
        self._ready.append(record)

    def recover(self) -> None:
        """Take back what a dead process held: each may have been called."""
        for record in self._taken:
            self._histories[record] = replace(self._histories[record], may_exist=True)
        self._ready = sorted([*self._ready, *self._taken])
        self._taken.clear()

    async def take(self, count: int, *, without: frozenset[str] = frozenset()) -> list[Delivery]:
        taken: list[int] = []
        for record in self._ready:
            if len(taken) == count:
                break
            if self.topics[record].group_id not in without:
                taken.append(record)
        self.is_drained = len(taken) < count
        return self._deliver(taken)

    async def take_of(self, group_id: str, count: int) -> list[Delivery]:
        ready = [record for record in self._ready if self.topics[record].group_id == group_id]
        ready.sort(key=lambda record: self._histories[record].attempts)
        return self._deliver(ready[:count])

    def _deliver(self, taken: list[int]) -> list[Delivery]:
        if taken and taken == self._ready[: len(taken)]:
            del self._ready[: len(taken)]
        elif taken:
            gone = set(taken)
            self._ready = [record for record in self._ready if record not in gone]
        self._taken.update(taken)
        return [
            Delivery(
                record,
                self.topics[record],
                self._histories[record],
                was_imported_into=self.topics[record].group_id in self._imported_into,
            )
            for record in taken
        ]

    async def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        if self.is_dead:
            return []
        for outcome in outcomes:
            assert outcome.id in self._taken, f"record {outcome.id} was settled twice"
            self._taken.remove(outcome.id)
            if isinstance(outcome, Released):
                self._histories[outcome.id] = outcome.history
                self._ready = sorted([*self._ready, outcome.id])
            else:
                self.outcomes[outcome.id] = outcome
                if isinstance(outcome, Imported):
                    self._imported_into.add(self.topics[outcome.id].group_id)
        return outcomes

    @property
    def unsettled(self) -> int:
        return len(self.topics) - len(self.outcomes)
