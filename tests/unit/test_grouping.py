"""Groups of problems that differ only in their numbers."""

import pytest

from worker.rules.topic.grouping import PLACES_KEPT, MessageGroup, kind_of_message


def group_of(*messages: str, summary: str | None = None) -> MessageGroup:
    group = MessageGroup(messages[0], summary)
    for line, message in enumerate(messages, 1):
        group.add(message, f"a.jsonl:{line}")
    return group


@pytest.mark.parametrize(
    ("messages", "shown"),
    [
        (["TopicName has 45 bytes, 30 are allowed"], "TopicName has 45 bytes, 30 are allowed"),
        (
            [f"TopicName has {n} bytes, 30 are allowed" for n in (45, 40, 51, 45)],
            "TopicName has 40 to 51 bytes, 30 are allowed",
        ),
        (["not 1.5", "not 0.5", "not 7"], "not 0.5 to 7"),
        (["CreateTime -1 is not", "CreateTime -3 is not"], "CreateTime -3 to -1 is not"),
        (["unknown field a1", "unknown field a1"], "unknown field a1"),
        (["unknown field a1", "unknown field a2"], "unknown field a1 (and others like it)"),
        (["not UTF-8: byte 7", "not UTF-8: byte 9"], "not UTF-8: byte 7 to 9"),
        (["holds U+0007"], "holds U+0007"),
    ],
)
def test_a_group_shows_the_range_of_its_numbers(messages: list[str], shown: str) -> None:
    assert len(set(map(kind_of_message, messages))) == 1
    group = group_of(*messages)
    assert group.message == shown
    assert group.count == len(messages)


def test_different_code_points_are_different_kinds() -> None:
    assert kind_of_message("holds U+0007") != kind_of_message("holds U+0008")


def test_a_summary_replaces_messages_with_other_words() -> None:
    summary = "another record has the same TopicId"
    assert group_of("a.jsonl:3 has it", "a.jsonl:3 has it", summary=summary).message == (
        "a.jsonl:3 has it"
    )
    assert group_of("a.jsonl:3 has it", "b 5 c 6 has it", summary=summary).message == summary


def test_the_number_of_places_is_bounded() -> None:
    group = group_of(*["same"] * (PLACES_KEPT + 1))
    assert (group.count, len(group.places)) == (PLACES_KEPT + 1, PLACES_KEPT)
