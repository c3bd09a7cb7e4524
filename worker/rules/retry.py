"""When a failed record is tried again."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds of the repetition of one record's call; delays and patience in seconds."""

    max_attempts: int = 8
    base_delay_s: float = 0.5
    max_delay_s: float = 30.0
    patience_s: float = 600.0


def backoff_s(policy: RetryPolicy, failures: int, chance: float) -> float:
    """Seconds to wait after the `failures`-th failure: exponential, full jitter.

    `chance` is uniform in [0, 1).
    """
    # Past 2**32 the ceiling holds in any sane setting, and a float power would overflow.
    exponent = min(max(failures, 1) - 1, 32)
    return chance * min(policy.max_delay_s, policy.base_delay_s * 2.0**exponent)
