"""Reads every record of all inputs, and gathers what is wrong or odd about them."""

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.intake.dead_letters import is_dead_letter
from worker.intake.formats.json_lines import Line
from worker.intake.reader import line_batches, read
from worker.intake.sources import InputError, Source, UnsupportedInputError
from worker.jobs.checking.doubles import (
    Double,
    Doubles,
    content_of,
    digest_of,
    group_fingerprint,
)
from worker.jobs.checking.equal_names import CutNames
from worker.jobs.checking.groups import Groups
from worker.jobs.checking.places import Places
from worker.jobs.checking.sizes import Sizes
from worker.outputs.report import COMMUNITY_TOPICS_MAX, equal_names_message
from worker.rules.record import Record
from worker.rules.topic.grouping import PLACES_KEPT, MessageGroup, kind_of_message
from worker.rules.topic.identity import Origin, identity_digest
from worker.rules.topic.oddities import (
    NO_EQUAL_NAMES,
    SENTENCES,
    EqualNames,
    Oddity,
    create_time_of,
    oddities_of,
)
from worker.rules.topic.problems import InvalidRecordError
from worker.rules.topic.topic import RecordRules, plain_body

CONFLICTS = "another record has the same TopicId with other content"
CROWDED_KEPT = 50_000
"""How many communities with too many topics are kept by name."""


@dataclass(slots=True)
class DoubledPlaces:
    """Records of one kind that hold the TopicId of an earlier one; the first PLACES_KEPT of them.

    `first`: negative numbers of their lines, and of the lines of the earlier ones, as a heap.
    """

    count: int = 0
    first: list[tuple[int, int]] = field(default_factory=list)

    def add(self, double: Double) -> None:
        """Count one; they come in any order."""
        self.count += 1
        pair = (-double.number, -double.holder)
        if len(self.first) < PLACES_KEPT:
            heapq.heappush(self.first, pair)
        else:
            heapq.heappushpop(self.first, pair)

    def places(self, places: Places) -> list[tuple[str, str]]:
        """Return the first ones: each place, and the place of the record that it doubles."""
        pairs = sorted(self.first, reverse=True)
        return [(places.name(-number), places.name(-holder)) for number, holder in pairs]


@dataclass(slots=True)
class Findings:
    """What was found in all inputs.

    `skipped`: records that `records.where` does not choose; they do not count as read. `valid`:
    records that would be sent. `cut`: those of them with a value that is cut.
    `duplicates`: the first places of duplicates, each with the place that it doubles.
    `empty`: inputs without a record. `communities`: how many the valid records are meant for.
    `crowded`: communities with too many topics, the largest first.
    """

    skipped: int = 0
    valid: int = 0
    invalid: int = 0
    duplicate: int = 0
    cut: int = 0
    problems: Groups = field(default_factory=Groups)
    warnings: Groups = field(default_factory=Groups)
    duplicates: Sequence[tuple[str, str]] = ()
    equal_names: EqualNames = NO_EQUAL_NAMES
    empty: list[str] = field(default_factory=list)
    communities: int = 0
    crowded: Sequence[tuple[str, int]] = ()

    @property
    def read(self) -> int:
        """Return how many records were read; each is valid, invalid or a duplicate."""
        return self.valid + self.invalid + self.duplicate


def find_all(sources: Sequence[Source], rules: RecordRules, line_bytes_max: int) -> Findings:
    """Read all inputs once, and return what was found.

    An input that is named twice is read once, as a queue would count it. A dead letter counts as a
    record of its own, also beside the input that it came from. Raises UnsupportedInputError for a
    pipe that holds no records as it is, OSError if the temporary directory has no room for what
    outgrows memory.
    """
    gathering = _Gathering(rules)
    for source in {source.name: source for source in sources}.values():
        gathering.read(source, line_bytes_max)
    return gathering.findings()


