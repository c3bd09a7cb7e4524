"""Entries that outgrow memory come back from the disk, in their partitions and their order."""

import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.jobs.checking.places import Places
from worker.jobs.checking.sizes import Sizes
from worker.jobs.checking.spool import Spool

ENTRIES = st.lists(st.lists(st.integers(0, 2**24 - 1).map(lambda n: n.to_bytes(3, "big"))))


@given(ENTRIES, st.integers(0, 20))
def test_partitions_hold_every_entry_in_the_order_of_adding(
    batches: list[list[bytes]], memory_bytes_max: int
) -> None:
    spool = Spool(memory_bytes_max)
    for batch in batches:
        spool.add(batch)
    entries = [entry for batch in batches for entry in batch]
    expected = sorted(entries, key=lambda entry: entry[0])
    assert b"".join(spool.partitions()) == b"".join(expected)
    spool.close()


def test_a_directory_that_takes_no_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    spool = Spool(memory_bytes_max=0)
    with pytest.raises(OSError, match="/nowhere"):
        spool.add([b"a"])


def test_sizes_are_whole_although_the_communities_outgrow_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.jobs.checking.sizes.COMMUNITIES_IN_MEMORY", 10)
    sizes = Sizes()
    for number in range(300):
        sizes.add(f"@TGS#_{number % 30}")
    assert dict(sizes.all()) == {f"@TGS#_{number}": 10 for number in range(30)}


def test_a_number_among_all_inputs_names_its_place() -> None:
    places = Places()
    places.begin("a.jsonl")
    assert places.count(3) == 0
    places.begin("empty.jsonl")
    places.begin("b.jsonl")
    assert places.count(1) == 3
    assert [places.name(number) for number in (1, 3, 4)] == ["a.jsonl:1", "a.jsonl:3", "b.jsonl:1"]
