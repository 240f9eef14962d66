"""One scope inside the gate: its limit, its queue, its deadlines and its timer."""

import heapq
import math
from dataclasses import dataclass, field

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit
from nanonets_proxy.core.ratelimit.fair_queue import FairQueue
from nanonets_proxy.core.ratelimit.tickets import Reason, Rejection, Ticket, TicketState

MIN_RETRY_AFTER_S = 1.0
"""The smallest Retry-After: even the queue of an open scope needs time to get shorter."""

MAX_STALE = 64
"""Up to this many stale entries or idle scopes are not worth a cleanup."""

_WAITING = TicketState.WAITING  # in Python 3.11 each access to a member through its enum costs a call


@dataclass(eq=False, slots=True)
class ScopeState:
    """The state of one scope. Tickets that no longer wait may stay in `deadlines` as stale entries."""

    name: str
    number: int
    """Orders the gate's timers that are due at the same instant."""
    limit: Limit
    queue: FairQueue
    deadlines: list[tuple[float, int, Ticket]] = field(default_factory=list)
    """A heap of (deadline, arrival, ticket)."""
    timer_at_s: float = math.inf
    """When the gate's timer for this scope is due. The gate ignores timers of other instants."""
    in_turns: bool = False
    """Whether the scope is among the scopes that take turns for permits."""

    def pop_overdue(self, before_s: float) -> Ticket | None:
        """Removes from the heap a waiting ticket with a deadline before `before_s`, and returns it, or None."""
        deadlines = self.deadlines
        while deadlines and deadlines[0][0] < before_s:
            ticket = heapq.heappop(deadlines)[2]
            if ticket.state is _WAITING:
                return ticket
        return None

    def next_event_at_s(self, now: float) -> float:
        """Returns when the gate must look at the scope again; inf if no ticket waits. Clears stale entries."""
        waiting = self.queue.waiting
        if not waiting:
            self.deadlines.clear()
            return math.inf
        if len(self.deadlines) > 2 * waiting + MAX_STALE:
            # A returned ticket has two entries; the dict keeps one of them.
            entries = {entry[2]: entry for entry in self.deadlines if entry[2].state is _WAITING}
            self.deadlines = list(entries.values())
            heapq.heapify(self.deadlines)
        event_at_s = self.limit.changes_at_s(now, self.queue.next_cost())
        while self.deadlines[0][0] < event_at_s:
            if self.deadlines[0][2].state is _WAITING:
                return self.deadlines[0][0]
            heapq.heappop(self.deadlines)
        return event_at_s

    def reject(self, reason: Reason, ticket: Ticket, now: float) -> Rejection:
        """Returns the rejection of a ticket that may not wait."""
        return Rejection(reason, self.retry_after_s(ticket, now), self.queue.position(ticket))

    def retry_after_s(self, ticket: Ticket, now: float) -> float:
        """Returns the predicted wait of a ticket that came now, and at least `MIN_RETRY_AFTER_S`."""
        units = self.queue.units_up_to(ticket, self.queue.position(ticket))
        forecast_s = self.limit.forecast_s(units, now)
        return max(MIN_RETRY_AFTER_S, self.limit.opens_at_s - now, 0.0 if math.isnan(forecast_s) else forecast_s)
