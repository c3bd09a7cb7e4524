"""Records with the TopicId of an earlier one: what a queue would say of them (R2 to R6).

A record is remembered by fingerprints of 24 bytes, not by its texts: 128 bits for its TopicId, and
64 for its content. Among a thousand million records, the probability that two TopicIds have the
same one by chance is below 1 to 10 to the 20th; that a conflict is taken for a duplicate, below 1
to 10 to the 19th for each.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from worker.jobs.checking.spool import Spool
from worker.rules.topic.identity import digest_in
from worker.rules.topic.topic import Topic

DIGEST_BYTES = 11
GROUP_BYTES = 5
IS_CUT, IS_INVALID = 1, 2
_ENTRY = struct.Struct(f">{DIGEST_BYTES}s{GROUP_BYTES}sqQ")
"""A record: fingerprints of its ID within the community, of the community and of the content; the
number of its line times four, and flags."""
_ID_BYTES = DIGEST_BYTES + GROUP_BYTES
_ID_AND_REST = struct.Struct(f">{_ID_BYTES}s{_ENTRY.size - _ID_BYTES}s")
_ID_CONTENT_LINE = struct.Struct(f">{_ID_BYTES}sqQ")


class Double(NamedTuple):
    """A valid record whose TopicId an earlier one holds.

    `number`, `holder`: of their lines. `is_conflict`: their contents differ; else it is a
    duplicate. `group`: the fingerprint of its community. `is_cut`: a value of it was cut.
    """

    number: int
    holder: int
    is_conflict: bool
    group: bytes
    is_cut: bool


class Doubles:
    """Remembers every record, and finds those that hold the same TopicId."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._new: list[bytes] = []

    def add(
        self, digest: bytes, group_id: str, content: bytes, number: int, flags: int = 0
    ) -> None:
        """Remember a record.

        `digest`: identifies it within its community (`digest_of`). `content`: see `content_of`.
        `number`: of its line.
        """
        # Python's own hash of bytes is SipHash with a key of this process, and quick.
        self._new.append(
            _ENTRY.pack(
                digest[:DIGEST_BYTES],
                group_fingerprint(group_id),
                hash(content),
                number << 2 | flags,
            )
        )

    def add_topic(self, topic: Topic, number: int) -> None:
        """Remember a valid record; one without a TopicId doubles none."""
        if topic.topic_id is not None:
            digest = digest_of(topic.topic_id, topic.group_id)
            flags = IS_CUT if topic.truncated else 0
            self.add(digest, topic.group_id, content_of(orjson.loads(topic.body)), number, flags)

    def add_invalid(self, topic_id: str, group_id: str, number: int) -> None:
        """Remember an invalid record that may exist and so keeps its TopicId (R6)."""
        self.add(digest_of(topic_id, group_id), group_id, b"", number, IS_INVALID)

    def flush(self) -> None:
        """Hand what was added over to the spool; call it now and then."""
        self._spool.add(self._new)
        self._new.clear()

    def find(self) -> Iterator[Double]:
        """Yield the records that are doubles, those of one TopicId in the order of reading."""
        self.flush()
        for partition in self._spool.partitions():
            yield from _doubles_in(partition)
        self._spool.close()


@lru_cache(maxsize=4096)
def group_fingerprint(group_id: str) -> bytes:
    """Return the fingerprint of a community."""
    return blake2b(group_id.encode(), digest_size=GROUP_BYTES).digest()


def digest_of(topic_id: str, group_id: str) -> bytes:
    """Return what identifies a topic within its community; of a derived TopicId its own digest."""
    return digest_in(topic_id, group_id) or blake2b(topic_id.encode(), digest_size=16).digest()


def content_of(body: dict[str, Any]) -> bytes:
    """Return what is equal for bodies of one TopicId that are equal.

    A TopicId at the end is left out of `body`: a derived one stands there, if it is in it at all.
    """
    if next(reversed(body)) == "TopicId":
        del body["TopicId"]
    return orjson.dumps(body)


def _doubles_in(partition: bytes) -> Iterator[Double]:
    ids = [name for name, _ in _ID_AND_REST.iter_unpack(partition)]
    if len(set(ids)) == len(ids):
        return
    doubled = {name for name, count in Counter(ids).items() if count > 1}
    holders: dict[bytes, tuple[int, int]] = {}
    for name, content, position in _ID_CONTENT_LINE.iter_unpack(partition):
        if name not in doubled:
            continue
        number = position >> 2
        held, holder = holders.setdefault(name, (content, number))
        # An invalid record is a dead letter, whoever holds its TopicId.
        if holder != number and not position & IS_INVALID:
            group = name[DIGEST_BYTES:]
            yield Double(number, holder, content != held, group, bool(position & IS_CUT))
