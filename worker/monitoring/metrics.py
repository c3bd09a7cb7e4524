"""The metrics of a service: the name, kind and meaning of each, in one place."""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from worker.logs import logger
from worker.rules.service_status import State

log = logger()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = ("imported", "dead", "duplicate")
STATES = tuple(state.value for state in State)
CALL_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CODES_MAX = 200
"""Most codes that get a series of their own: new codes without end must not fill the memory."""
OTHER_CODE = "other"
QUOTA_USE_WINDOW_S = 10.0
SAMPLE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Gauges:
    """Functions that are called at every scrape; a gauge that returns NaN is left out.

    `calls_started`: all calls of this process so far; the used share of the quota is computed from
    it.
    """

    in_flight: Callable[[], float]
    waiting_for_retry: Callable[[], float]
    waiting_for_turn: Callable[[], float]
    oldest_pending_s: Callable[[], float]
    queued: Callable[[], float]
    rate_in_force_per_s: Callable[[], float]
    calls_started: Callable[[], float]
    signature_age_s: Callable[[], float]
    ready: Callable[[], float]
    state: Callable[[], str]


class Metrics:
    """The metrics of one service. `quota_per_s`: calls a second, 0 without a quota."""

    def __init__(self, gauges: Gauges, *, quota_per_s: float, clock: Callable[[], float]) -> None:
        self._registry = _Registry()
        self._quota_use = _QuotaUse(gauges.calls_started, quota_per_s, clock)
        self._codes: set[str] = set()
        self._failing: set[str] = set()
        records = Counter(
            "topic_import_records_total",
            "Records settled by this process: imported, dead (dead-lettered), or duplicate (read "
            "again).",
            ["outcome"],
            registry=self._registry,
        )
        self._records = {outcome: records.labels(outcome) for outcome in OUTCOMES}
        self._calls = Counter(
            "topic_import_calls_total",
            "Replies to calls, transport failures included, by what they meant (verdict) and by "
            f"the service's error code: empty where none came, {OTHER_CODE} beyond the first "
            f"{CODES_MAX} different codes.",
            ["verdict", "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "topic_import_call_seconds",
            "Seconds from the start of a call to its reply or its failure.",
            buckets=CALL_BUCKETS_S,
            registry=self._registry,
        )
        self._lost = Counter(
            "topic_import_lost_total",
            "Records that Redis trimmed out of the stream before they were settled. Above 0: "
            "look at the limits of the stream and its producers.",
            registry=self._registry,
        )
        self._add_gauges_of_records(gauges)
        self._add_gauges_of_calls(gauges)
        self._add_health(gauges)

    def called(self, verdict: str, code: int | None, seconds: float) -> None:
        """Count a reply, and how long its call took; `verdict` in lower case."""
        self._quota_use.sample()
        self._calls.labels(verdict, self._code_label(code)).inc()
        self._seconds.observe(seconds)

    def settled(self, outcome: str, count: int) -> None:
        """Count records that were settled with one of `OUTCOMES`."""
        self._records[outcome].inc(count)

    def lost(self, count: int) -> None:
        """Count records that Redis no longer held when they were due."""
        self._lost.inc(count)

    def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus, see `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def _add_gauges_of_records(self, gauges: Gauges) -> None:
        add = self._add_gauge
        add(
            "topic_import_waiting_for_retry",
            "Records that failed and wait for their next attempt; they hold no slot.",
            gauges.waiting_for_retry,
        )
        add(
            "topic_import_waiting_for_turn",
            "Records taken that wait for a slot or for their turn in the quota.",
            gauges.waiting_for_turn,
        )
        add(
            "topic_import_oldest_pending_seconds",
            "Age of the oldest record that was taken and is not settled.",
            gauges.oldest_pending_s,
        )
        add(
            "topic_import_queued",
            "Records in the queue, those on their way included.",
            gauges.queued,
        )

    def _add_gauges_of_calls(self, gauges: Gauges) -> None:
        add = self._add_gauge
        add("topic_import_in_flight", "Calls open now.", gauges.in_flight)
        add(
            "topic_import_rate_in_force",
            "Calls per second that the worker allows itself now, at most the quota; 0: no quota "
            "is kept.",
            gauges.rate_in_force_per_s,
        )
        add(
            "topic_import_quota_used_ratio",
            f"Calls started in the last {QUOTA_USE_WINDOW_S:.0f} seconds against those that the "
            "quota allows; with a shared quota, add up the replicas.",
            self._quota_use.ratio,
        )
        add(
            "topic_import_signature_age_seconds",
            "Seconds since the signature in use was made.",
            gauges.signature_age_s,
        )

    def _add_health(self, gauges: Gauges) -> None:
        self._add_gauge("topic_import_ready", "1 while records are imported, else 0.", gauges.ready)
        health = Gauge(
            "topic_import_health",
            "1 for the state of the service, 0 for the others: run, probe (outage, single calls "
            "ask), halt (a person must act), drain (stopping).",
            ["state"],
            registry=self._registry,
        )
        for state in STATES:
            is_current = partial(_is_state, gauges.state, state)
            health.labels(state).set_function(self._safely("topic_import_health", is_current))

    def _add_gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        gauge = Gauge(name, meaning, registry=self._registry)
        gauge.set_function(self._safely(name, read))

    def _safely(self, name: str, read: Callable[[], float]) -> Callable[[], float]:
        """Return NaN for a gauge that fails, so that the others can still be read."""

        def value() -> float:
            try:
                return float(read())
            except Exception as error:
                if name not in self._failing:
                    self._failing.add(name)
                    log.error("a metric cannot be read and is left out", name=name, exc_info=error)
                return math.nan

        return value

    def _code_label(self, code: int | None) -> str:
        if code is None:
            return ""
        label = str(code)
        if label not in self._codes:
            if len(self._codes) >= CODES_MAX:
                return OTHER_CODE
            self._codes.add(label)
        return label


def _is_state(read: Callable[[], str], state: str) -> float:
    return float(read() == state)


class _Registry(CollectorRegistry):
    """Leaves out the `_created` series of the library, and values that are not known (NaN)."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if not sample.name.endswith("_created") and not math.isnan(sample.value)
            ]
            yield metric


class _QuotaUse:
    """The used share of the quota, computed from the number of calls so far.

    A sample is taken with each reply, and the last one of each second is kept. No timer is needed:
    a second without a sample had no reply, so nearly all calls counted since started later.
    """

    def __init__(
        self, calls: Callable[[], float], quota_per_s: float, clock: Callable[[], float]
    ) -> None:
        self._calls = calls
        self._quota_per_s = quota_per_s
        self._clock = clock
        self._samples = deque([(clock(), 0.0)])

    def sample(self) -> None:
        """Record how many calls there were until now."""
        now_s = self._clock()
        samples = self._samples
        if now_s // SAMPLE_EVERY_S == samples[-1][0] // SAMPLE_EVERY_S:
            samples.pop()
        samples.append((now_s, self._calls()))
        while len(samples) > 1 and samples[1][0] <= now_s - QUOTA_USE_WINDOW_S:
            samples.popleft()

    def ratio(self) -> float:
        """Return the used share of the quota, 1 for all of it; NaN without a quota."""
        self.sample()
        if not self._quota_per_s:
            return math.nan
        since_s, calls = self._samples[0]
        # After a pause the oldest sample is older than the window, but the calls since are not.
        seconds = min(self._clock() - since_s, QUOTA_USE_WINDOW_S + SAMPLE_EVERY_S)
        seconds = max(seconds, SAMPLE_EVERY_S)
        return (self._calls() - calls) / seconds / self._quota_per_s
