"""Tickets that wait outside the queue of their scope, each until its `held_until_s`."""

import heapq
import math

from nanonets_proxy.core.ratelimit.tickets import Ticket


class HeldTickets:
    """The held tickets of one scope. Tickets that left earlier may stay in the heap as stale entries."""

    __slots__ = ("_heap", "_in_lane", "count")

    def __init__(self) -> None:
        self.count = 0
        """The number of held tickets."""
        self._in_lane: dict[str, int] = {}
        self._heap: list[tuple[float, int, Ticket]] = []

    def in_lane(self, lane: str) -> int:
        """Returns how many tickets of a lane are held."""
        return self._in_lane.get(lane, 0)

    def add(self, ticket: Ticket) -> None:
        """Holds a waiting ticket."""
        ticket.is_held = True
        self.count += 1
        self._in_lane[ticket.lane] = self.in_lane(ticket.lane) + 1
        heapq.heappush(self._heap, (ticket.held_until_s, ticket.arrival, ticket))

    def discard(self, ticket: Ticket) -> None:
        """Removes a held ticket."""
        ticket.is_held = False
        self.count -= 1
        self._in_lane[ticket.lane] -= 1
        if not self._in_lane[ticket.lane]:
            del self._in_lane[ticket.lane]
        if not self.count:
            self._heap.clear()

    def pop_due(self, now: float) -> Ticket | None:
        """Removes and returns a ticket whose time is over; None if there is none."""
        if self.next_due_at_s() > now:
            return None
        ticket = heapq.heappop(self._heap)[2]
        self.discard(ticket)
        return ticket

    def next_due_at_s(self) -> float:
        """Returns when the next ticket is due; inf: never. Clears stale entries."""
        while self._heap and not self._heap[0][2].is_held:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def note_sleep(self, slept_s: float) -> None:
        """Notes that the machine slept."""
        self._heap = [(until_s - slept_s, arrival, ticket) for until_s, arrival, ticket in self._heap]
