"""The rate that holds: found by what the service refuses, as a share of the quota.

The service's second is not ours and others may use the same quota, so the rate that it lets
through is only known from its refusals. Each takes back what it was too much, one call of a
second's; then the rate comes back to where it was refused, fast at first, and only later beyond.
"""

from dataclasses import dataclass, replace
from math import exp

FACTOR_MIN = 0.01
PAUSE_INTERVALS = 2.0
PAUSE_MAX_S = 1.0
PAUSE_WITHOUT_RATE_S = 0.1
"""Where no quota is set there is no interval between two calls to go by."""
ONE_CALL_MAX = 0.02
"""The most by which one refusal lowers the rate: of a quota of 5/s one call is a fifth."""
FOR_OTHERS = 0.06
"""Far below the quota a refusal tells of others who use it, and who are refused because of us."""
ALL_REFUSED_S = 1.0
"""Nothing else explains that all are refused for longer than the service's own second."""
ALL_REFUSED_RATE = 0.9
ALL_REFUSED_WALL = 0.97
RETURN_S = 3.0
"""The gap to the rate at which calls were last refused closes by two thirds in so long."""
RISE_PER_S2 = 0.0006
"""Beyond it a hundredth in four seconds, so that trying out costs few refusals, and a quarter in
twenty, so that a quota which is free again is not left unused for long."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What the refusals so far say; times are seconds of any monotonic clock.

    A *round* begins when a call is refused that started after the round before had lowered the
    rate: its refusals are news.
    `wall`: the rate at which calls are refused, smoothed; `round_from`: the rate before this round;
    `refused`, `answered`: calls of this round, refused and not; `all_refused_since_s`: the first
    refusal since a call was answered.
    """

    paused_until_s: float = float("-inf")
    slowed_at_s: float = float("-inf")
    slowed_to: float = 1.0
    wall: float = 1.0
    round_at_s: float = float("-inf")
    round_from: float = 1.0
    refused: int = 0
    answered: int = 0
    all_refused_since_s: float = float("-inf")

    def throttled(self, now_s: float, *, started_s: float, interval_s: float) -> "Pace":
        """Answer a refusal of a call started at `started_s`; `interval_s` lies between two calls.

        Where all are refused for a moment it is not the rate that they tell of: a service that
        fails for a while, or whose window has to drain. The rate falls less, calls pause for
        longer, and the wall stays. Where that lasts, more is refused because so much was: the rate
        falls by a factor, and the wall with it.
        """
        factor = self.factor(now_s)
        share = (self.refused + 1) / (self.refused + 1 + self.answered)
        one_call = min(ONE_CALL_MAX, factor * interval_s)
        for_others = FOR_OTHERS * factor * (1.0 - factor)
        slowed_to = factor - one_call * (1.0 - share / 2) - for_others * (1.0 - share)
        pause_s = min(PAUSE_MAX_S, PAUSE_INTERVALS * share * interval_s) or PAUSE_WITHOUT_RATE_S
        since_s = now_s if self.answered or not self.refused else self.all_refused_since_s
        slowed = replace(
            self,
            paused_until_s=max(self.paused_until_s, now_s + pause_s),
            slowed_at_s=now_s,
            slowed_to=max(FACTOR_MIN, slowed_to),
            all_refused_since_s=since_s,
        )
        if started_s > self.round_at_s:
            wall = max(factor, factor + (self.wall - factor) * (1.0 + share) / 2)
            if now_s - since_s > ALL_REFUSED_S:
                slowed_to = max(FACTOR_MIN, slowed_to * ALL_REFUSED_RATE)
                slowed = replace(slowed, slowed_to=slowed_to)
                wall = max(slowed_to, wall * ALL_REFUSED_WALL)
            return replace(
                slowed, wall=wall, round_at_s=now_s, round_from=factor, refused=1, answered=0
            )
        # With 3 s to an answer the refusals of one round go on for 3 s: no less than what passed.
        passed = min(factor, self.round_from * (1.0 - share))
        return replace(slowed, slowed_to=max(slowed.slowed_to, passed), refused=self.refused + 1)

    def passed(self) -> "Pace":
        """Note a call that was not refused."""
        return replace(self, answered=self.answered + 1)

    def factor(self, now_s: float) -> float:
        """Share of the quota to use now, in [FACTOR_MIN, 1]."""
        rested_s = max(0.0, now_s - max(self.slowed_at_s, self.paused_until_s))
        if rested_s == float("inf"):
            return 1.0
        gap = max(0.0, self.wall - self.slowed_to)
        returned = gap * (1.0 - exp(-rested_s / RETURN_S))
        return min(1.0, self.slowed_to + returned + RISE_PER_S2 * rested_s**2)
