"""The gate: who goes when. A pure core; the shell brings the time and carries out the verdicts.

A caller's request is a *ticket*. It waits until the gate grants it a *permit*, goes to the upstream, and
settles the permit with what came of it:

| a ticket is | on | becomes |
|---|---|---|
| NEW | `enqueue` | WAITING, or stays NEW if refused |
| WAITING | `poll`: a place is free and its scope's limit allows | ADMITTED, by a permit |
| WAITING | `poll`: its deadline has passed, or will before its scope opens | ENDED, told by an expiry |
| WAITING | `withdraw` | ENDED |
| ADMITTED | `settle` SERVED | ENDED |
| ADMITTED | `settle` otherwise | RETURNED |
| RETURNED | `enqueue` | WAITING at its old place in the order of arrival, or stays RETURNED if refused |

Each scope (`scopes.py`) has a line of its own in order of arrival and a limit of its own (`limits.py`); a
closed scope stops nothing of another. The scopes share `max_in_flight` places; a freed one goes to the
scopes that could use it in turns.

The shell calls `poll` after each round of other calls, and at `wake_at_s`. Two races are its part: a task
that is cancelled after its grant settles the permit as UNUSED, and so does a grant whose ticket's task
has gone.

Costs: the waiting are heaps of arrival numbers and deadlines, one pair per scope. What leaves from
their middle stays as a dead number until it surfaces or the dead outnumber the living; `_waiting` says
which live. A poll looks only at *touched* scopes (something happened, or their alarm rang) and at
those whose turn it is. So each call is O(log n) amortised.

Instants are seconds of one monotonic clock and never decrease from call to call.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nanonets_proxy.core.limits import GatePolicy, Limit, Outcome
from nanonets_proxy.core.tickets import Expiry, Permit, Reason, Refusal, Ticket, TicketState, Verdicts

__all__ = [
    "Expiry",
    "Gate",
    "GatePolicy",
    "Outcome",
    "Permit",
    "Reason",
    "Refusal",
    "Ticket",
    "TicketState",
    "Verdicts",
]

LEAST_RETRY_AFTER_S = 1.0
"""No one is told to come back sooner: with the scope open, it is the queue that has to shorten."""

MAX_CLOSED_SCOPES_SHOWN = 100
"""Callers choose model ids, and a view is for people and metrics."""

_SLACK = 64  # dead entries, or idle scopes, that are not worth clearing away


@dataclass(eq=False, slots=True)
class _Scope:
    name: str
    number: int  # makes alarms of one instant comparable
    limit: Limit
    waiting: int = 0
    arrivals: list[int] = field(default_factory=list)  # heap
    deadlines: list[tuple[float, int]] = field(default_factory=list)  # heap of (deadline, arrival)
    alarm_s: float = math.inf  # its valid entry among the gate's alarms
    in_turns: bool = False


class Gate:
    """Holds tickets back and lets them through as fast as the limits allow."""

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float]) -> None:
        """`jitter` returns a number from 0 to 1, a new one each time."""
        self._policy = policy
        self._jitter = jitter
        self._scopes: dict[str, _Scope] = {}
        self._scopes_made = 0
        self._forget_at_scopes = _SLACK
        self._arrivals = 0
        self._waiting: dict[int, Ticket] = {}
        self._permits: set[Permit] = set()
        self._touched: dict[_Scope, None] = {}  # a set that keeps its order
        self._turns: deque[_Scope] = deque()  # scopes that could grant when they were last looked at
        self._alarms: list[tuple[float, int, _Scope]] = []  # heap

    def __repr__(self) -> str:
        return f"<Gate waiting={self.waiting} in_flight={self.in_flight} scopes={len(self._scopes)}>"

    @property
    def waiting(self) -> int:
        """Tickets that wait, all scopes together."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Permits that are not settled, all scopes together."""
        return len(self._permits)

    def closed_scopes(self, now: float) -> Mapping[str, float]:
        """Which scopes are closed until when: at most `MAX_CLOSED_SCOPES_SHOWN`, the longest closed."""
        closed = [(s.limit.opens_at_s, s.name) for s in self._scopes.values() if s.limit.opens_at_s > now]
        return {name: opens_at_s for opens_at_s, name in heapq.nlargest(MAX_CLOSED_SCOPES_SHOWN, closed)}

    def enqueue(self, ticket: Ticket, now: float) -> Refusal | None:
        """Let a ticket wait, or say at once why not. One that was admitted before is never one too many.

        ValueError: it waits already, has a permit, or has ended.
        """
        if ticket.state is not TicketState.NEW and ticket.state is not TicketState.RETURNED:
            raise ValueError(f"a ticket that is {ticket.state.value} cannot be enqueued")
        scope = self._scopes.get(ticket.scope) or self._add_scope(ticket.scope, now)
        if ticket.deadline_s < scope.limit.opens_at_s:
            return Refusal(Reason.CANNOT_BE_IN_TIME, _retry_after_s(scope, now), scope.waiting + 1)
        if ticket.state is TicketState.NEW:
            if len(self._waiting) >= self._policy.max_waiting:
                return Refusal(Reason.QUEUE_FULL, _retry_after_s(scope, now), scope.waiting + 1)
            self._arrivals += 1
            ticket.arrival = self._arrivals
        ticket.state = TicketState.WAITING
        self._waiting[ticket.arrival] = ticket
        heapq.heappush(scope.arrivals, ticket.arrival)
        heapq.heappush(scope.deadlines, (ticket.deadline_s, ticket.arrival))
        scope.waiting += 1
        self._touched[scope] = None
        return None

    def withdraw(self, ticket: Ticket, now: float) -> None:  # noqa: ARG002 - every event of the seam has its instant
        """The caller has gone. A ticket that does not wait is left alone: hang-ups race with polls."""
        if self._waiting.get(ticket.arrival) is ticket:
            scope = self._scopes[ticket.scope]
            self._end_waiting(scope, ticket, TicketState.ENDED)
            self._touched[scope] = None

    def settle(self, permit: Permit, outcome: Outcome, now: float, retry_after_s: float | None = None) -> None:
        """End a permit; `retry_after_s` is what a 429 said, from `now` on.

        ValueError: it is settled already, or of another gate.
        """
        if permit not in self._permits:
            raise ValueError("this permit is settled already, or another gate's")
        self._permits.remove(permit)
        ticket = permit.ticket
        ticket.state = TicketState.ENDED if outcome is Outcome.SERVED else TicketState.RETURNED
        scope = self._scopes[ticket.scope]
        scope.limit.settle(permit.round_no, permit.granted_at_s, outcome, now, retry_after_s)
        if scope.waiting:
            self._touched[scope] = None

    def poll(self, now: float) -> Verdicts:
        """Decide: who goes, who has waited in vain, and when to look again."""
        granted: list[Permit] = []
        expired: list[Expiry] = []
        while self._alarms and self._alarms[0][0] <= now:
            alarm_s, _, scope = heapq.heappop(self._alarms)
            if alarm_s == scope.alarm_s:
                scope.alarm_s = math.inf
                self._touched[scope] = None
        for scope in self._touched:
            # Nothing opens before `opens_at_s`: whose deadline comes first, learns it now.
            self._expire(scope, max(now, scope.limit.opens_at_s), now, expired)
            if scope.waiting:
                scope.limit.advance(now, scope.waiting)
                if scope.limit.may_grant and not scope.in_turns:
                    scope.in_turns = True
                    self._turns.append(scope)
        while self._turns and len(self._permits) < self._policy.max_in_flight:
            scope = self._turns.popleft()
            if scope.waiting and scope.limit.may_grant:
                granted.append(self._grant(scope, now))
                self._turns.append(scope)
                self._touched[scope] = None
            else:
                scope.in_turns = False
        for scope in self._touched:
            self._expire(scope, math.nextafter(now, math.inf), now, expired)  # those whose last instant this was
            self._set_alarm(scope)
        self._touched.clear()
        return Verdicts(granted, expired, self._next_alarm_s())

    def _grant(self, scope: _Scope, now: float) -> Permit:
        arrival = heapq.heappop(scope.arrivals)
        while arrival not in self._waiting:
            arrival = heapq.heappop(scope.arrivals)
        ticket = self._waiting[arrival]
        self._end_waiting(scope, ticket, TicketState.ADMITTED)
        permit = Permit(ticket, now, scope.limit.grant(now))
        self._permits.add(permit)
        return permit

    def _expire(self, scope: _Scope, before_s: float, now: float, expired: list[Expiry]) -> None:
        while scope.deadlines and scope.deadlines[0][0] < before_s:
            _, arrival = heapq.heappop(scope.deadlines)
            ticket = self._waiting.get(arrival)
            if ticket is not None:
                self._end_waiting(scope, ticket, TicketState.ENDED)
                reason = Reason.DEADLINE_PASSED if ticket.deadline_s <= now else Reason.CANNOT_BE_IN_TIME
                expired.append(Expiry(ticket, reason, _retry_after_s(scope, now)))

    def _end_waiting(self, scope: _Scope, ticket: Ticket, state: TicketState) -> None:
        del self._waiting[ticket.arrival]
        ticket.state = state
        scope.waiting -= 1

    def _set_alarm(self, scope: _Scope) -> None:
        """Clear the dead away, and note when the scope must be looked at again."""
        if scope.waiting == 0:
            scope.arrivals.clear()
            scope.deadlines.clear()
            scope.alarm_s = math.inf
            return
        if len(scope.arrivals) > 2 * scope.waiting + _SLACK:
            scope.arrivals = [arrival for arrival in scope.arrivals if arrival in self._waiting]
            heapq.heapify(scope.arrivals)
        if len(scope.deadlines) > 2 * scope.waiting + _SLACK:
            # A ticket that came back stands here twice: hence the set.
            scope.deadlines = list({entry for entry in scope.deadlines if entry[1] in self._waiting})
            heapq.heapify(scope.deadlines)
        while scope.deadlines[0][1] not in self._waiting:
            heapq.heappop(scope.deadlines)
        alarm_s = min(scope.deadlines[0][0], scope.limit.changes_at_s)
        if alarm_s != scope.alarm_s:
            scope.alarm_s = alarm_s
            heapq.heappush(self._alarms, (alarm_s, scope.number, scope))

    def _next_alarm_s(self) -> float | None:
        alarms = self._alarms
        if len(alarms) > 2 * len(self._scopes) + _SLACK:
            alarms[:] = [entry for entry in alarms if entry[0] == entry[2].alarm_s]
            heapq.heapify(alarms)
        while alarms and alarms[0][0] != alarms[0][2].alarm_s:
            heapq.heappop(alarms)
        return alarms[0][0] if alarms and alarms[0][0] < math.inf else None

    def _add_scope(self, name: str, now: float) -> _Scope:
        if len(self._scopes) >= self._forget_at_scopes:
            self._forget_idle(now)
        self._scopes_made += 1
        scope = self._scopes[name] = _Scope(name, self._scopes_made, Limit(self._policy, self._jitter))
        return scope

    def _forget_idle(self, now: float) -> None:
        """Drop the scopes that a new one could stand for; callers choose model ids, so they never end."""
        keep = {s.name: s for s in self._scopes.values() if s.waiting or not s.limit.forgettable(now)}
        for scope in self._scopes.values():
            scope.in_turns = scope.in_turns and scope.waiting > 0
        self._turns = deque(scope for scope in self._turns if scope.in_turns)
        self._scopes = keep
        self._forget_at_scopes = 2 * len(keep) + _SLACK  # so that forgetting costs O(1) per scope made


def _retry_after_s(scope: _Scope, now: float) -> float:
    return max(LEAST_RETRY_AFTER_S, scope.limit.opens_at_s - now)
