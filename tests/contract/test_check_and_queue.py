"""`check` says of every record what a queue would say when it is put."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.intake.reader import batches
from worker.intake.sources import resolve
from worker.jobs.checking.findings import Findings, find_all
from worker.queues.sqlite.store import SqliteStore
from worker.rules.topic.topic import RecordRules

GROUP = "@TGS#_a"
LINE_BYTES_MAX = 1 << 20
NAMES = st.sampled_from(["one", "two", "a name that is too long for the limit of thirty", ""])


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Return a record of which another one may have the TopicId, or a dead letter of one."""
    record: dict[str, Any] = {"GroupId": GROUP, "TopicName": draw(NAMES)}
    topic_id = draw(st.sampled_from([None, "1", "2"]))
    if topic_id:
        record["TopicId"] = f"{GROUP}@TOPIC#_{topic_id}"
    if draw(st.booleans()):
        record["id"] = draw(st.sampled_from([1, 2]))
    if draw(st.integers(0, 3)):
        return record
    letter = dict.fromkeys(
        ("key", "group_id", "code", "message", "hint", "first_attempt", "last_attempt")
    )
    return {
        "source": "",
        **letter,
        "reason": "exhausted",
        "topic_id": f"{GROUP}@TOPIC#_{draw(st.sampled_from(['1', '2', 'f' * 32]))}",
        "attempts": 8,
        "may_exist": draw(st.booleans()),
        "record": record,
    }


def line(number: int, record: dict[str, Any]) -> bytes:
    """Return a record as a line; two dead letters of one place would be the same record."""
    place = {"source": f"elsewhere.jsonl:{number}"} if "source" in record else {}
    return orjson.dumps(record | place)


RULES = st.sampled_from(
    [
        RecordRules(),
        RecordRules(key_field="id"),
        RecordRules(truncate=True),
        RecordRules(derive_ids=False, key_field="id", truncate=True),
    ]
)


def put(path: Path, rules: RecordRules) -> dict[str, Any]:
    store = SqliteStore(path.with_name("queue.sqlite3"), synchronous="OFF")
    for batch in batches(resolve(str(path)), rules, LINE_BYTES_MAX):
        store.put(batch)
    counts = store.counts()
    store.close()
    return {
        "read": counts.read,
        "valid": counts.queued,
        "invalid": counts.dead,
        "duplicate": counts.duplicate,
    }


def totals(found: Findings) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("read", "valid", "invalid", "duplicate")}


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=100, deadline=None)
@given(st.lists(records(), max_size=12), RULES)
def test_check_counts_what_a_queue_counts(
    content: list[dict[str, Any]], rules: RecordRules
) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "topics.jsonl"
        path.write_bytes(b"\n".join(line(n, one) for n, one in enumerate(content, 1)))
        found = find_all([resolve(str(path))], rules, LINE_BYTES_MAX)
        assert totals(found) == put(path, rules)
