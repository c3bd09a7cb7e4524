"""An in-memory queue that simulates a crash: outcomes settled after the crash are lost."""

from dataclasses import replace

from worker.rules.outcome import DeadLetter, Delivery, History, Imported, Outcome, Released
from worker.rules.topic.topic import Topic


class MemoryQueue:
    """Keeps the topics and outcomes of one simulated job across restarts."""

    def __init__(self) -> None:
        self.topics: dict[int, Topic] = {}
        self._histories: dict[int, History] = {}
        self._ready: list[int] = []
        self._taken: set[int] = set()
        self.outcomes: dict[int, Imported | DeadLetter] = {}
        self.is_dead = False
        self.is_drained = False

    def put(self, topic: Topic) -> None:
        record = len(self.topics) + 1
        self.topics[record] = topic
        self._histories[record] = History()
        self._ready.append(record)

    def recover(self) -> None:
        """Make the records of a dead process ready again; each topic may already exist."""
        for record in self._taken:
            self._histories[record] = replace(self._histories[record], may_exist=True)
        self._ready = sorted([*self._ready, *self._taken])
        self._taken.clear()

    async def take(self, count: int) -> list[Delivery]:
        taken, self._ready = self._ready[:count], self._ready[count:]
        self._taken.update(taken)
        self.is_drained = len(taken) < count
        return [Delivery(r, self.topics[r], self._histories[r]) for r in taken]

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
        return outcomes

    @property
    def unsettled(self) -> int:
        return len(self.topics) - len(self.outcomes)
