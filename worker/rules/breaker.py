"""The circuit breaker: whether calls flow, or single probes find out when they may flow again.

A state machine of values; times are seconds of any monotonic clock, passed in.
"""

from enum import Enum

OUTAGE_RECORDS = 10
"""So many distinct records failing, with no success between: an outage, not bad luck."""
PROBE_PAUSES_S = (*(0.25,) * 6, *(0.5,) * 4, 1.0)
"""From the start of one probe to the next: ten in the first seconds, for what looks like an outage
may be a row of bad records, then one a second."""
REJECTED_PROBE_PAUSE_S = 0.9
"""A service whose mapping looks wrong probes at least once a second."""
PROBE_PATIENCE_S = 3.0
"""A probe without an answer holds up the next for so long: the service itself gives up then."""
SILENCE_MIN_S = 0.5
SILENCE_LATENCIES = 4.0
SILENCE_AT_FIRST_S = 5.0
"""How long ten and more open calls may all stay unanswered: some of the usual latencies; before
the first answer, longer than the service's own timeout of 3 s."""
LATENCY_WEIGHT = 0.1
POLL_GAP_MAX_S = 0.2
"""The longest gap between two polls of a running process; after a longer one it stood still."""


class Why(Enum):
    """What opened the breaker."""

    FAILURES = "so many records fail"
    SILENCE = "calls stay unanswered"
    THROTTLE = "the service asks to wait"
    REJECTIONS = "record after record is rejected alike"


OUTAGES = frozenset({Why.FAILURES, Why.SILENCE})
"""Calls fail or stay unanswered; the service does not ask to wait."""


