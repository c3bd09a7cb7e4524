"""The turns of a shared quota that one process reserved, and how many it reserves next.

A process asks for its next turns before the last ones are used, so that no call waits for a round
trip. It reserves no more than its callers are likely to use: a turn that nobody uses is lost for
all.
"""

from bisect import insort
from collections import deque
from dataclasses import dataclass

LATE_MAX_S = 0.016
"""A turn that a process comes to later than this is not used: late turns would crowd those of
others (201 of 200 in a second seen after a stall)."""
ROW_MIN_S = 0.02
AHEAD_S = 0.2
"""A process alone reserves half of so many seconds' worth of turns in a row. The more the others
reserve, the less it does, so that all together stay about so far ahead, and a lower rate is soon
felt. Half of what the others leave, not all of it: otherwise any division among them would last."""
ROUND_TRIPS_AHEAD = 4.0
"""The same in round trips, where Redis is far away: more than one round trip's worth in a row."""
MARGIN_S = 0.02
"""The next turns are asked for so long before a round trip would be too late."""
CATCH_UP_SHARE = 0.005
"""A process that uses its turns later than others, because it asked for them late, catches up so
slowly: its rate is higher by this share meanwhile."""
REPLIES_KEPT = 16
REPLIES_FOR_ROUND_TRIP = 4
NEVER_S = float("-inf")


@dataclass(frozen=True, slots=True)
class Row:
    """Turns that were reserved in a row. `now_s`: the time of the reply, on Redis' clock, too."""

    count: int
    first_s: float
    interval_s: float
    now_s: float

    def turns_s(self) -> list[float]:
        """Return the times of the turns; those that have passed are due at once."""
        turns = (self.first_s + number * self.interval_s for number in range(self.count))
        return [max(turn_s, self.now_s) for turn_s in turns]


@dataclass(frozen=True, slots=True)
class _Reply:
    """A reply with the time there. `offset_s`: our clock minus theirs, as far as it shows."""

    round_trip_s: float
    offset_s: float


class OtherClock:
    """What a clock elsewhere shows, from replies that carry its time.

    The quickest reply of late says most: its time is taken for that in the middle of its round
    trip. So processes at different distances agree on when a turn is due.
    """

    def __init__(self) -> None:
        self._replies: deque[_Reply] = deque(maxlen=REPLIES_KEPT)
        self._offset_s = 0.0

    @property
    def round_trip_s(self) -> float:
        """The time to expect of a request: the longest of the last few."""
        return max((r.round_trip_s for r in [*self._replies][-REPLIES_FOR_ROUND_TRIP:]), default=0)

    def note(self, asked_s: float, answered_s: float, theirs_s: float) -> bool:
        """Learn from a reply: when it was asked for and arrived here, and the time there.

        Returns False if no delay explains it: one of the clocks was set, and earlier replies say
        nothing any more.
        """
        reply = _Reply(answered_s - asked_s, (asked_s + answered_s) / 2 - theirs_s)
        is_explained = abs(self._offset_s - reply.offset_s) <= reply.round_trip_s / 2
        if not is_explained:
            self._replies.clear()
        self._replies.append(reply)
        self._offset_s = min(self._replies, key=lambda known: known.round_trip_s).offset_s
        return is_explained

    def here_s(self, theirs_s: float) -> float:
        """Return the time here of a time there."""
        return theirs_s + self._offset_s

    def there_s(self, here_s: float) -> float:
        """Return the time there of a time here."""
        return here_s - self._offset_s


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """A turn: when it is due on the clock of the process, and on Redis' clock, which names it."""

    due_s: float
    name_s: float

    def is_late(self, now_s: float) -> bool:
        """Return whether it has passed too long ago to be used."""
        return now_s > self.due_s + LATE_MAX_S


class Stock:
    """Turns that were reserved and are not used yet, for callers that come one after another."""

    def __init__(self) -> None:
        self.clock = OtherClock()
        self._turns: deque[Turn] = deque()
        self._interval_s = float("inf")
        self._last_s = NEVER_S
        self._late = (NEVER_S, 0.0)
        """Our clock minus Redis' as it was used last, and when that was."""
        self._row_s = AHEAD_S / 2
        self._used_at_s = NEVER_S
        self._eager = 0

    def note(self, asked_s: float, answered_s: float, theirs_s: float) -> None:
        """Learn from a reply what Redis' clock shows."""
        if not self.clock.note(asked_s, answered_s, theirs_s):
            self._late = (NEVER_S, 0.0)

    def add(self, row: Row, now_s: float) -> None:
        """Add turns that were reserved just now."""
        if not row.count:
            return
        self._note_others(row)
        late_s = self._late_s(row, now_s)
        self._turns += [
            Turn(self.clock.here_s(name_s) + late_s, name_s) for name_s in row.turns_s()
        ]
        self._last_s = self._turns[-1].name_s
        self._interval_s = row.interval_s

    def _late_s(self, row: Row, now_s: float) -> float:
        """Return by how much later than they are due all turns of a row are used.

        Turns that were reserved when somebody waited for them already come late, by half a round
        trip at least. Turns that follow them must not crowd them.
        """
        offset_s = self.clock.here_s(0.0)
        known_s, known_at_s = self._late
        caught_up_s = known_s - CATCH_UP_SHARE * (now_s - known_at_s)
        used_s = max(offset_s, caught_up_s)
        is_late = max(row.first_s, row.now_s) + used_s < now_s
        if is_late or known_s == NEVER_S:
            # As late as the reply, and no less: others whose replies come late, too, do the same.
            used_s = max(used_s, now_s - row.now_s)
        self._late = (used_s, now_s)
        return used_s - offset_s

    def _note_others(self, row: Row) -> None:
        """Reserve the less in a row, the more others have reserved since our last row."""
        others_s = row.first_s - max(self._last_s + row.interval_s, row.now_s)
        ahead_s = max(AHEAD_S, ROUND_TRIPS_AHEAD * self.clock.round_trip_s)
        row_s = max(ROW_MIN_S, (ahead_s - max(0.0, others_s)) / 2)
        # Make room for others at once, and take it back slowly.
        self._row_s = min(row_s, self._row_s + (row_s - self._row_s) / 2)

    def clear(self) -> None:
        """Forget all turns: another quota is in force."""
        self._turns.clear()
        self._last_s = NEVER_S

    def caller_came(self, now_s: float) -> None:
        """Record that a caller wants a turn: the sooner after the last one, the more will come."""
        idle_s = now_s - self._used_at_s
        if idle_s <= self._interval_s:
            self._eager += 1
        else:
            # Each turn that nobody wanted in between makes one more turn unlikely.
            self._eager -= int(min(self._eager, idle_s / self._interval_s))

    def pop(self, now_s: float) -> Turn | None:
        """Return the next turn that may be used, None if there is none."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.is_late(now_s):
                return turn
        return None

    def give_back(self, turn: Turn) -> None:
        """Put back a turn whose caller left before it was due."""
        insort(self._turns, turn)

    def used(self, now_s: float) -> None:
        """Record that a caller went off with its turn."""
        self._used_at_s = now_s

    def wanted(self, now_s: float) -> int:
        """Return how many turns to reserve in advance now; 0 while there are enough."""
        if self.clock.here_s(self._last_s) - now_s > self.clock.round_trip_s + MARGIN_S:
            return 0
        row = max(1, round(self._row_s / self._interval_s))
        # However long callers have come fast, it is to be noticed soon when they stay away.
        self._eager = min(self._eager, row)
        return self._eager
