"""How long a failed record waits for its next attempt."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Bounds for the attempts of one record: the settings of the section `retry`."""

    max_attempts: int = 8
    base_delay_s: float = 0.5
    max_delay_s: float = 30.0
    patience_s: float = 600.0


def backoff_s(policy: RetryPolicy, failures: int, chance: float) -> float:
    """Return the seconds to wait after the `failures`-th failure: exponential with full jitter.

    `chance`: a random number, uniform in [0, 1).
    """
    # With 2**32 any sensible max_delay_s is reached; a larger exponent could overflow the float.
    exponent = min(max(failures, 1) - 1, 32)
    return chance * min(policy.max_delay_s, policy.base_delay_s * 2.0**exponent)
