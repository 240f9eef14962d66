"""How many jobs hold a ticket in the gate. All others stand in the store, and take no memory."""

from dataclasses import dataclass
from typing import Final, NamedTuple

_MOST_PER_LANE: Final = 64
_MOST: Final = 512


class JobLane(NamedTuple):
    """Jobs that wait for one another: of one caller, in one scope, with one urgency."""

    caller: str
    scope: str
    urgency: int


@dataclass(frozen=True, slots=True)
class Window:
    """How many jobs may hold a ticket: in all, and of one lane."""

    most: int
    most_per_lane: int

    @classmethod
    def within(cls, max_waiting: int, max_waiting_per_lane: int) -> "Window":
        """Returns a window that leaves at least half of the gate's queue to callers that wait."""
        return cls(max(1, min(_MOST, max_waiting // 2)), max(1, min(_MOST_PER_LANE, max_waiting_per_lane // 2)))

    def room(self, held: int, held_in_all: int, lanes: int) -> int:
        """Returns how many further jobs of a lane may get a ticket.

        `held`: the lane's jobs with a ticket. `held_in_all`: those of all lanes. `lanes`: the number of lanes that
        have jobs. With many lanes each one gets fewer tickets, so that a closed scope keeps none from an open one.
        """
        share = max(1, min(self.most_per_lane, self.most // max(lanes, 1)))
        return max(0, min(share - held, self.most - held_in_all))
