"""The settings of one consumer of the group."""

from dataclasses import dataclass

from worker.rules.topic.topic import RecordRules


@dataclass(frozen=True, slots=True)
class Taking:
    """Who takes, how long it keeps what it holds, and how entries are read.

    `consumer`: its name in the group; the same name after a restart finds what it held.
    `lease_s`: for how long a consumer may be silent before others take over what it holds (R15).
    `keep_results`: how many imported lines are kept in Redis (R20).
    `line_bytes_max`: a longer record is a dead letter.
    """

    consumer: str
    lease_s: float
    keep_results: int
    rules: RecordRules
    line_bytes_max: int
