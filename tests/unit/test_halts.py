"""How a halted service tries again."""

from itertools import islice

from worker.rules.halts import HaltCode, Probe, pauses_s, probes


def test_pauses_grow_and_the_last_one_repeats() -> None:
    assert list(islice(pauses_s(), 6)) == [5, 10, 30, 60, 60, 60]


def test_each_probe_takes_more_records_up_to_a_bound() -> None:
    assert list(islice(probes(), 2)) == [Probe(5, 2), Probe(10, 4)]
    assert list(islice(probes(), 4, 7)) == [Probe(60, 32), Probe(60, 32), Probe(60, 32)]


def test_a_code_of_our_own_is_written_as_its_word() -> None:
    assert f"halted ({HaltCode.STORAGE})" == "halted (storage)"
