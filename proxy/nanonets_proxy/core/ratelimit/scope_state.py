"""One scope inside the gate: its limit, its queue, its deadlines and its timer."""

import heapq
import math
from dataclasses import dataclass, field

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit
from nanonets_proxy.core.ratelimit.fair_queue import FairQueue
from nanonets_proxy.core.ratelimit.tickets import Reason, Rejection, Ticket, TicketState

MIN_RETRY_AFTER_S = 1.0
"""The least Retry-After: while the scope is open, the queue needs time to get shorter."""

MAX_STALE = 64
"""The number of stale entries, or of idle scopes, up to which clearing them away does not pay."""

_WAITING = TicketState.WAITING  # in Python 3.11 each look at a member through its class costs a call


@dataclass(eq=False, slots=True)
class ScopeState:
    """The state of one scope. Tickets that no longer wait may stay in `deadlines` as stale entries."""

    name: str
    number: int
    """Orders timers of the same instant."""
    limit: Limit
    queue: FairQueue
    deadlines: list[tuple[float, int, Ticket]] = field(default_factory=list)
    """A heap of (deadline, arrival, ticket)."""
    timer_at_s: float = math.inf
    """The scope's valid entry among the gate's timers."""
    in_turns: bool = False
    """Whether the scope takes part in the turns for permits."""

    def pop_overdue(self, before_s: float) -> Ticket | None:
        """Takes a waiting ticket whose deadline is before `before_s` off the heap; None if there is none."""
        deadlines = self.deadlines
        while deadlines and deadlines[0][0] < before_s:
            ticket = heapq.heappop(deadlines)[2]
            if ticket.state is _WAITING:
                return ticket
        return None

    def next_event_at_s(self, now: float) -> float:
        """Returns when the gate must look at the scope again; inf if nobody waits. Clears stale entries."""
        waiting = self.queue.waiting
        if not waiting:
            self.deadlines.clear()
            return math.inf
        if len(self.deadlines) > 2 * waiting + MAX_STALE:
            # A ticket that came back has two entries; the dict keeps one of them.
            living = {entry[2]: entry for entry in self.deadlines if entry[2].state is _WAITING}
            self.deadlines = list(living.values())
            heapq.heapify(self.deadlines)
        event_at_s = self.limit.changes_at_s(now)
        while self.deadlines[0][0] < event_at_s:
            if self.deadlines[0][2].state is _WAITING:
                return self.deadlines[0][0]
            heapq.heappop(self.deadlines)
        return event_at_s

    def reject(self, reason: Reason, ticket: Ticket, now: float) -> Rejection:
        """Returns the rejection of a ticket that may not wait."""
        position = self.queue.position(ticket)
        return Rejection(reason, self.retry_after_s(position, now), position)

    def retry_after_s(self, position: int, now: float) -> float:
        """Returns in how many seconds a request at this position of the queue can hope to go."""
        forecast_s = self.limit.forecast_s(position, now)
        return max(MIN_RETRY_AFTER_S, self.limit.opens_at_s - now, 0.0 if math.isnan(forecast_s) else forecast_s)
