"""The circuit breaker: whether calls flow, or single probes find out when they may flow again.

A state machine of values; times are seconds of any monotonic clock, passed in.
"""

OUTAGE_RECORDS = 10
"""So many distinct records failing, with no success between: an outage, not bad luck."""
PROBE_PAUSES_S = (0.25, 0.5, 1.0, 2.0)
"""From the start of one probe to the next: over a minute about one probe in two seconds."""
PROBE_PATIENCE_S = 3.0
"""A probe without an answer holds up the next for so long: the service itself gives up then."""
SILENCE_MIN_S = 0.5
SILENCE_LATENCIES = 4.0
SILENCE_AT_FIRST_S = 5.0
"""How long ten and more open calls may all stay unanswered: some of the usual latencies; before
the first answer, longer than the service's own timeout of 3 s."""
LATENCY_WEIGHT = 0.1


class Breaker:
    """Opens on an outage or on a throttle that only time ends; a success closes it."""

    def __init__(self) -> None:
        self._failing: set[int] = set()
        self._opened_at_s: float | None = None
        self._is_outage = False
        self._held_at_s = float("-inf")
        self._holds = 0
        self._probes = 0
        self._probe_started_s: float | None = None
        self._next_probe_s = float("-inf")
        self._in_flight = 0
        self._heard_at_s = 0.0
        self._latency_s: float | None = None

    def __repr__(self) -> str:
        state = "closed" if self._opened_at_s is None else f"open since {self._opened_at_s:.3f}"
        return f"<Breaker {state} failing={len(self._failing)} in_flight={self._in_flight}>"

    @property
    def is_open(self) -> bool:
        return self._opened_at_s is not None

    @property
    def is_outage(self) -> bool:
        """Open because calls fail or stay unanswered, not because the service asks to wait."""
        return self.is_open and self._is_outage

    def open_for_s(self, now_s: float) -> float:
        return 0.0 if self._opened_at_s is None else now_s - self._opened_at_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next call may start; it may be less when a reply comes."""
        if self._opened_at_s is None and self._is_silent(now_s):
            self._open(now_s, is_outage=True)
        if self._opened_at_s is None:
            return 0.0
        due_s = self._next_probe_s
        if self._probe_started_s is not None:
            due_s = max(due_s, self._probe_started_s + PROBE_PATIENCE_S)
        return max(0.0, due_s - now_s)

    def started(self, now_s: float) -> None:
        """Note a call that starts; while open it is a probe."""
        if not self._in_flight:
            self._heard_at_s = now_s
        self._in_flight += 1
        if self.is_open:
            self._probe_started_s = now_s
            self._wait_before_next_probe(now_s)

    def ended(self, started_s: float, now_s: float, *, answered: bool) -> None:
        """Note the end of a call; `answered`: with an answer, of whatever kind."""
        self._in_flight -= 1
        if self._probe_started_s == started_s:
            self._probe_started_s = None
        if answered:
            self._heard_at_s = now_s
            latency_s = now_s - started_s
            usual_s = latency_s if self._latency_s is None else self._latency_s
            self._latency_s = usual_s + (latency_s - usual_s) * LATENCY_WEIGHT

    def failed(self, record: int, now_s: float) -> None:
        """Note a failure that is no record's fault."""
        if len(self._failing) < OUTAGE_RECORDS:
            self._failing.add(record)
        if len(self._failing) == OUTAGE_RECORDS and not self.is_outage:
            self._open(now_s, is_outage=True)

    def hold(self, now_s: float, pauses_s: tuple[float, ...], *, started_s: float) -> int:
        """Stop calls for the next of `pauses_s`; how many such throttles came in a row.

        0 for one whose call was under way at the last: it tells nothing new.
        """
        if started_s <= self._held_at_s:
            return 0
        if not self.is_open:
            self._open(now_s, is_outage=False)
        self._held_at_s = now_s
        self._holds += 1
        pause_s = pauses_s[min(self._holds, len(pauses_s)) - 1]
        self._next_probe_s = max(self._next_probe_s, now_s + pause_s)
        return self._holds

    def succeeded(self) -> bool:
        """Close: the service does its work; True where it came back from an outage."""
        was_outage = self.is_outage
        self._failing.clear()
        self._holds = 0
        self._opened_at_s = None
        return was_outage

    def _open(self, now_s: float, *, is_outage: bool) -> None:
        if not self.is_open:
            self._opened_at_s = now_s
            self._probes = 0
            self._probe_started_s = None
            self._wait_before_next_probe(now_s)
        self._is_outage = is_outage

    def _wait_before_next_probe(self, now_s: float) -> None:
        pause_s = PROBE_PAUSES_S[min(self._probes, len(PROBE_PAUSES_S) - 1)]
        self._probes += 1
        self._next_probe_s = now_s + pause_s

    def _is_silent(self, now_s: float) -> bool:
        if self._in_flight < OUTAGE_RECORDS:
            return False
        if self._latency_s is None:
            allowed_s = SILENCE_AT_FIRST_S
        else:
            allowed_s = max(SILENCE_MIN_S, SILENCE_LATENCIES * self._latency_s)
        return now_s - self._heard_at_s > allowed_s
