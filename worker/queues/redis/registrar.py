"""Giving the topics of entries their place in the index of TopicIds (R18)."""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from worker.queues.redis.connection import Connection, text
from worker.queues.redis.consumer import Taking
from worker.queues.redis.entries import Entry

KEYS = ("counts", "topics", "lost", "held", "uncalled", "communities")
DUPLICATE, IN_DOUBT, NOT_OURS = 1, 2, 3
"""Answers of the script that registers; a text is the source of the record in conflict."""


class Step(StrEnum):
    """What becomes of an entry, in the words of the script."""

    DELIVER = "deliver"
    DELIVER_LATER = "deliver later"
    SKIP = "pass over"
    SKIP_IN_DOUBT = "pass over in doubt"


class Registrar:
    """Registers entries for one consumer.

    `found`: the counter of the queue, to which duplicates are added.
    """

    def __init__(self, connection: Connection, taking: Taking, found: Counter[str]) -> None:
        self._connection = connection
        self._taking = taking
        self._found = found

    async def register(self, entries: list[Entry], steps: Sequence[Step]) -> list[bool]:
        """Register valid entries; mark conflicts, doubts and communities known to the job.

        Returns for each whether it is in our hands still: duplicates end here, and an entry that
        was passed over may be another consumer's by now. Raises RedisError, OSError.
        """
        if not entries:
            return []
        arguments: list[bytes | str] = [self._connection.url.group, self._taking.consumer]
        for e, step in zip(entries, steps, strict=True):
            arguments += [e.id, e.topic_id, e.content, e.source, e.group_id, step.value]
        answers = await self._connection.run("register", KEYS, arguments)
        of_entries = zip(entries, answers[::2], answers[1::2], strict=True)
        return [self._note(entry, answer, was_there) for entry, answer, was_there in of_entries]

    def _note(self, entry: Entry, answer: int | bytes, was_imported_into: int) -> bool:
        entry.was_imported_into = bool(was_imported_into)
        if answer == DUPLICATE:
            self._found["duplicate"] += 1
        elif answer == IN_DOUBT:
            entry.history = entry.history.cut_off()
        elif isinstance(answer, bytes):
            entry.conflict_with = text(answer)
        return answer not in (DUPLICATE, NOT_OURS)
