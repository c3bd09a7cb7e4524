"""The rate that holds: how far below the quota to go, and how long to pause, when throttled."""

from dataclasses import dataclass

FIRST_PAUSE_S = 0.1
PAUSE_MAX_S = 60.0
FACTOR_MIN = 0.05
FIRST_SLOW_DOWN = 0.98
SLOW_DOWN = 0.85
RECOVERY_PER_S = 0.01
"""A first throttle is jitter more often than not and costs little; one on its heels means that
others use the quota. Both pass, so the rate comes back by a hundredth a second."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The state of slowing down; times are seconds of any monotonic clock."""

    paused_until_s: float = 0.0
    paused_at_s: float = float("-inf")
    streak: int = 0
    cut_to: float = 1.0
    cut_at_s: float = 0.0

    def throttled(self, now_s: float, *, started_s: float, least_pause_s: float = 0.0) -> "Pace":
        """Answer a throttle for a call started at `started_s`.

        Calls that were already under way when the last pause began tell nothing new.
        """
        until_s = max(self.paused_until_s, now_s + least_pause_s)
        if started_s <= self.paused_at_s:
            return Pace(until_s, self.paused_at_s, self.streak, self.cut_to, self.cut_at_s)
        pause_s = min(PAUSE_MAX_S, FIRST_PAUSE_S * 2.0 ** min(self.streak, 16))
        slow_down = SLOW_DOWN if self.streak else FIRST_SLOW_DOWN
        return Pace(
            paused_until_s=max(until_s, now_s + pause_s),
            paused_at_s=now_s,
            streak=self.streak + 1,
            cut_to=max(FACTOR_MIN, self.factor(now_s) * slow_down),
            cut_at_s=now_s,
        )

    def answered(self, *, started_s: float) -> "Pace":
        """Forget the streak: a call that started after the last pause was let through."""
        if not self.streak or started_s <= self.paused_at_s:
            return self
        return Pace(self.paused_until_s, self.paused_at_s, 0, self.cut_to, self.cut_at_s)

    def factor(self, now_s: float) -> float:
        """Share of the quota to use now, in [FACTOR_MIN, 1]."""
        return min(1.0, self.cut_to + RECOVERY_PER_S * max(0.0, now_s - self.cut_at_s))
