"""The current signature, and when it is renewed."""

from collections.abc import Callable

from worker.logs import logger
from worker.redaction import keep_secret
from worker.rules.usersig import Signature, sign

log = logger()

LIFE_S = 24 * 3600
MARGIN_S = 2 * 3600
"""A signature is renewed so long before its end, in case a clock is wrong by an hour."""
JUMP_MIN_S = 60.0


class SigningCredentials:
    """Signs with the app's key, and again before a signature expires or when the service asks.

    The age of a signature is measured with `clock`, which is monotonic. If `wall_clock` (Unix
    seconds) drifts from it by more than JUMP_MIN_S (it was set, or the machine slept), the time in
    the signature is wrong and a new one is made.
    """

    def __init__(
        self,
        sdk_app_id: int,
        admin: str,
        key: str,
        *,
        wall_clock: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._sdk_app_id = sdk_app_id
        self._admin = admin
        self._key = key
        self._wall_clock = wall_clock
        self._clock = clock
        self._generation = 0
        keep_secret(key)
        self._sign()

    def __repr__(self) -> str:
        return f"<SigningCredentials {self._admin} generation {self._generation}>"

    @property
    def age_s(self) -> float:
        """Seconds since the current signature was made."""
        return self._clock() - self._signed_at_s

    def current(self) -> Signature:
        """Return a signature that is valid now, made anew if necessary."""
        # Each call asks twice: two clocks and three comparisons are all that it may cost.
        now_s = self._clock()
        jump_s = self._wall_clock() - now_s - self._wall_ahead_s
        if now_s < self._renew_at_s and -JUMP_MIN_S <= jump_s <= JUMP_MIN_S:
            return self._signature
        if abs(jump_s) > JUMP_MIN_S:
            log.warning("the wall clock jumped: a new signature is made", by_s=round(jump_s))
        self._sign()
        return self._signature

    def renew(self, stale: Signature) -> bool:
        """Replace `stale`, unless it was replaced already; return True."""
        if stale.generation == self._generation:
            self._sign()
            log.info("signature renewed", generation=self._generation)
        return True

    def _sign(self) -> None:
        signed_at_wall_s = self._wall_clock()
        self._signed_at_s = self._clock()
        self._renew_at_s = self._signed_at_s + LIFE_S - MARGIN_S
        self._wall_ahead_s = signed_at_wall_s - self._signed_at_s
        self._generation += 1
        value = sign(
            self._sdk_app_id,
            self._admin,
            self._key,
            issued_s=int(signed_at_wall_s),
            life_s=LIFE_S,
        )
        keep_secret(value, passing=True)
        self._signature = Signature(value, self._generation)


class GivenCredentials:
    """A ready signature (`app.usersig`), which cannot be renewed without the key."""

    def __init__(self, usersig: str) -> None:
        keep_secret(usersig)
        self._signature = Signature(usersig, 1)

    @property
    def age_s(self) -> float:
        """NaN: it is not known when the signature was made."""
        return float("nan")

    def current(self) -> Signature:
        return self._signature

    def renew(self, stale: Signature) -> bool:
        """Return False for the given signature: there is no other."""
        return stale.generation != self._signature.generation
