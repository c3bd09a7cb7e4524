"""A run that has not reached the service yet: how long it waits for an address that is wrong."""

from worker.rules.halts import HaltCode
from worker.rules.verdict import Halt, SetupFault

FIRST_CONTACT_S = 20.0
ADVICE = {
    SetupFault.CERTIFICATE: (
        "name the certificate to trust in http.ca_file (a proxy that opens TLS has one of its own)"
    ),
    SetupFault.ADDRESS: "check app.base_url, app.region, app.path, http.proxy and the network",
}


class FirstContact:
    """Halts a run whose calls fail in a way that waiting seldom cures, before anybody answered.

    Times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._failed_first_s: float | None = None
        self._is_made = False

    def made(self) -> None:
        """Remember that the service answered."""
        self._is_made = True

    def failed(self, fault: SetupFault | None, message: str, now_s: float) -> Halt | None:
        """Learn from a failed call; `message` names the failure in words."""
        if self._is_made:
            return None
        if self._failed_first_s is None:
            self._failed_first_s = now_s
        if fault is None:
            return None
        waited_s = now_s - self._failed_first_s
        if fault is not SetupFault.CERTIFICATE and waited_s < FIRST_CONTACT_S:
            return None
        return Halt(HaltCode.OUTAGE, f"the service was never reached: {message}; {ADVICE[fault]}")
