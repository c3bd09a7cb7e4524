"""The pace: which share of the quota to use, found from the calls that the service refuses.

The service counts its own seconds, and other clients may use the same quota, so only refusals show
which rate it accepts. Each refusal lowers the rate by about one call a second. Then the rate
returns to the level at which calls were refused, fast at first, and later rises beyond it.

`worker/quota/shared.lua` computes the same for a shared quota; a test compares the two.
"""

from dataclasses import dataclass, replace
from math import exp

FACTOR_MIN = 0.01
"""The lowest share of the quota: some calls must go out to find that more are accepted."""
PAUSE_INTERVALS = 2.0
"""The longest pause after one refusal, in intervals between two calls."""
PAUSE_MAX_S = 1.0
PAUSE_WITHOUT_RATE_S = 0.1
"""Used if no quota is set: then there is no interval between two calls."""
ONE_CALL_MAX = 0.02
"""The most by which one refusal lowers the share; one call of a quota of 5/s would be a fifth."""
FOR_OTHERS = 0.06
"""Refusals far below the quota mean that other clients use it, too, and that we take from them."""
ALL_REFUSED_S = 1.0
"""If all calls are refused for longer than the service counts, the rate itself is too high."""
ALL_REFUSED_RATE = 0.9
ALL_REFUSED_WALL = 0.97
RETURN_S = 3.0
"""In so long the gap to the rate at which calls were last refused closes by about two thirds."""
RISE_PER_S2 = 0.0006
"""Beyond that rate the share rises by 0.01 in 4 s, so that trying costs few refusals, and by 0.24
in 20 s, so that a quota that others no longer use is soon used again."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What the refusals so far have shown; times are seconds of any monotonic clock.

    A *round* begins with the refusal of a call that started after the previous round had lowered
    the rate; refusals of older calls belong to the previous round and prove nothing new.

    Shares of the quota: `slowed_to`, after the last refusal; `wall`, at which calls are refused,
    smoothed; `round_from`, before this round. `refused`, `answered`: how many calls of this round
    were refused and not. `all_refused_since_s`: the first refusal since a call was not refused.
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
        """Return the pace after the refusal of a call that started at `started_s`.

        `interval_s`: seconds between two calls at the rate in force, 0 without a quota.

        If all calls are refused for a moment, the rate is not the reason: the service fails, or
        its window has to drain. Then the rate falls less, calls pause for longer, and the wall
        stays. If that lasts, the rate is far too high: it falls by a factor, and so does the wall.
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
        # Refusals of one round keep coming for as long as a reply takes (up to 3 s): never go below
        # the rate that was accepted in this round.
        passed = min(factor, self.round_from * (1.0 - share))
        return replace(slowed, slowed_to=max(slowed.slowed_to, passed), refused=self.refused + 1)

    def passed(self) -> "Pace":
        """Return the pace after a call that was not refused."""
        return replace(self, answered=self.answered + 1)

    def factor(self, now_s: float) -> float:
        """Return the share of the quota to use now, in [FACTOR_MIN, 1]."""
        rested_s = max(0.0, now_s - max(self.slowed_at_s, self.paused_until_s))
        if rested_s == float("inf"):
            return 1.0
        gap = max(0.0, self.wall - self.slowed_to)
        returned = gap * (1.0 - exp(-rested_s / RETURN_S))
        return min(1.0, self.slowed_to + returned + RISE_PER_S2 * rested_s**2)
