"""One scope's line: a lane for each caller, served in turns.

Deficit round robin (Shreedhar and Varghese, 1995), where a request costs one: each lane in its turn gets
as many grants as its weight, so that a caller with 200 requests makes one with a single request wait for a turn,
not for 200. Within a lane the more urgent goes first (RFC 9218 §4.1), and among those of one urgency who came
first; but one grant in eight goes to the lane's oldest, whatever its urgency, so that none waits for ever.

A ticket that is withdrawn or expires stays in its queue, dead, until it surfaces or the dead outnumber the living.
A queue is in order of arrival: who comes back was granted before those that wait there, so its place is near the
front. All calls are O(log n) amortised.
"""

from bisect import insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from nanonets_proxy.core.ratelimit.tickets import Ticket, TicketState

_OLDEST_EACH = 8
_MAX_STALE = 64  # dead entries that are not worth clearing away
_COUNTED_LANES = 64  # with more, the place in line is estimated

_WAITING = TicketState.WAITING  # as an attribute of its class it costs a call at each look, in Python 3.11
_arrival = attrgetter("arrival")


@dataclass(eq=False, slots=True)
class _Lane:
    name: str
    weight: int
    credit: int
    """Grants left in this turn."""
    waiting: int = 0
    entries: int = 0
    grants: int = 0
    queues: dict[int, deque[Ticket]] = field(default_factory=dict)
    """By urgency, in order of arrival."""


class FairQueue:
    """The waiting tickets of one scope."""

    __slots__ = ("_empty_lanes", "_lanes", "_turns", "_weight_waiting", "_weights", "waiting")

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._lanes: dict[str, _Lane] = {}  # those in which someone waits
        self._turns: deque[_Lane] = deque()
        self._weight_waiting = 0
        self._empty_lanes = 0  # lanes that are kept till their turn comes, though no one waits in them
        self.waiting = 0

    def waiting_in(self, name: str) -> int:
        lane = self._lanes.get(name)
        return 0 if lane is None else lane.waiting

    def push(self, ticket: Ticket) -> None:
        """A ticket that waits from now on; one that returns finds its old place."""
        lane = self._lanes.get(ticket.lane)
        if lane is None:
            weight = self._weights.get(ticket.lane, 1)
            lane = self._lanes[ticket.lane] = _Lane(ticket.lane, weight, credit=weight)
            self._turns.append(lane)
            self._weight_waiting += lane.weight
        elif not lane.waiting:
            self._empty_lanes -= 1
        queue = lane.queues.get(ticket.urgency)
        if queue is None:
            lane.queues[ticket.urgency] = deque((ticket,))
        elif not queue or queue[-1].arrival < ticket.arrival:
            queue.append(ticket)
        else:
            insort(queue, ticket, key=_arrival)
        lane.waiting += 1
        lane.entries += 1
        self.waiting += 1

    def pop(self) -> Ticket:
        """Whose turn it is. IndexError: no one waits."""
        while not (lane := self._turns[0]).waiting:
            self._turns.popleft()
            self._forget(lane)
        lane.credit -= 1
        if not lane.credit:
            lane.credit = lane.weight
            self._turns.rotate(-1)
        lane.grants += 1
        if len(lane.queues) == 1:  # mostly
            (queue,) = lane.queues.values()
        else:
            queue = self._next_queue(lane)
        while (ticket := queue.popleft()).state is not _WAITING:
            lane.entries -= 1
        lane.entries -= 1
        self._decrement(lane)
        return ticket

    def discard(self, ticket: Ticket) -> None:
        """A ticket waits no longer: its state has changed already."""
        lane = self._lanes[ticket.lane]
        self._decrement(lane)
        if lane.entries > 2 * lane.waiting + _MAX_STALE:
            for urgency, queue in lane.queues.items():
                lane.queues[urgency] = deque(waiting for waiting in queue if waiting.state is _WAITING)
            lane.entries = lane.waiting

    def position(self, ticket: Ticket) -> int:
        """Which one it would be to go, from 1, if it came now and no one after it."""
        own = self._lanes.get(ticket.lane)
        ahead = 0
        if own is None:
            weight = self._weights.get(ticket.lane, 1)
        else:
            weight = own.weight
            for urgency, queue in own.queues.items():
                if urgency <= ticket.urgency:
                    ahead += len(queue)
            ahead = min(own.waiting, ahead)
        turns = ahead // weight + 1
        if len(self._lanes) > _COUNTED_LANES:
            others = self._weight_waiting - (0 if own is None else own.weight)
            return min(self.waiting, ahead + turns * others) + 1
        position = ahead + 1
        for lane in self._lanes.values():
            if lane is not own:
                position += min(lane.waiting, turns * lane.weight)
        return position

    def _next_queue(self, lane: _Lane) -> deque[Ticket]:
        for urgency, queue in list(lane.queues.items()):
            while queue and queue[0].state is not _WAITING:
                queue.popleft()
                lane.entries -= 1
            if not queue:
                del lane.queues[urgency]
        oldest = lane.grants % _OLDEST_EACH == 0
        return min(lane.queues.items(), key=lambda item: item[1][0].arrival if oldest else item[0])[1]

    def _decrement(self, lane: _Lane) -> None:
        lane.waiting -= 1
        self.waiting -= 1
        if not lane.waiting:
            lane.queues.clear()
            lane.entries = 0
            self._empty_lanes += 1
            if self._empty_lanes > len(self._lanes) // 2 + _MAX_STALE or not self.waiting:
                for empty in [lane for lane in self._turns if not lane.waiting]:
                    self._forget(empty)
                self._turns = deque(lane for lane in self._turns if lane.waiting)

    def _forget(self, lane: _Lane) -> None:
        del self._lanes[lane.name]
        self._empty_lanes -= 1
        self._weight_waiting -= lane.weight
