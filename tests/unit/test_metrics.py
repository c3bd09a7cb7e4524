"""The Prometheus metrics: names, types, help texts and values."""

import math
import re
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from worker.monitoring.metrics import CODES_MAX, OTHER_CODE, OUTCOMES, STATES, Gauges, Metrics
from worker.rules import verdict

LABELS = re.compile(r'(\w+)="([^"]*)"')
SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
NO_GAUGES = Gauges(
    in_flight=lambda: 1,
    waiting_for_retry=lambda: 2,
    waiting_for_turn=lambda: 3,
    oldest_pending_s=lambda: 4.5,
    queued=lambda: 5,
    rate_in_force_per_s=lambda: 199.5,
    calls_started=lambda: 0,
    signature_age_s=lambda: 60,
    ready=lambda: True,
    state=lambda: "run",
)
FAMILIES = {
    "topic_import_records_total": "counter",
    "topic_import_calls_total": "counter",
    "topic_import_call_seconds": "histogram",
    "topic_import_lost_total": "counter",
    "topic_import_in_flight": "gauge",
    "topic_import_waiting_for_retry": "gauge",
    "topic_import_waiting_for_turn": "gauge",
    "topic_import_oldest_pending_seconds": "gauge",
    "topic_import_queued": "gauge",
    "topic_import_rate_in_force": "gauge",
    "topic_import_quota_used_ratio": "gauge",
    "topic_import_health": "gauge",
    "topic_import_signature_age_seconds": "gauge",
    "topic_import_ready": "gauge",
}


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def metrics_of(gauges: Gauges = NO_GAUGES, quota_per_s: float = 200.0) -> Metrics:
    return Metrics(gauges, quota_per_s=quota_per_s, clock=Clock())


def values(metrics: Metrics) -> dict[str, float]:
    """Return the value of each sample by its name and labels, as rendered."""
    lines = metrics.render().decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def busy() -> Metrics:
    metrics = metrics_of()
    metrics.called("imported", 0, 0.03)
    metrics.called("retry", None, 10.0)
    metrics.settled("imported", 1)
    return metrics


@pytest.mark.parametrize("metrics", [metrics_of(), busy()])
def test_every_expected_metric_has_one_help_and_one_type(metrics: Metrics) -> None:
    lines = metrics.render().decode().splitlines()
    helped = [line.split(" ", 3) for line in lines if line.startswith("# HELP ")]
    typed = [line.split(" ") for line in lines if line.startswith("# TYPE ")]
    assert {name: kind for _, _, name, kind in typed} == FAMILIES
    assert len(typed) == len(helped) == len(FAMILIES)
    assert [name for _, _, name, _ in helped] == [name for _, _, name, _ in typed]
    assert all(meaning.endswith(".") for *_, meaning in helped)


@pytest.mark.parametrize("metrics", [metrics_of(), busy()])
def test_names_and_samples_follow_the_prometheus_rules(metrics: Metrics) -> None:
    family, seen = "", set()
    for line in metrics.render().decode().splitlines():
        if line.startswith("#"):
            family = line.split(" ")[2]
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        suffix = sample["name"].removeprefix(family)
        is_histogram = FAMILIES[family] == "histogram"
        assert suffix in ({"_bucket", "_sum", "_count"} if is_histogram else {""})
        assert line.rsplit(" ", 1)[0] not in seen
        seen.add(line.rsplit(" ", 1)[0])
        labels = [name for name, _ in LABELS.findall(sample["labels"] or "")]
        assert len(labels) == len(set(labels))
        assert ("le" in labels) == (suffix == "_bucket")
    for name, kind in FAMILIES.items():
        assert name.endswith("_total") == (kind == "counter")
        assert not name.endswith(("_count", "_sum", "_bucket", "_info", "_created"))
        assert not re.search(r"_(ms|milliseconds|minutes|hours|percent|counter|gauge)(_|$)", name)
        assert re.fullmatch(r"topic_import(_[a-z]+)+", name)


def test_the_prometheus_parser_reads_the_output() -> None:
    families = list(text_string_to_metric_families(busy().render().decode()))
    assert len(families) == len(FAMILIES)


def test_replies_are_counted_by_verdict_and_code() -> None:
    metrics = metrics_of()
    metrics.called("imported", 0, 0.03)
    metrics.called("imported", 0, 0.3)
    metrics.called("throttled", 60011, 0.1)
    metrics.called("retry", None, 10.0)
    figures = values(metrics)
    assert figures['topic_import_calls_total{code="0",verdict="imported"}'] == 2
    assert figures['topic_import_calls_total{code="60011",verdict="throttled"}'] == 1
    assert figures['topic_import_calls_total{code="",verdict="retry"}'] == 1
    assert figures['topic_import_call_seconds_bucket{le="0.05"}'] == 1
    assert figures['topic_import_call_seconds_bucket{le="10.0"}'] == 4
    assert figures["topic_import_call_seconds_count"] == 4
    assert figures["topic_import_call_seconds_sum"] == pytest.approx(10.43)


