"""The queue of one scope: a lane for each caller, served in turns.

Deficit round robin (Shreedhar and Varghese, 1995). In its turn a lane gets units: its weight times the mean cost
of the waiting requests, but a mean above 16 counts as 16. So a caller with 200 requests makes another caller wait
for one turn, not for 200 requests. A request that costs more than the lane has left is granted all the same, and
the lane's next turns are shorter by the difference. So the gate need not know the cost of a request before it
chooses a lane.

The gate may *park* a lane: the lane gets no turn until it is unparked, or until no other lane waits.

The order within a lane is the lane's (`lane.py`). Each call is O(log n) amortised.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from operator import attrgetter

from nanonets_proxy.core.ratelimit.fairness.lane import MAX_STALE, Lane
from nanonets_proxy.core.ratelimit.tickets import Ticket, TicketState

_BEST_SCORE = 7
_SEARCHED = 512  # tickets, for a ticket unlike another
_COUNTED_LANES = 64  # with more lanes, a position is estimated
_MAX_UNITS_PER_TURN = 16  # a single huge request must not make all turns long
_MAX_OWED = 100  # a lane owes at most this many units, times its weight, so that passing over it stays cheap

_WAITING = TicketState.WAITING  # in Python 3.11 each access to a member through its enum costs a call
_waiting = attrgetter("waiting")


class FairQueue:
    """The waiting tickets of one scope, in lanes."""

    __slots__ = (
        *("_empty_lanes", "_lanes", "_parked", "_total_weight", "_turns", "_waiting_units", "_weights"),
        "waiting",
    )

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._lanes: dict[str, Lane] = {}
        self._turns: deque[Lane] = deque()  # the lane whose turn it is comes first
        self._parked: deque[Lane] = deque()  # may hold lanes that were unparked or dropped
        self._total_weight = 0  # of all lanes
        self._empty_lanes = 0  # lanes without a waiting ticket, which stay until their turn comes
        self._waiting_units: float = 0
        self.waiting = 0

    def change_weights(self, weights: Mapping[str, int]) -> None:
        """Applies other weights. The order of the tickets in each lane stays."""
        self._weights = weights
        for lane in self._lanes.values():
            lane.weight = weights.get(lane.name, 1)
            lane.credit = min(lane.credit, lane.weight)
        self._total_weight = sum(lane.weight for lane in self._lanes.values())

    def waiting_in(self, name: str) -> int:
        """Returns how many tickets wait in a lane."""
        lane = self._lanes.get(name)
        return 0 if lane is None else lane.waiting

    def push(self, ticket: Ticket) -> None:
        """Adds a ticket, at its place in the order of arrival."""
        lane = self._lanes.get(ticket.lane)
        if lane is None:
            weight = self._weights.get(ticket.lane, 1)
            lane = self._lanes[ticket.lane] = Lane(ticket.lane, weight, credit=weight)
            self._turns.append(lane)
            self._total_weight += lane.weight
        elif not lane.waiting:
            self._empty_lanes -= 1
        lane.push(ticket)
        self.waiting += 1
        self._waiting_units += ticket.cost

    @property
    def mean_cost(self) -> float:
        """The mean cost of the waiting tickets; 1 if none waits."""
        return self._waiting_units / self.waiting if self.waiting else 1

    def next_cost(self) -> float:
        """Returns the cost of the ticket that `pop` takes. Raises IndexError if no ticket waits."""
        if self._waiting_units == self.waiting:  # the usual case; else the costs differ
            return 1
        return self._next_lane().next_queue()[0].cost

    def pop(self) -> Ticket:
        """Takes the ticket whose turn it is. Raises IndexError if no ticket waits."""
        lane = self._next_lane()
        ticket = lane.next_queue().popleft()
        lane.credit -= ticket.cost
        if lane.credit <= 0:
            if self._waiting_units == self.waiting:  # the usual case: each request costs 1
                lane.credit += lane.weight
            else:
                lane.credit = max(lane.credit, -_MAX_OWED * lane.weight) + self._turn(lane)
            self._turns.rotate(-1)
        lane.grants += 1
        lane.entries -= 1
        self._decrement_waiting(lane, ticket)
        return ticket

    def charge(self, name: str, units: float) -> None:
        """Charges a lane for units that its latest grants cost beyond what was known; negative: gives them back."""
        lane = self._lanes.get(name)
        if lane is not None:
            lane.credit = max(lane.credit - units, -_MAX_OWED * lane.weight)

    def pop_other(self, unlike: Ticket) -> Ticket:
        """Takes a ticket that was never refused, of another kind and another caller than `unlike`, if there is one.

        Takes no ticket that costs more than the ticket of `pop`. If only `unlike` is left, acts like `pop`.
        Looks at `_SEARCHED` tickets at most. Raises IndexError if no ticket waits.
        """
        cost = self.next_cost()
        best = -1
        found: tuple[Lane, deque[Ticket], int] | None = None
        for lane, queue, at, ticket in islice(self._entries(), _SEARCHED):
            if ticket.state is _WAITING and ticket is not unlike and ticket.cost <= cost:
                score = 4 * (not ticket.refusals) + 2 * (ticket.kind != unlike.kind) + (lane.name != unlike.lane)
                if score > best:
                    best, found = score, (lane, queue, at)
                    if score == _BEST_SCORE:
                        break
        if found is None:
            return self.pop()
        lane, queue, at = found
        ticket = queue[at]
        del queue[at]
        lane.grants += 1
        lane.entries -= 1
        self._decrement_waiting(lane, ticket)
        return ticket

    def _entries(self) -> Iterator[tuple[Lane, deque[Ticket], int, Ticket]]:
        """Yields all entries with their places, first those at the front of each lane."""
        lanes = [(lane, [queue for _, queue in sorted(lane.queues.items())]) for lane in self._turns]
        for at in range(max((len(queue) for _, queues in lanes for queue in queues), default=0)):
            for lane, queues in lanes:
                for queue in queues:
                    if at < len(queue):
                        yield lane, queue, at, queue[at]

    def discard(self, ticket: Ticket) -> None:
        """Removes a ticket that no longer waits. Its state must have changed before."""
        lane = self._lanes[ticket.lane]
        self._decrement_waiting(lane, ticket)
        lane.drop_stale()

    def position(self, ticket: Ticket) -> int:
        """Returns the position, from 1, that a ticket would get now if no other arrived after it."""
        own = self._lanes.get(ticket.lane)
        ahead = 0
        if own is None:
            weight = self._weights.get(ticket.lane, 1)
        else:
            weight, ahead = own.weight, own.ahead_of(ticket.urgency)
        turns = ahead // weight + 1
        if len(self._lanes) > _COUNTED_LANES:
            others = self._total_weight - (0 if own is None else own.weight)
            return min(self.waiting, ahead + turns * others) + 1
        position = ahead + 1
        for lane in self._lanes.values():
            if lane is not own:
                position += min(lane.waiting, turns * lane.weight)
        return position

    @property
    def lane_count(self) -> int:
        """The number of lanes with waiting tickets."""
        return len(self._lanes) - self._empty_lanes

    def lane_names(self) -> Iterator[str]:
        """Yields the names of the lanes with waiting tickets."""
        return (lane.name for lane in self._lanes.values() if lane.waiting)

    def longest_lanes(self, most: int) -> list[tuple[str, int]]:
        """Returns at most `most` lanes with waiting tickets, and the number of these, the longest lane first."""
        # A sort in C is faster than heapq.nlargest, and a tuple per lane would set off the garbage collector.
        lanes = sorted(self._lanes.values(), key=_waiting, reverse=True)
        return [(lane.name, lane.waiting) for lane in lanes[:most] if lane.waiting]

    def last_position(self, name: str) -> int:
        """Returns the position, from 1, of the last waiting ticket of a lane that has one."""
        lane = self._lanes[name]
        turns = -(-lane.waiting // lane.weight)
        if len(self._lanes) > _COUNTED_LANES:
            return min(self.waiting, lane.waiting + turns * (self._total_weight - lane.weight))
        others = (other for other in self._lanes.values() if other is not lane)
        return lane.waiting + sum(min(other.waiting, turns * other.weight) for other in others)

    def unparked_lane(self) -> str | None:
        """Returns the name of the lane whose turn it is; None if only parked lanes wait."""
        turns = self._turns
        while turns and not turns[0].waiting:
            self._drop_lane(turns.popleft())
        return self._next_lane().name if turns else None

    def park(self) -> None:
        """Parks the lane whose turn it is."""
        lane = self._turns.popleft()
        lane.is_parked = True
        self._parked.append(lane)

    def unpark(self, name: str) -> None:
        """Gives a parked lane the next turn. Ignores any other lane."""
        lane = self._lanes.get(name)
        if lane is not None and lane.is_parked:
            lane.is_parked = False
            self._turns.appendleft(lane)

    def units_up_to(self, ticket: Ticket, position: int) -> float:
        """Returns about how many units go up to this position, if `ticket` is there."""
        return (position - 1) * self.mean_cost + ticket.cost

    def _next_lane(self) -> Lane:
        """Returns the lane whose turn it is, which stands in front then. Raises IndexError if no ticket waits."""
        turns = self._turns
        while True:
            if not turns:  # only parked lanes wait
                self.unpark(self._parked.popleft().name)
                continue
            lane = turns[0]
            if not lane.waiting:
                turns.popleft()
                self._drop_lane(lane)
            elif lane.credit > 0:
                return lane
            elif lane.waiting == self.waiting:  # no other lane waits
                lane.credit = lane.weight
            else:
                lane.credit += self._turn(lane)
                turns.rotate(-1)

    def _turn(self, lane: Lane) -> float:
        return lane.weight * min(self.mean_cost, _MAX_UNITS_PER_TURN)

    def _decrement_waiting(self, lane: Lane, ticket: Ticket) -> None:
        """Counts one waiting ticket fewer. Drops the empty lanes once there are many, or once no ticket waits."""
        lane.waiting -= 1
        self.waiting -= 1
        self._waiting_units = self._waiting_units - ticket.cost if self.waiting else 0
        if not lane.waiting:
            lane.queues.clear()
            lane.entries = 0
            self._empty_lanes += 1
            if self._empty_lanes > len(self._lanes) // 2 + MAX_STALE or not self.waiting:
                for empty in [lane for lane in self._lanes.values() if not lane.waiting]:
                    self._drop_lane(empty)
                self._turns = deque(lane for lane in self._turns if lane.waiting)
                self._parked = deque(lane for lane in self._parked if lane.waiting and lane.is_parked)

    def _drop_lane(self, lane: Lane) -> None:
        del self._lanes[lane.name]
        self._empty_lanes -= 1
        self._total_weight -= lane.weight
