"""The pace: which share of the quota to use, found from the calls that the service refuses.

The service counts its own seconds, and other clients may use the same quota, so only refusals
show which rate it accepts. Each refusal lowers the rate by about one call a second. Then the rate
returns to the level at which calls were refused, fast at first, and later rises beyond it.

Some services refuse calls whatever the rate. With 2 % of such refusals the rule above alone ends
at 16 % of the quota. So the pace also asks whether slowing down helps: over the recent calls it
computes how much the share of refused calls grows with the rate (a least-squares line, five
sums). At a limit the share grows by about as much as the rate does, also if other clients use the
quota. If it surely grows by less than a quarter of that, calls are refused at random: the rate
returns, and for a minute that share of refusals, and half as many more, does not lower it. Then
refusals lower it again, which is the next test. A test needs no experiment: the rate varies
because refusals lower it.

Two simpler ways were measured and left. One level before a fall and one after it: refusals that
begin with a cluster, or with another client, mislead it. The best of the levels that were tried:
it takes the calls of other clients.

`worker/quota/shared.lua` computes the same for a shared quota; a test compares the two.
"""

from dataclasses import dataclass, replace
from math import exp, sqrt

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
"""Refusals far below the quota mean that other clients use it, too, and that we take from
them."""
ALL_REFUSED_S = 1.0
"""If all calls are refused for longer than the service counts, the rate itself is too high."""
ALL_REFUSED_RATE = 0.9
ALL_REFUSED_WALL = 0.97
ALL_REFUSED_MIN_S = 0.1
ALL_REFUSED_MAX_S = 5.0
"""If all calls are refused for a time between these, the service counts refused calls, too,
and accepts none before the rate is below its limit. A shorter time is chance, a longer one is
an outage."""
MOSTLY_REFUSED = 0.5
"""The same holds for replies that come late, if more than this share of them are refusals."""
STAY_PER_S = 30.0
STAY_MAX_S = 30.0
"""Each try beyond such a limit costs the time in which all calls are refused (over 1 s if
replies take 1 s), so the next one waits so many times as long."""
RETURN_S = 3.0
"""In so long the gap to the rate at which calls were last refused closes by about two thirds."""
RISE_PER_S2 = 0.0006
"""Beyond that rate the share rises by 0.01 in 4 s, so that trying costs few refusals, and by 0.24
in 20 s, so that a quota that others no longer use is soon used again."""
LIMIT_SLOPE = 0.25
"""At a limit the share of refused calls grows by more than this for each part of the quota by
which the rate grows: by 1 where the limit begins, by a third far above it."""
SURE = 2.5
"""So many standard errors make a slope sure. It is judged after each refusal, so 2 err too
often."""
DOUBT = 0.5
"""Fewer are enough to end the belief that calls are refused at random: it may harm other
clients."""
DEVIATION_MIN = 0.03
"""The rate has to fall by a tenth of the quota or so: close to a limit it varies by 0.01 to 0.02
together with the refusals, which makes any slope."""
RANDOM_MAX = 0.25
"""If more calls are refused, that is not taken for chance."""
CALLS_MIN = 200
CALLS_KEPT = 2500.0
KEPT_S = 12.5
"""How many calls the slope is computed from, the more of them the higher the quota is: older ones
fade."""
RANDOM_S = 60.0
"""So long a slope is believed."""
ALLOWED = 1.5
ALLOWANCE_MAX = 10.0
"""Refusals at random come in clusters: so many times their mean share does not lower the
rate, and up to so many of them are saved up."""
SPREAD = sqrt(3.0)
"""The highest of evenly spread values lies so many standard deviations above their mean."""
VARIANCE_MIN = 1e-9


@dataclass(frozen=True, slots=True)
class Trend:
    """How the share of refused calls depends on the rate: sums over recent calls, old ones fading.

    `factors`, `squares`: of the shares of the quota at which the calls started, and their squares.
    `refused`, `refused_factors`: how many calls were refused, and the sum of their factors.
    """

    calls: float = 0.0
    factors: float = 0.0
    squares: float = 0.0
    refused: float = 0.0
    refused_factors: float = 0.0

    def with_refusal(self, factor: float, *, calls: int, kept: float) -> "Trend":
        """Add `calls` calls of which the last was refused; about `kept` calls count."""
        fading = kept / (kept + calls)
        return Trend(
            calls=self.calls * fading + calls,
            factors=self.factors * fading + calls * factor,
            squares=self.squares * fading + calls * factor**2,
            refused=self.refused * fading + 1,
            refused_factors=self.refused_factors * fading + factor,
        )

    @property
    def share(self) -> float:
        """The share of calls that were refused, in [0, 1]."""
        return self.refused / self.calls

    @property
    def highest(self) -> float:
        """The highest share of the quota among the calls, in [0, 1], taken for evenly spread."""
        return min(1.0, self.factors / self.calls + SPREAD * self.deviation)

    def slope(self) -> tuple[float, float]:
        """Return by how much the refused share grows with the factor, and the standard error."""
        mean = self.factors / self.calls
        slope = (self.refused_factors / self.calls - mean * self.share) / self._variance
        chance = max(0.0, self.share * (1.0 - self.share))
        return slope, sqrt(chance / (self.calls * self._variance))

    @property
    def deviation(self) -> float:
        """The standard deviation of the shares of the quota at which the calls started."""
        return sqrt(self._variance)

    @property
    def _variance(self) -> float:
        return max(VARIANCE_MIN, self.squares / self.calls - (self.factors / self.calls) ** 2)


