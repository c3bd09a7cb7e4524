"""The rate that holds: found by what the service refuses, as a share of the quota.

The service's second is not ours and others may use the same quota, so the rate that it lets
through is only known from its refusals: each lowers the rate by a factor, time without one raises
it by a sum that grows.
"""

from dataclasses import dataclass, replace

FACTOR_MIN = 0.01
PAUSE_INTERVALS = 2.0
PAUSE_AT_REFUSED = 0.2
"""Two intervals where a fifth of the calls and more is refused, in proportion below."""
PAUSE_MAX_S = 1.0
PAUSE_WITHOUT_RATE_S = 0.1
"""Where no quota is set there is no interval between two calls to go by."""
SLOW_DOWN_MIN = 0.005
SLOW_DOWN_BESIDE_OTHERS = 0.06
"""The least by which one refusal lowers the rate. At the whole quota it is jitter more often than
not; the farther below, the surer it is that others use the quota and are refused because of us."""
SLOW_DOWN_BY_SQUARE = 2.0
SLOW_DOWN_MAX = 0.5
REFUSED_WEIGHT = 1 / 20
"""Refusals close together lower the rate by the square of their share of the last twenty calls."""
REFUSED_BY_OTHERS = 0.25
"""From this share on, those refused of the calls that were under way lower the rate further: with
3 s to an answer the first refusal alone would take minutes to find the rate."""
RISE_PER_S = 0.003
RISE_PER_S2 = 0.0008
"""A hundredth in two seconds, so that trying out costs few refusals; a tenth in nine and a half in
twenty-three, so that a quota which is free again is not left unused for long."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What the refusals so far say; times are seconds of any monotonic clock."""

    paused_until_s: float = float("-inf")
    slowed_at_s: float = float("-inf")
    slowed_from: float = 1.0
    slowed_to: float = 1.0
    refused: float = 0.0

    def throttled(self, now_s: float, *, started_s: float, interval_s: float) -> "Pace":
        """Answer a refusal of a call started at `started_s`; `interval_s` lies between two calls.

        Calls that were under way when the rate was last lowered do not lower it again.
        """
        refused = self.refused + (1.0 - self.refused) * REFUSED_WEIGHT
        by_square = min(SLOW_DOWN_MAX, SLOW_DOWN_BY_SQUARE * refused**2)
        if started_s <= self.slowed_at_s:
            if refused < REFUSED_BY_OTHERS:
                return replace(self, refused=refused)
            deeper = min(self.slowed_to, max(FACTOR_MIN, self.slowed_from * (1.0 - by_square)))
            return replace(self, refused=refused, slowed_to=deeper)
        factor = self.factor(now_s)
        least = SLOW_DOWN_MIN + SLOW_DOWN_BESIDE_OTHERS * (1.0 - factor)
        slow_down = max(least, by_square)
        pause_s = min(1.0, refused / PAUSE_AT_REFUSED) * PAUSE_INTERVALS * interval_s
        return Pace(
            paused_until_s=now_s + min(PAUSE_MAX_S, pause_s or PAUSE_WITHOUT_RATE_S),
            slowed_at_s=now_s,
            slowed_from=factor,
            slowed_to=max(FACTOR_MIN, factor * (1.0 - slow_down)),
            refused=refused,
        )

    def answered(self) -> "Pace":
        """Note a call that was not refused."""
        if self.refused < REFUSED_WEIGHT**2:
            return self
        return replace(self, refused=self.refused * (1.0 - REFUSED_WEIGHT))

    def factor(self, now_s: float) -> float:
        """Share of the quota to use now, in [FACTOR_MIN, 1]."""
        rested_s = max(0.0, now_s - max(self.slowed_at_s, self.paused_until_s))
        if rested_s == float("inf"):
            return 1.0
        return min(1.0, self.slowed_to + RISE_PER_S * rested_s + RISE_PER_S2 * rested_s**2)
