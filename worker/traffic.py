"""Who waits, who calls and who backs off: what the pipeline, the line and the carrier share."""

import asyncio


class Traffic:
    """How many deliveries are on their way, by what they do; `changed` wakes the pipeline.

    `waiting`: for a slot or a turn. `calling`: their call is open. `backing_off`: they wait for
    their next attempt and hold no slot. `comparing`: they are compared with the service.
    `has_untried`: whether the queue may hold records that this run has not tried. The pipeline
    sets it, the carrier reads it: only an untried record can show that a failure is not its own.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.has_untried = False
        self.waiting = 0
        self.calling = 0
        self.backing_off = 0
        self.comparing = 0

    def __repr__(self) -> str:
        return (
            f"<Traffic {self.waiting} waiting, {self.calling} calling, "
            f"{self.backing_off} backing off, {self.comparing} comparing>"
        )

    @property
    def carried(self) -> int:
        """Deliveries that have no outcome yet."""
        return self.waiting + self.calling + self.backing_off + self.comparing

    def wake(self) -> None:
        """Wake the pipeline: there may be room, or a stop was asked for."""
        self.changed.set()