class _Gathering:
    """What was found so far."""

    def __init__(self, rules: RecordRules) -> None:
        self._rules = rules
        self._found = Findings()
        self._places = Places()
        self._doubles = Doubles()
        self._sizes = Sizes()
        self._cut_names = CutNames() if rules.truncate else None
        self._now_s = 0.0
        self._seen = 0

    def read(self, source: Source, line_bytes_max: int) -> None:
        """Read one input to its end, or as far as it can be read."""
        self._places.begin(source.name)
        before = self._seen
        try:
            for lines in line_batches(source, line_bytes_max):
                self._now_s = time.time()
                self._add(source.name, lines)
                self._doubles.flush()
                if self._cut_names:
                    self._cut_names.flush()
        except UnsupportedInputError:
            raise
        except InputError as error:
            self._found.problems.add(str(error), str(error), source.name)
            return
        if self._seen == before:
            self._found.empty.append(source.name)

    def _add(self, name: str, lines: list[Line]) -> None:
        """Add the records in some lines of an input; nearly all time of `check` passes here."""
        found = self._found
        self._seen += len(lines)
        chosen = self._rules.mapping.chooses if self._rules.where else None
        before = self._places.count(lines[-1].number)
        for line in lines:
            number = before + line.number
            try:
                record = line.record()
            except InvalidRecordError:
                self._look_closer(read(name, line, self._rules), number)
                continue
            is_letter = "may_exist" in record and is_dead_letter(record)
            if chosen is not None and not is_letter and not chosen(record):
                found.skipped += 1
                continue
            plain = None if is_letter else plain_body(record, self._rules)
            if plain is None:
                self._look_closer(read(name, line, self._rules), number)
                continue
            body, origin, key = plain
            found.valid += 1
            group_id, topic_name = body["GroupId"], body["TopicName"]
            self._sizes.add(group_id)
            oddities = oddities_of(topic_name, body.get("CreateTime"), self._now_s)
            if oddities:
                self._warn(oddities, f"{name}:{line.number}")
            digest = _digest(record, body, origin, key)
            if digest is not None:
                self._doubles.add(digest, group_id, content_of(body), number)
            if self._cut_names:
                self._cut_names.add(group_id, topic_name, digest, number)

    def _look_closer(self, record: Record, number: int) -> None:
        """Add a record that is not surely valid, or is a dead letter."""
        found, topic = self._found, record.topic
        if isinstance(topic, InvalidRecordError):
            found.invalid += 1
            for problem in topic.problems:
                found.problems.add(kind_of_message(problem), problem, record.source)
            if record.may_exist and topic.topic_id:
                self._doubles.add_invalid(topic.topic_id, topic.group_id or "", number)
            return
        found.valid += 1
        self._doubles.add_topic(topic, number)
        self._sizes.add(topic.group_id)
        if topic.truncated:
            found.cut += 1
        create_time = create_time_of(topic.body)
        self._warn(oddities_of(topic.name, create_time, self._now_s), record.source)
        if self._cut_names:
            is_cut = "TopicName" in topic.truncated
            digest = digest_of(topic.topic_id, topic.group_id) if topic.topic_id else None
            self._cut_names.add(topic.group_id, topic.name, digest, number, is_cut=is_cut)

    def _warn(self, oddities: Sequence[Oddity], place: str) -> None:
        for oddity in oddities:
            self._found.warnings.add(oddity, SENTENCES[oddity], place)

    def findings(self) -> Findings:
        """Return what was found, doubles included; to be called once, after the last input."""
        found = self._found
        crowded = self._crowded()
        duplicates, conflicts = DoubledPlaces(), DoubledPlaces()
        for double in self._doubles.find():
            (conflicts if double.is_conflict else duplicates).add(double)
            found.cut -= double.is_cut
            if double.group in crowded:
                group_id, topics = crowded[double.group]
                crowded[double.group] = (group_id, topics - 1)
        found.invalid += conflicts.count
        found.duplicate = duplicates.count
        found.valid -= duplicates.count + conflicts.count
        found.duplicates = duplicates.places(self._places)
        self._report_conflicts(conflicts)
        self._report_equal_names()
        still = [one for one in crowded.values() if one[1] > COMMUNITY_TOPICS_MAX]
        found.crowded = sorted(still, key=lambda one: (-one[1], one[0]))
        return found

    def _crowded(self) -> dict[bytes, tuple[str, int]]:
        """Return the communities with too many records, by fingerprint; doubles are still in."""
        crowded: dict[bytes, tuple[str, int]] = {}
        for group_id, topics in self._sizes.all():
            self._found.communities += 1
            if topics > COMMUNITY_TOPICS_MAX and len(crowded) < CROWDED_KEPT:
                crowded[group_fingerprint(group_id)] = (group_id, topics)
        return crowded

    def _report_conflicts(self, conflicts: DoubledPlaces) -> None:
        if conflicts.count == 0:
            return
        pairs = conflicts.places(self._places)
        self._found.problems.by_kind["conflict"] = MessageGroup(
            f"{pairs[0][1]} has the same TopicId with other content"
            if conflicts.count == 1
            else CONFLICTS,
            count=conflicts.count,
            places=[place for place, _ in pairs],
        )

    def _report_equal_names(self) -> None:
        if self._cut_names is None:
            return
        equal = self._found.equal_names = self._cut_names.find(self._places)
        if equal.names:
            places = [place for name in equal.examples for place in name.sources][:PLACES_KEPT]
            self._found.warnings.by_kind[Oddity.NAMES_EQUAL] = MessageGroup(
                equal_names_message(equal), count=equal.topics, places=places
            )


def _digest(
    record: dict[str, Any], body: dict[str, Any], origin: Origin, key: str | int | None
) -> bytes | None:
    """Return what identifies a topic within its community, None if it will have another ID."""
    if origin is Origin.DERIVED:
        return identity_digest(key, record)
    return digest_of(body["TopicId"], body["GroupId"]) if "TopicId" in body else None
