"""One scope's line: a lane for each caller, served in turns.

Deficit round robin (Shreedhar and Varghese, 1995), where a request costs one: each lane in its turn gets
as many grants as its weight, so that a caller with 200 requests makes one with a single request wait for a turn,
not for 200. Within a lane the more urgent goes first (RFC 9218 §4.1), and among those of one urgency who came
first; but one grant in eight goes to the lane's oldest, whatever its urgency, so that none waits for ever.

A ticket that is withdrawn or expires stays in its heap, dead, until it surfaces or the dead outnumber the living.
All calls are O(log n) amortised.
"""

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from nanonets_proxy.core.tickets import Ticket, TicketState

_OLDEST_EACH = 8
_SLACK = 64  # dead entries that are not worth clearing away
_COUNTED_LANES = 64  # with more, the place in line is estimated

_WAITING = TicketState.WAITING  # as an attribute of its class it costs a call at each look, in Python 3.11


@dataclass(eq=False, slots=True)
class _Lane:
    name: str
    weight: int
    credit: int
    """Grants left in this turn."""
    waiting: int = 0
    entries: int = 0
    grants: int = 0
    heaps: dict[int, list[tuple[int, Ticket]]] = field(default_factory=dict)
    """By urgency, in order of arrival."""


class Lanes:
    """The waiting tickets of one scope."""

    __slots__ = ("_empty", "_lanes", "_turns", "_weight_waiting", "_weights", "waiting")

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._lanes: dict[str, _Lane] = {}  # those in which someone waits
        self._turns: deque[_Lane] = deque()
        self._weight_waiting = 0
        self._empty = 0  # lanes that are kept till their turn comes, though no one waits in them
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
            self._empty -= 1
        heapq.heappush(lane.heaps.setdefault(ticket.urgency, []), (ticket.arrival, ticket))
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
        ticket = self._first(lane)
        lane.entries -= 1
        self._one_less(lane)
        return ticket

    def left(self, ticket: Ticket) -> None:
        """A ticket waits no longer: its state has changed already."""
        lane = self._lanes[ticket.lane]
        self._one_less(lane)
        if lane.entries > 2 * lane.waiting + _SLACK:
            for urgency, heap in list(lane.heaps.items()):
                lane.heaps[urgency] = [entry for entry in heap if entry[1].state is _WAITING]
                heapq.heapify(lane.heaps[urgency])
            lane.entries = lane.waiting

    def place(self, ticket: Ticket) -> int:
        """Which one it would be to go, from 1, if it came now and no one after it."""
        own = self._lanes.get(ticket.lane)
        ahead = 0
        if own is None:
            weight = self._weights.get(ticket.lane, 1)
        else:
            weight = own.weight
            for urgency, heap in own.heaps.items():
                if urgency <= ticket.urgency:
                    ahead += len(heap)
            ahead = min(own.waiting, ahead)
        turns = ahead // weight + 1
        if len(self._lanes) > _COUNTED_LANES:
            others = self._weight_waiting - (0 if own is None else own.weight)
            return min(self.waiting, ahead + turns * others) + 1
        place = ahead + 1
        for lane in self._lanes.values():
            if lane is not own:
                place += min(lane.waiting, turns * lane.weight)
        return place

    def _first(self, lane: _Lane) -> Ticket:
        for urgency, heap in list(lane.heaps.items()):
            while heap and heap[0][1].state is not _WAITING:
                heapq.heappop(heap)
                lane.entries -= 1
            if not heap:
                del lane.heaps[urgency]
        if len(lane.heaps) == 1:
            (heap,) = lane.heaps.values()
        else:
            oldest = lane.grants % _OLDEST_EACH == 0
            heap = min(lane.heaps.items(), key=lambda item: item[1][0][0] if oldest else item[0])[1]
        return heapq.heappop(heap)[1]

    def _one_less(self, lane: _Lane) -> None:
        lane.waiting -= 1
        self.waiting -= 1
        if not lane.waiting:
            lane.heaps.clear()
            lane.entries = 0
            self._empty += 1
            if self._empty > len(self._lanes) // 2 + _SLACK or not self.waiting:
                for empty in [lane for lane in self._turns if not lane.waiting]:
                    self._forget(empty)
                self._turns = deque(lane for lane in self._turns if lane.waiting)

    def _forget(self, lane: _Lane) -> None:
        del self._lanes[lane.name]
        self._empty -= 1
        self._weight_waiting -= lane.weight
