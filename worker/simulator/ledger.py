"""What the stand-in created and answered; a test may change what it holds."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Ledger:
    """What was created and what was answered, for the audit of a run.

    `topics`: TopicId -> the body that made it; a test may add, change and remove some. `made_at`:
    the Unix seconds at which calls made them; those without one were made by others. `deleted`:
    IDs that get_topic calls deleted. `hidden`: IDs in use that get_topic does not return.
    `item_codes`: the error code of get_topic's item for an ID.

    Counts whose names begin with `get_topic` are of that call, all others of import_topic.
    """

    topics: dict[str, dict[str, Any]] = field(default_factory=dict)
    made_at: dict[str, int] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    item_codes: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    most_calls_in_a_second: int = 0
    created_without_id: int = 0
    first_call_s: float | None = None
    last_call_s: float = 0.0
    get_topic_calls: int = 0
    get_topic_answers: Counter[str] = field(default_factory=Counter)
    get_topic_most_calls_in_a_second: int = 0

    @property
    def seconds(self) -> float:
        """From the first call to the last."""
        return 0.0 if self.first_call_s is None else self.last_call_s - self.first_call_s

    def add(self, topic: Mapping[str, Any]) -> None:
        """Add a topic with a TopicId, as made by others before the first call."""
        self.topics[topic["TopicId"]] = dict(topic)
        self.made_at.pop(topic["TopicId"], None)

    def topics_of(self, group_id: str) -> Iterator[str]:
        """Yield the IDs of a community's topics."""
        start = f"{group_id}@TOPIC#_"
        return (topic_id for topic_id in self.topics if topic_id.startswith(start))

    def as_dict(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "created": len(self.topics),
            "created_without_id": self.created_without_id,
            "most_calls_in_a_second": self.most_calls_in_a_second,
            "seconds": self.seconds,
            "answers": dict(self.answers),
            "get_topic_calls": self.get_topic_calls,
            "get_topic_answers": dict(self.get_topic_answers),
            "get_topic_most_calls_in_a_second": self.get_topic_most_calls_in_a_second,
            "topics": list(self.topics.values()),
        }
