"""Who waits, who calls and who backs off: what the pipeline and the carrier share."""

import asyncio
from collections import Counter
from enum import Enum


class Phase(Enum):
    """Where a delivery stands, and so what a stop does to it."""

    WAITING = "waiting for a slot or a turn"
    CALLING = "calling"
    BACKING_OFF = "backing off"
    COMPARING = "being compared with the service"


class Traffic:
    """The deliveries on their way, by phase; every change wakes whoever waits for `changed`.

    `has_untried`: whether the queue may hold records that this run has not tried. The pipeline
    sets it, the carrier reads it: only an untried record can show that a failure is not its own.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.has_untried = False
        self._phases: dict[int, Phase] = {}
        self._in_phase: Counter[Phase] = Counter()

    def __repr__(self) -> str:
        counts = ", ".join(f"{self._in_phase[phase]} {phase.value}" for phase in Phase)
        return f"<Traffic {counts}>"

    @property
    def waiting(self) -> int:
        """Deliveries that wait for a slot or a turn."""
        return self._in_phase[Phase.WAITING]

    @property
    def calling(self) -> int:
        """Deliveries whose call is open."""
        return self._in_phase[Phase.CALLING]

    @property
    def backing_off(self) -> int:
        """Deliveries that wait for their next attempt and hold no slot."""
        return self._in_phase[Phase.BACKING_OFF]

    def is_calling(self, delivery_id: int) -> bool:
        """Return whether the call of a delivery is open."""
        return self._phases.get(delivery_id) is Phase.CALLING

    def enter(self, delivery_id: int, phase: Phase) -> None:
        """Move a delivery into a phase."""
        self._leave_phase(delivery_id)
        self._phases[delivery_id] = phase
        self._in_phase[phase] += 1
        self.changed.set()

    def leave(self, delivery_id: int) -> None:
        """Forget a delivery that has an outcome."""
        self._leave_phase(delivery_id)
        self.changed.set()

    def wake(self) -> None:
        """Wake whoever waits for a change: there may be room, or a stop was asked for."""
        self.changed.set()

    def _leave_phase(self, delivery_id: int) -> None:
        phase = self._phases.pop(delivery_id, None)
        if phase is not None:
            self._in_phase[phase] -= 1