class Breaker:
    """Opens on an outage or on a throttle that only time ends; the success of a probe closes it.

    One probe at a time; only one that gets no answer at all has another beside it after
    `PROBE_PATIENCE_S`. `why`: what opened it, None while it is closed. `last_failure`: the latest
    failed call in words, for people.
    """

    def __init__(self) -> None:
        self.last_failure = ""
        self._failing: set[int] = set()
        self.why: Why | None = None
        self._opened_at_s = float("-inf")
        self.closed_at_s = float("-inf")
        self._paused_at_s = float("-inf")
        self._paused_by: int | None = None
        self._pauses = 0
        self._probes = 0
        self._probe_started_s: float | None = None
        self._next_probe_s = float("-inf")
        self._in_flight = 0
        self._answered_at_s = 0.0
        self._polled_at_s = 0.0
        self._latency_s: float | None = None

    def __repr__(self) -> str:
        state = f"open: {self.why.value}" if self.why else "closed"
        return f"<Breaker {state} failing={len(self._failing)} in_flight={self._in_flight}>"

    @property
    def is_open(self) -> bool:
        return self.why is not None

    @property
    def is_outage(self) -> bool:
        """Open because calls fail or stay unanswered, not because the service asks to wait."""
        return self.why is Why.FAILURES or self.why is Why.SILENCE

    @property
    def is_stopped_by_rejections(self) -> bool:
        """Open because record after record was rejected alike."""
        return self.why is Why.REJECTIONS

    def fails_beside(self, record: int) -> bool:
        """Return whether another record failed since the last success, by no fault of its own."""
        return bool(self._failing - {record})

    def open_for_s(self, now_s: float) -> float:
        return now_s - self._opened_at_s if self.is_open else 0.0

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next call may start; it may be less when a reply comes."""
        if self.why is None:
            if not self._is_silent(now_s):
                return 0.0
            self._open(now_s, Why.SILENCE)
        due_s = self._next_probe_s
        if self._probe_started_s is not None:
            due_s = max(due_s, self._probe_started_s + PROBE_PATIENCE_S)
        return max(0.0, due_s - now_s)

    def started(self, now_s: float) -> None:
        """Record a call that starts; while open it is a probe."""
        if not self._in_flight:
            self._answered_at_s = now_s
        self._in_flight += 1
        if self.is_open:
            self._probe_started_s = now_s
            self._wait_before_next_probe(now_s)

    def ended(self, started_s: float, now_s: float, *, answered: bool) -> None:
        """Record the end of a call; `answered`: with an answer, of whatever kind."""
        self._in_flight -= 1
        if self._probe_started_s == started_s:
            self._probe_started_s = None
        if answered:
            self._answered_at_s = now_s
            latency_s = now_s - started_s
            usual_s = latency_s if self._latency_s is None else self._latency_s
            self._latency_s = usual_s + (latency_s - usual_s) * LATENCY_WEIGHT

    def failed(self, record: int, now_s: float) -> None:
        """Record a failure that is no record's fault."""
        if len(self._failing) < OUTAGE_RECORDS:
            self._failing.add(record)
        if len(self._failing) == OUTAGE_RECORDS:
            self._open(now_s, Why.FAILURES)

    def fail_for_all(self, now_s: float) -> None:
        """Open, for all that could be asked fail."""
        self._open(now_s, Why.FAILURES)

    def stop_for_rejections(self, now_s: float) -> None:
        """Open until a record is imported."""
        self._open(now_s, Why.REJECTIONS)

    def wait_until(self, at_s: float) -> None:
        """Let no probe go out before a time that the service asked for."""
        if self.is_open:
            self._next_probe_s = max(self._next_probe_s, at_s)

    def pause(
        self, now_s: float, code: int | None, pauses_s: tuple[float, ...], *, started_s: float
    ) -> int:
        """Stop calls for the next of `pauses_s`; how many throttles by this code came in a row.

        0 for one whose call was under way at the last, which is no new evidence.
        """
        if started_s <= self._paused_at_s:
            return 0
        if not self.is_open:
            self._open(now_s, Why.THROTTLE)
        self._pauses = self._pauses + 1 if code == self._paused_by else 1
        self._paused_at_s, self._paused_by = now_s, code
        pause_s = pauses_s[min(self._pauses, len(pauses_s)) - 1]
        self._next_probe_s = max(self._next_probe_s, now_s + pause_s)
        return self._pauses

    def succeeded(self, now_s: float, *, started_s: float, is_import: bool = True) -> bool:
        """Record that the service did its work for a call, and close if that call was a probe.

        A call from before the breaker opened is no evidence about the present. Return whether this
        ended an outage of failing records.
        """
        if started_s < self._opened_at_s or started_s < self._paused_at_s:
            return False
        why = self.why
        if why is Why.REJECTIONS and not is_import:
            return False
        if why is not None:
            self.why, self.closed_at_s = None, now_s
        self._failing.clear()
        self._pauses = 0
        return why is Why.FAILURES

    def _open(self, now_s: float, why: Why) -> None:
        was_open, self.why = self.is_open, why
        if not was_open:
            self._opened_at_s = now_s
            self._probes = 0
            self._probe_started_s = None
            self._wait_before_next_probe(now_s)

    def _wait_before_next_probe(self, now_s: float) -> None:
        if self.why is Why.REJECTIONS:
            pause_s = REJECTED_PROBE_PAUSE_S
        else:
            pause_s = PROBE_PAUSES_S[min(self._probes, len(PROBE_PAUSES_S) - 1)]
        self._probes += 1
        self._next_probe_s = now_s + pause_s

    def _is_silent(self, now_s: float) -> bool:
        standstill_s = now_s - self._polled_at_s - POLL_GAP_MAX_S
        if standstill_s > 0:
            self._answered_at_s = min(now_s, self._answered_at_s + standstill_s)
        self._polled_at_s = now_s
        if self._in_flight < OUTAGE_RECORDS:
            return False
        if self._latency_s is None:
            allowed_s = SILENCE_AT_FIRST_S
        else:
            allowed_s = max(SILENCE_MIN_S, SILENCE_LATENCIES * self._latency_s)
        return now_s - self._answered_at_s > allowed_s
