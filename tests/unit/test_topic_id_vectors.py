"""Fixed vectors of derived TopicIds; a change would import every topic again as a new one."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from worker.intake.reader import batches
from worker.intake.sources import resolve
from worker.rules.topic.identity import derive_topic_id
from worker.rules.topic.topic import RecordRules, Topic

GROUP = "@TGS#_@TGS#cQVLVHIM62CJ"


@pytest.mark.parametrize(
    ("key", "record", "digits"),
    [
        ("room-17", {}, "ec933b1cf07926258a98cd3a0c0fcff9"),
        (17, {}, "6893d93f7e922618a0c4371c0fb99432"),
        ("17", {}, "b931cb1fe5e28ef406a011b945d170a6"),
        ("房间", {}, "64dc1060d212430239e5c1afb58d7599"),
        (None, {"GroupId": GROUP, "TopicName": "general"}, "3b78fadda3d729eb6a4b05c70d0443e2"),
        (
            None,
            {"GroupId": GROUP, "TopicName": "话题 😀", "CreateTime": 1448357837},
            "d15d68ed3291b08118e49b6e46c21344",
        ),
    ],
)
def test_derived_topic_ids_never_change(
    key: str | int | None, record: dict[str, Any], digits: str
) -> None:
    assert derive_topic_id(GROUP, key, record) == f"{GROUP}@TOPIC#_{digits}"


def test_field_order_does_not_change_the_topic_id() -> None:
    record = {"TopicName": "general", "GroupId": GROUP}
    turned = dict(reversed(record.items()))
    assert derive_topic_id(GROUP, None, record) == derive_topic_id(GROUP, None, turned)


AS_JSON_LINES = {"GroupId": GROUP, "TopicName": "话题 😀", "CreateTime": 1448357837}
"""The record of the last vector above."""


def ids(path: Path) -> list[str | None]:
    found = []
    for batch in batches(resolve(str(path)), RecordRules(key_field=None), 1 << 20):
        for record in batch:
            assert isinstance(record.topic, Topic), record.topic
            found.append(record.topic.topic_id)
    return found


def test_a_record_of_an_array_has_the_topic_id_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "topics.json"
    path.write_bytes(orjson.dumps([AS_JSON_LINES], option=orjson.OPT_INDENT_2))
    assert ids(path) == [f"{GROUP}@TOPIC#_d15d68ed3291b08118e49b6e46c21344"]


def test_a_row_of_a_table_is_its_header_and_texts_without_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "topics.csv"
    path.write_text(f"GroupId,TopicName,Introduction,CreateTime\n{GROUP},话题 😀,,1448357837\n")
    assert ids(path) == [f"{GROUP}@TOPIC#_beaea44a6002490ac8331c35b2821ad6"]


def test_a_row_of_parquet_is_its_json_form(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "topics.parquet"
    columns = {name: [value] for name, value in AS_JSON_LINES.items()} | {"Introduction": [None]}
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path)
    assert ids(path) == [f"{GROUP}@TOPIC#_d15d68ed3291b08118e49b6e46c21344"]
