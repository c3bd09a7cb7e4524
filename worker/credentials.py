"""The current signature and its renewal."""

from collections.abc import Callable

from worker.logs import logger
from worker.redaction import keep_secret
from worker.rules.usersig import Signature, sign

log = logger()

LIFE_S = 24 * 3600
MARGIN_S = 2 * 3600
"""A signature is renewed so long before its end: room for a clock that is wrong by an hour."""


JUMP_MIN_S = 60.0


class SigningCredentials:
    """Signs with the app's key, anew before the signature ends or when the service asks.

    Its age is told by the clock that never jumps; where the wall clock walks away from that (it
    was set, or the machine slept), the signature's own time is wrong and a new one is made.
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
        age_s = self.age_s
        jump_s = self._wall_clock() - self._signed_at_wall_s - age_s
        if abs(jump_s) > JUMP_MIN_S:
            log.warning("the wall clock jumped: a new signature is made", by_s=round(jump_s))
            self._sign()
        elif age_s >= LIFE_S - MARGIN_S:
            self._sign()
        return self._signature

    def renew(self, stale: Signature) -> bool:
        if stale.generation == self._generation:
            self._sign()
            log.info("signature renewed", generation=self._generation)
        return True

    def _sign(self) -> None:
        self._signed_at_wall_s = self._wall_clock()
        self._signed_at_s = self._clock()
        self._generation += 1
        value = sign(
            self._sdk_app_id,
            self._admin,
            self._key,
            issued_s=int(self._signed_at_wall_s),
            life_s=LIFE_S,
        )
        keep_secret(value, passing=True)
        self._signature = Signature(value, self._generation)


class GivenCredentials:
    """A ready signature, which nobody here can renew."""

    def __init__(self, usersig: str) -> None:
        keep_secret(usersig)
        self._signature = Signature(usersig, 1)

    @property
    def age_s(self) -> float:
        """Nobody here knows when it was made."""
        return float("nan")

    def current(self) -> Signature:
        return self._signature

    def renew(self, stale: Signature) -> bool:
        return stale.generation != self._signature.generation