@dataclass(frozen=True, slots=True)
class Pace:
    """What the refusals so far have shown; times are seconds of any monotonic clock.

    A *round* begins with the refusal of a call that started after the previous round had lowered
    the rate; refusals of older calls belong to the previous round and prove nothing new.

    Shares of the quota: `slowed_to`, after the last refusal; `wall`, at which calls are refused,
    smoothed; `round_from`, before this round. `refused`, `answered`: how many calls of this round
    were refused and not. `all_refused_since_s`: the first refusal since a call was not refused.
    `stay_s`: so long the rate stays at the wall before it rises beyond it.

    `trend`: of the calls up to the last refusal; `passed_since`: calls not refused after it.
    `random_share`: share of calls that are refused whatever the rate, believed until
    `random_until_s`. `allowance`: so many refusals more do not lower the rate.
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
    stay_s: float = 0.0
    trend: Trend = Trend()
    passed_since: int = 0
    random_share: float = 0.0
    random_until_s: float = float("-inf")
    allowance: float = 0.0

    def throttled(self, now_s: float, *, started_s: float, interval_s: float) -> "Pace":
        """Return the pace after the refusal of a call that started at `started_s`.

        `interval_s`: seconds between two calls at the rate in force, 0 without a quota.
        The rate falls, unless as many calls are refused whatever the rate.
        """
        calls = self.passed_since + 1
        judged = self.with_trend(now_s, started_s, interval_s).judged(now_s)
        if not judged.random_share:
            return replace(judged, allowance=0.0).slowed(now_s, started_s, interval_s)
        allowance = min(ALLOWANCE_MAX, judged.allowance + ALLOWED * judged.random_share * calls)
        if allowance >= 1.0:
            return replace(judged, allowance=allowance - 1.0)
        return replace(judged, allowance=allowance).slowed(now_s, started_s, interval_s)

    def with_trend(self, now_s: float, started_s: float, interval_s: float) -> "Pace":
        """Add the calls since the last refusal, all as if they had started with the refused one."""
        is_older = started_s <= self.round_at_s
        factor = self.round_from if is_older else self.factor(started_s)
        full_interval_s = interval_s * self.factor(now_s)
        kept = max(CALLS_KEPT, KEPT_S / full_interval_s) if full_interval_s else CALLS_KEPT
        trend = self.trend.with_refusal(factor, calls=self.passed_since + 1, kept=kept)
        return replace(self, trend=trend, passed_since=0)

    def judged(self, now_s: float) -> "Pace":
        """Ask whether slowing down helps."""
        random_share = self.random_share if now_s <= self.random_until_s else 0.0
        pace = replace(self, random_share=random_share)
        if self.trend.calls < CALLS_MIN:
            return pace
        slope, error = self.trend.slope()
        if slope < -SURE * error:
            # More refusals at a lower rate: something else has changed, so the past proves nothing.
            return replace(pace, trend=Trend())
        if slope > LIMIT_SLOPE + (DOUBT if random_share else SURE) * error:
            # It helps. What was seen far above the limit must not hide what happens below it.
            return replace(pace, trend=Trend(), random_share=0.0)
        is_sure = (
            slope < LIMIT_SLOPE - SURE * error
            and self.trend.deviation > DEVIATION_MIN
            and self.trend.share < RANDOM_MAX
        )
        if random_share or not is_sure:
            return pace
        return replace(
            pace,
            random_share=self.trend.share,
            random_until_s=now_s + RANDOM_S,
            allowance=ALLOWANCE_MAX,
            slowed_to=self.factor(now_s),
            slowed_at_s=now_s,
            wall=max(self.wall, self.trend.highest),
        )

    def slowed(self, now_s: float, started_s: float, interval_s: float) -> "Pace":
        """Lower the rate.

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
            # A straggler of the calls that were all refused does not end the stay.
            stay_s=self.stay_s if now_s - self.slowed_at_s <= ALL_REFUSED_S else 0.0,
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
        # the rate that was accepted in this round. If nearly none was, a window has to drain, and a
        # rate that is a little lower may be enough.
        is_drained = share <= MOSTLY_REFUSED
        passed = min(factor, self.round_from * (1.0 - share if is_drained else ALL_REFUSED_RATE))
        slowed = replace(slowed, slowed_to=max(slowed.slowed_to, passed), refused=self.refused + 1)
        return slowed if is_drained else slowed.staying(now_s - self.round_at_s)

    def staying(self, all_refused_s: float) -> "Pace":
        """Return the pace that stays longer below a limit beyond which all calls are refused."""
        if all_refused_s <= ALL_REFUSED_MIN_S:
            return self
        wall = self.wall if self.stay_s else max(self.slowed_to, self.wall * ALL_REFUSED_WALL)
        if all_refused_s >= ALL_REFUSED_MAX_S:
            return replace(self, wall=wall)
        stay_s = min(STAY_MAX_S, max(self.stay_s, STAY_PER_S * all_refused_s))
        return replace(self, wall=wall, stay_s=stay_s)

    def passed(self, calls: int = 1) -> "Pace":
        """Return the pace after so many calls that were not refused."""
        counted = replace(
            self, answered=self.answered + calls, passed_since=self.passed_since + calls
        )
        if self.answered or not self.refused:
            return counted
        return counted.staying(self.slowed_at_s - self.all_refused_since_s)

    def factor(self, now_s: float) -> float:
        """Return the share of the quota to use now, in [FACTOR_MIN, 1]."""
        rested_s = max(0.0, now_s - max(self.slowed_at_s, self.paused_until_s))
        if rested_s == float("inf"):
            return 1.0
        gap = max(0.0, self.wall - self.slowed_to)
        returned = gap * (1.0 - exp(-rested_s / RETURN_S))
        rising_s = max(0.0, rested_s - self.stay_s)
        return min(1.0, self.slowed_to + returned + RISE_PER_S2 * rising_s**2)
