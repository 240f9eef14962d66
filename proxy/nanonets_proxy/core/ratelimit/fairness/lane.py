"""The waiting tickets of one caller in one scope.

Urgent requests go first (RFC 9218 §4.1), and requests of the same urgency go in order of arrival. One grant in
eight goes to the oldest request, whatever its urgency, so that no request waits for ever.

A ticket that is withdrawn or expires stays as a stale entry, until it comes to the front or the stale entries
outnumber the others. A returning ticket is inserted near the front, since it was granted before the tickets that
still wait.
"""

from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter

from nanonets_proxy.core.ratelimit.tickets import Ticket, TicketState

MAX_STALE = 64
"""Up to this many stale entries or empty lanes are not worth a cleanup."""

_OLDEST_EACH = 8

_WAITING = TicketState.WAITING  # in Python 3.11 each access to a member through its enum costs a call
_arrival = attrgetter("arrival")


@dataclass(eq=False, slots=True)
class Lane:
    """One caller's tickets. The fair queue gives it turns, and counts its tickets that stop waiting."""

    name: str
    weight: int
    credit: float
    """Units left in this turn; not positive if the lane owes units."""
    waiting: int = 0
    entries: int = 0
    """Waiting tickets and stale entries."""
    grants: int = 0
    is_parked: bool = False
    queues: dict[int, deque[Ticket]] = field(default_factory=dict)
    """By urgency, each in order of arrival."""

    def push(self, ticket: Ticket) -> None:
        """Adds a ticket, at its place in the order of arrival."""
        queue = self.queues.get(ticket.urgency)
        if queue is None:
            self.queues[ticket.urgency] = deque((ticket,))
        elif not queue or queue[-1].arrival < ticket.arrival:
            queue.append(ticket)
        else:
            insort(queue, ticket, key=_arrival)
        self.waiting += 1
        self.entries += 1

    def next_queue(self) -> deque[Ticket]:
        """Returns the queue of the next ticket, which stands in front then. A ticket must wait."""
        if len(self.queues) == 1:  # the usual case
            (queue,) = self.queues.values()
            while queue[0].state is not _WAITING:
                queue.popleft()
                self.entries -= 1
            return queue
        for urgency, queue in list(self.queues.items()):
            while queue and queue[0].state is not _WAITING:
                queue.popleft()
                self.entries -= 1
            if not queue:
                del self.queues[urgency]
        oldest = (self.grants + 1) % _OLDEST_EACH == 0
        return min(self.queues.items(), key=lambda item: item[1][0].arrival if oldest else item[0])[1]

    def ahead_of(self, urgency: int) -> int:
        """Returns about how many tickets go before a new one of this urgency."""
        entries = sum(len(queue) for other, queue in self.queues.items() if other <= urgency)
        return min(self.waiting, entries)

    def drop_stale(self) -> None:
        """Drops the stale entries once they outnumber the waiting tickets."""
        if self.entries > 2 * self.waiting + MAX_STALE:
            for urgency, queue in self.queues.items():
                self.queues[urgency] = deque(ticket for ticket in queue if ticket.state is _WAITING)
            self.entries = self.waiting
