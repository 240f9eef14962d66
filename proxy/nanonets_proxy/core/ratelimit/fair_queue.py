"""The queue of one scope: a lane for each caller, served in turns.

Deficit round robin (Shreedhar and Varghese, 1995), where each request costs 1. In its turn a lane gets as many
grants as its weight. So a caller with 200 requests makes another caller wait for one turn, not for 200 requests.

Within a lane, urgent requests go first (RFC 9218 §4.1), and requests of the same urgency go in order of arrival.
One grant in eight goes to the lane's oldest request, whatever its urgency, so that no request waits for ever.

A ticket that is withdrawn or expires stays in its lane as a stale entry, until it comes to the front or the stale
entries outnumber the others. A returning ticket is inserted near the front, since it was granted before the tickets
that still wait in its lane. Each call is O(log n) amortised.
"""

from bisect import insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from nanonets_proxy.core.ratelimit.tickets import Ticket, TicketState

_OLDEST_EACH = 8
_MAX_STALE = 64  # up to this many stale entries are not worth a cleanup
_COUNTED_LANES = 64  # with more lanes, a position is estimated

_WAITING = TicketState.WAITING  # in Python 3.11 each access to a member through its enum costs a call
_arrival = attrgetter("arrival")


@dataclass(eq=False, slots=True)
class _Lane:
    name: str
    weight: int
    credit: int
    """Grants left in this turn."""
    waiting: int = 0
    entries: int = 0
    """Waiting tickets and stale entries."""
    grants: int = 0
    queues: dict[int, deque[Ticket]] = field(default_factory=dict)
    """By urgency, each in order of arrival."""


class FairQueue:
    """The waiting tickets of one scope, in lanes."""

    __slots__ = ("_empty_lanes", "_lanes", "_total_weight", "_turns", "_weights", "waiting")

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._lanes: dict[str, _Lane] = {}
        self._turns: deque[_Lane] = deque()  # the lane whose turn it is comes first
        self._total_weight = 0  # of all lanes
        self._empty_lanes = 0  # lanes without a waiting ticket, which stay until their turn comes
        self.waiting = 0

    def waiting_in(self, name: str) -> int:
        """Returns how many tickets wait in a lane."""
        lane = self._lanes.get(name)
        return 0 if lane is None else lane.waiting

    def push(self, ticket: Ticket) -> None:
        """Adds a ticket, at its place in the order of arrival."""
        lane = self._lanes.get(ticket.lane)
        if lane is None:
            weight = self._weights.get(ticket.lane, 1)
            lane = self._lanes[ticket.lane] = _Lane(ticket.lane, weight, credit=weight)
            self._turns.append(lane)
            self._total_weight += lane.weight
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
        """Takes the ticket whose turn it is. Raises IndexError if no ticket waits."""
        while not (lane := self._turns[0]).waiting:
            self._turns.popleft()
            self._drop_lane(lane)
        lane.credit -= 1
        if not lane.credit:
            lane.credit = lane.weight
            self._turns.rotate(-1)
        lane.grants += 1
        if len(lane.queues) == 1:  # the usual case
            (queue,) = lane.queues.values()
        else:
            queue = self._next_queue(lane)
        while (ticket := queue.popleft()).state is not _WAITING:
            lane.entries -= 1
        lane.entries -= 1
        self._decrement_waiting(lane)
        return ticket

    def discard(self, ticket: Ticket) -> None:
        """Removes a ticket that no longer waits. Its state must have changed before."""
        lane = self._lanes[ticket.lane]
        self._decrement_waiting(lane)
        if lane.entries > 2 * lane.waiting + _MAX_STALE:
            for urgency, queue in lane.queues.items():
                lane.queues[urgency] = deque(waiting for waiting in queue if waiting.state is _WAITING)
            lane.entries = lane.waiting

    def position(self, ticket: Ticket) -> int:
        """Returns the position, from 1, that a ticket would get now if no other arrived after it."""
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
            others = self._total_weight - (0 if own is None else own.weight)
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

    def _decrement_waiting(self, lane: _Lane) -> None:
        """Counts one waiting ticket fewer. Drops the empty lanes once there are many, or once no ticket waits."""
        lane.waiting -= 1
        self.waiting -= 1
        if not lane.waiting:
            lane.queues.clear()
            lane.entries = 0
            self._empty_lanes += 1
            if self._empty_lanes > len(self._lanes) // 2 + _MAX_STALE or not self.waiting:
                for empty in [lane for lane in self._turns if not lane.waiting]:
                    self._drop_lane(empty)
                self._turns = deque(lane for lane in self._turns if lane.waiting)

    def _drop_lane(self, lane: _Lane) -> None:
        del self._lanes[lane.name]
        self._empty_lanes -= 1
        self._total_weight -= lane.weight