def test_unlimited_different_codes_do_not_fill_the_memory() -> None:
    metrics = metrics_of()
    for code in range(CODES_MAX + 50):
        metrics.called("retry", code, 0.1)
    metrics.called("retry", 0, 0.1)
    figures = values(metrics)
    assert sum(name.startswith("topic_import_calls_total") for name in figures) == CODES_MAX + 1
    assert figures[f'topic_import_calls_total{{code="{OTHER_CODE}",verdict="retry"}}'] == 50
    assert figures['topic_import_calls_total{code="0",verdict="retry"}'] == 2


def test_every_outcome_counter_exists_before_the_first_record() -> None:
    metrics = metrics_of()
    name = 'topic_import_records_total{{outcome="{}"}}'
    assert [values(metrics)[name.format(outcome)] for outcome in OUTCOMES] == [0, 0, 0]
    metrics.settled("imported", 400)
    metrics.settled("dead", 2)
    metrics.settled("dead", 0)
    metrics.lost(7)
    figures = values(metrics)
    assert [figures[name.format(outcome)] for outcome in OUTCOMES] == [400, 2, 0]
    assert figures["topic_import_lost_total"] == 7


def test_an_unknown_outcome_raises_an_error() -> None:
    with pytest.raises(KeyError):
        metrics_of().settled("exhausted", 1)


def test_gauges_are_read_at_every_scrape() -> None:
    queued = 5
    metrics = metrics_of(replace(NO_GAUGES, queued=lambda: queued))
    assert values(metrics)["topic_import_queued"] == 5
    queued = 6
    figures = values(metrics)
    assert figures["topic_import_queued"] == 6
    assert figures["topic_import_in_flight"] == 1
    assert figures["topic_import_waiting_for_retry"] == 2
    assert figures["topic_import_waiting_for_turn"] == 3
    assert figures["topic_import_oldest_pending_seconds"] == 4.5
    assert figures["topic_import_rate_in_force"] == 199.5
    assert figures["topic_import_signature_age_seconds"] == 60
    assert figures["topic_import_ready"] == 1


@pytest.mark.parametrize("state", STATES)
def test_the_current_state_is_1_and_the_others_are_0(state: str) -> None:
    figures = values(metrics_of(replace(NO_GAUGES, state=lambda: state)))
    states = {name: figures[f'topic_import_health{{state="{name}"}}'] for name in STATES}
    assert states == {name: float(name == state) for name in STATES}


def test_a_failing_gauge_is_omitted_and_logged_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> float:
        raise RuntimeError("no counts yet")

    metrics = metrics_of(replace(NO_GAUGES, queued=fail, signature_age_s=lambda: math.nan))
    assert values(metrics) == values(metrics)
    assert values(metrics).keys() == values(metrics_of()).keys() - {
        "topic_import_queued",
        "topic_import_signature_age_seconds",
    }
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("a metric cannot be read and is left out") == 1


def test_the_quota_ratio_is_omitted_without_a_quota() -> None:
    assert "topic_import_quota_used_ratio" not in values(metrics_of(quota_per_s=0.0))


class Calling:
    """Starts calls on its own clock; by default each gets its reply at once."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.started = 0
        gauges = replace(NO_GAUGES, calls_started=lambda: self.started)
        self.metrics = Metrics(gauges, quota_per_s=200.0, clock=self.clock)

    def run(self, seconds: int, per_s: int, *, answered: bool = True) -> None:
        for _ in range(seconds * per_s):
            self.clock.now_s += 1 / per_s
            self.started += 1
            if answered:
                self.metrics.called("imported", 0, 0.05)

    @property
    def ratio(self) -> float:
        return values(self.metrics)["topic_import_quota_used_ratio"]


def test_the_quota_ratio_covers_the_last_seconds() -> None:
    calling = Calling()
    assert calling.ratio == 0
    calling.run(5, 200)
    assert calling.ratio == pytest.approx(1.0, abs=0.02)
    calling.run(60, 200)
    assert calling.ratio == pytest.approx(1.0, abs=0.02)
    calling.run(12, 100)
    assert calling.ratio == pytest.approx(0.5, abs=0.02)


def test_the_quota_ratio_restarts_at_zero_after_an_idle_hour() -> None:
    calling = Calling()
    calling.run(20, 200)
    calling.clock.now_s += 3600
    assert calling.ratio == 0
    calling.clock.now_s += 3600
    calling.run(5, 200)
    assert calling.ratio == pytest.approx(0.5, abs=0.06)
    calling.run(10, 200)
    assert calling.ratio == pytest.approx(1.0, abs=0.02)


def test_calls_without_a_reply_use_the_quota() -> None:
    calling = Calling()
    calling.run(20, 200)
    calling.run(5, 200, answered=False)
    assert calling.ratio == pytest.approx(1.0, abs=0.1)


def test_the_verdict_labels_name_every_verdict() -> None:
    names = {kind.__name__.lower() for kind in verdict.Verdict.__args__}
    assert names == {
        "imported", "retry", "throttled", "renew", "reject", "compare", "holdcommunity", "halt",
    }  # fmt: skip
