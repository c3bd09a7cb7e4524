"""How often a new signature may be made before the run halts."""

from worker.rules.verdict import Halt

RENEWALS_MAX = 3
RENEWALS_WINDOW_S = 60.0


class Renewals:
    """Counts renewals without a success between; times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._renewed_at_s: list[float] = []

    def end(self) -> None:
        """Begin to count anew: a call succeeded."""
        self._renewed_at_s.clear()

    def renew(self, code: int, message: str, now_s: float, *, once: bool) -> Halt | None:
        """Allow one more renewal, or halt because renewing does not help."""
        self._renewed_at_s = [at for at in self._renewed_at_s if now_s - at < RENEWALS_WINDOW_S]
        allowed = 1 if once else RENEWALS_MAX
        if len(self._renewed_at_s) >= allowed:
            return Halt(
                code,
                f"{message}: a new signature does not help; check app.secret_key, app.sdk_app_id, "
                "app.admin and this machine's clock",
            )
        self._renewed_at_s.append(now_s)
        return None
