"""Builds valid records for tests of whole runs."""

from typing import Any


def group(number: int) -> str:
    return f"@TGS#_@TGS#cGRP{number:04d}"


def record(number: int, **changes: Any) -> dict[str, Any]:
    """Return a record in one of twenty communities; every third has its own TopicId."""
    group_id = group(number % 20)
    own = {"TopicId": f"{group_id}@TOPIC#_own-{number}"} if number % 3 == 0 else {}
    return {
        "GroupId": group_id,
        "TopicName": f"话题 {number} 😀",
        "CreateTime": 1_500_000_000 + number,
        "CustomString": f"old-{number}",
        **own,
        **changes,
    }


def records(count: int) -> list[dict[str, Any]]:
    return [record(number) for number in range(count)]
