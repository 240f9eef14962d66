"""The gate: who goes when. A pure core; the shell brings the time and carries out the verdicts.

A caller's request is a *ticket*. It waits until the gate grants it a *permit*, goes to the upstream, and
settles the permit with what came of it. An admitted ticket is its own permit:

| a ticket is | on | becomes |
|---|---|---|
| NEW | `enqueue` | WAITING, or stays NEW if refused |
| WAITING | `poll`: a place is free and its scope's limit allows | ADMITTED, by a permit |
| WAITING | `poll`: its deadline has passed, or will before its scope opens | ENDED, told by an expiry |
| WAITING | `withdraw` | ENDED |
| ADMITTED | `settle` SERVED | ENDED |
| ADMITTED | `settle` otherwise | RETURNED |
| RETURNED | `enqueue` | WAITING at its old place in the order of arrival, or stays RETURNED if refused |

Each scope (`scopes.py`) has a line of its own, in which callers take turns (`lanes.py`), and a limit of its
own (`limits.py`); a closed scope stops nothing of another. The scopes share `max_in_flight` places; a freed
one goes to the scopes that could use it in turns.

The shell calls `poll` after each round of other calls if the gate `wants_poll`, and at `wake_at_s`. Two races
are its part: a task that is cancelled after its grant settles the permit as UNUSED, and so does a grant whose
ticket's task has gone.

Costs: the waiting stand in queues by arrival and in a heap by deadline. What leaves stays there, dead, until it is
in the way or the dead outnumber the living; its state says which it is. A poll looks only at *touched* scopes
(something happened, or their alarm rang) and at those whose turn it is; one more behind others that wait touches
nothing, so that a request in a long line costs one poll, its place's. Each call is O(log n) amortised.

Instants are seconds of one monotonic clock and never decrease from call to call.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit
from nanonets_proxy.core.ratelimit.fair_queue import FairQueue
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot
from nanonets_proxy.core.ratelimit.tickets import Expiry, Outcome, Reason, Rejection, Ticket, TicketState, Verdicts

MIN_RETRY_AFTER_S = 1.0
"""No one is told to come back sooner: with the scope open, it is the queue that has to shorten."""

MAX_CLOSED_SCOPES_SHOWN = 100
"""Callers choose model ids, and a view is for people and metrics."""

_FORECAST_TRUST = 0.8  # of a forecast: who can wait for that much is not sent away for its error

_MAX_STALE = 64  # dead entries, or idle scopes, that are not worth clearing away


# As attributes of their class they cost a call at each look, in Python 3.11.
_NEW, _WAITING, _ADMITTED, _RETURNED, _ENDED = TicketState
_SERVED = Outcome.SERVED


@dataclass(eq=False, slots=True)
class _Scope:
    name: str
    number: int  # makes alarms of one instant comparable
    limit: Limit
    queue: FairQueue
    deadlines: list[tuple[float, int, Ticket]] = field(default_factory=list)  # heap of (deadline, arrival, ticket)
    timer_at_s: float = math.inf  # its valid entry among the gate's alarms
    in_turns: bool = False


class Gate:
    """Holds tickets back and lets them through as fast as the limits allow."""

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float]) -> None:
        """`jitter` returns a number from 0 to 1, a new one each time."""
        self.waiting = 0
        """Tickets that wait, all scopes together; for others to read."""
        self.in_flight = 0
        """Permits that are not settled, all scopes together; for others to read."""
        self._policy = policy
        self._jitter = jitter
        self._scopes: dict[str, _Scope] = {}
        self._scopes_made = 0
        self._forget_at_scopes = _MAX_STALE
        self._arrivals = 0
        self._weights = dict(policy.lane_weights)
        self._dirty: dict[_Scope, None] = {}  # a set that keeps its order
        self._turns: deque[_Scope] = deque()  # scopes that could grant when they were last looked at
        self._timers: list[tuple[float, int, _Scope]] = []  # heap

    def __repr__(self) -> str:
        return f"<Gate waiting={self.waiting} in_flight={self.in_flight} scopes={len(self._scopes)}>"

    @property
    def needs_poll(self) -> bool:
        """Whether a poll before the `wake_at_s` of the last one could decide anything."""
        return bool(self._dirty) or (bool(self._turns) and self.in_flight < self._policy.max_in_flight)

    def closed_scopes(self, now: float) -> Mapping[str, float]:
        """Which scopes are closed until when: at most `MAX_CLOSED_SCOPES_SHOWN`, the longest closed."""
        closed = [(s.limit.opens_at_s, s.name) for s in self._scopes.values() if s.limit.opens_at_s > now]
        return {name: opens_at_s for opens_at_s, name in heapq.nlargest(MAX_CLOSED_SCOPES_SHOWN, closed)}

    def reserve(self) -> float:
        """The largest part of a quota that is sent one by one, because a stranger seems to share it."""
        return max((scope.limit.estimate.reserve for scope in self._scopes.values()), default=0.0)

    def snapshots(self, now: float) -> list[ScopeSnapshot]:
        """What is known of the limits, to outlive the process."""
        snapshots = (scope.limit.snapshot(scope.name, now) for scope in self._scopes.values())
        return [snapshot for snapshot in snapshots if snapshot is not None]

    def restore(self, snapshots: Iterable[ScopeSnapshot], now: float, away_s: float) -> None:
        """Take up what a gate knew `away_s` ago. Call it before anything else."""
        for snapshot in snapshots:
            self._add_scope(snapshot.scope, now).limit.restore(snapshot, now, away_s)

    def try_admit(self, ticket: Ticket, now: float) -> bool:
        """Admit a new ticket that need not wait, as `enqueue` and `poll` would; False: it has to, and is still new.

        While there is no one before it and no limit in the way, there is nothing to weigh. Most requests are of
        this kind, and cost a fraction so. ValueError: the ticket is not new.
        """
        if ticket.state is not _NEW:
            raise ValueError(f"a ticket that is {ticket.state.value} cannot be admitted at once")
        scope = self._scopes.get(ticket.scope) or self._add_scope(ticket.scope, now)
        limit = scope.limit
        if scope.queue.waiting or (self._turns and self.waiting) or self.in_flight >= self._policy.max_in_flight:
            return False
        if ticket.deadline_s < now or (kind := limit.grant_kind(now)) is None:
            return False
        self._arrivals = ticket.arrival = self._arrivals + 1
        self.in_flight += 1
        ticket.state = _ADMITTED
        ticket.granted_at_s = now
        ticket.serial = limit.grant(kind, now)
        return True

    def enqueue(self, ticket: Ticket, now: float) -> Rejection | None:
        """Let a ticket wait, or say at once why not. One that was admitted before is never one too many.

        ValueError: it waits already, has a permit, or has ended.
        """
        if ticket.state is not _NEW and ticket.state is not _RETURNED:
            raise ValueError(f"a ticket that is {ticket.state.value} cannot be enqueued")
        scope = self._scopes.get(ticket.scope) or self._add_scope(ticket.scope, now)
        limit, queue, deadline_s = scope.limit, scope.queue, ticket.deadline_s
        forecast_s = limit.forecast_s(queue.position(ticket), now) if limit.estimate.proven else math.nan
        if deadline_s < limit.opens_at_s or now + _FORECAST_TRUST * forecast_s > deadline_s:
            return _rejection(Reason.CANNOT_BE_IN_TIME, scope, ticket, now)
        if ticket.state is _NEW:
            if self.waiting >= self._policy.max_waiting:
                return _rejection(Reason.QUEUE_FULL, scope, ticket, now)
            most = self._policy.max_waiting_per_lane
            if queue.waiting >= most and queue.waiting_in(ticket.lane) >= most:
                return _rejection(Reason.LANE_FULL, scope, ticket, now)
            self._arrivals = ticket.arrival = self._arrivals + 1
            ticket.forecast_s = forecast_s
        ticket.state = _WAITING
        self.waiting += 1
        # Behind others it changes nothing before the scope's alarm, unless its own deadline comes first.
        if not (queue.waiting and now < scope.timer_at_s <= deadline_s):
            self._dirty[scope] = None
        queue.push(ticket)
        heapq.heappush(scope.deadlines, (deadline_s, ticket.arrival, ticket))
        return None

    def withdraw(self, ticket: Ticket, now: float) -> None:  # noqa: ARG002 - every event of the seam has its instant
        """The caller has gone. A ticket that does not wait is left alone: hang-ups race with polls."""
        if ticket.state is _WAITING:
            scope = self._scopes[ticket.scope]
            self._end_waiting(scope, ticket, _ENDED)
            self._dirty[scope] = None

    def settle(self, ticket: Ticket, outcome: Outcome, now: float, retry_after_s: float | None = None) -> None:
        """End a ticket's permit; `retry_after_s` is what a 429 said, from `now` on.

        ValueError: it has none, as it is settled already; or its scope is unknown here, as it is another gate's.
        """
        scope = self._scopes.get(ticket.scope)
        if ticket.state is not _ADMITTED or scope is None:
            raise ValueError("this permit is settled already, or another gate's")
        self.in_flight -= 1
        if outcome is _SERVED:
            ticket.state = _ENDED
            scope.limit.served(ticket.serial, now)
        else:
            ticket.state = _RETURNED
            scope.limit.not_served(ticket.serial, ticket.granted_at_s, outcome, now, retry_after_s)
        if scope.queue.waiting:
            self._dirty[scope] = None

    def poll(self, now: float) -> Verdicts:
        """Decide: who goes, who has waited in vain, and when to look again."""
        granted: list[Ticket] = []
        expired: list[Expiry] = []
        while self._timers and self._timers[0][0] <= now:
            timer_at_s, _, scope = heapq.heappop(self._timers)
            if timer_at_s == scope.timer_at_s:
                scope.timer_at_s = math.inf
                self._dirty[scope] = None
        for scope in self._dirty:
            limit = scope.limit
            # Nothing opens before `opens_at_s`: whose deadline comes first, learns it now.
            if scope.deadlines and scope.deadlines[0][0] < (before_s := max(now, limit.opens_at_s)):
                self._expire(scope, before_s, now, expired)
            if scope.queue.waiting:
                limit.advance(now)
                if not scope.in_turns and limit.grant_kind(now) is not None:
                    scope.in_turns = True
                    self._turns.append(scope)
        while self._turns and self.in_flight < self._policy.max_in_flight:
            scope = self._turns.popleft()
            if scope.queue.waiting and (kind := scope.limit.grant_kind(now)) is not None:
                granted.append(self._grant(scope, kind, now))
                self._turns.append(scope)
                self._dirty[scope] = None
            else:
                scope.in_turns = False
        for scope in self._dirty:
            if scope.deadlines and scope.deadlines[0][0] <= now:  # those whose last instant this was
                self._expire(scope, math.nextafter(now, math.inf), now, expired)
            self._set_timer(scope, now)
        self._dirty.clear()
        return Verdicts(granted, expired, self._next_timer_s())

    def _grant(self, scope: _Scope, kind: GrantKind, now: float) -> Ticket:
        ticket = scope.queue.pop()
        self.waiting -= 1
        self.in_flight += 1
        ticket.state = _ADMITTED
        ticket.granted_at_s = now
        ticket.serial = scope.limit.grant(kind, now)
        return ticket

    def _expire(self, scope: _Scope, before_s: float, now: float, expired: list[Expiry]) -> None:
        while scope.deadlines and scope.deadlines[0][0] < before_s:
            ticket = heapq.heappop(scope.deadlines)[2]
            if ticket.state is _WAITING:
                self._end_waiting(scope, ticket, _ENDED)
                reason = Reason.DEADLINE_PASSED if ticket.deadline_s <= now else Reason.CANNOT_BE_IN_TIME
                expired.append(Expiry(ticket, reason, _retry_after_s(scope, scope.queue.position(ticket), now)))

    def _end_waiting(self, scope: _Scope, ticket: Ticket, state: TicketState) -> None:
        ticket.state = state
        self.waiting -= 1
        scope.queue.discard(ticket)

    def _set_timer(self, scope: _Scope, now: float) -> None:
        """Clear the dead away, and note when the scope must be looked at again."""
        waiting = scope.queue.waiting
        if not waiting:
            scope.deadlines.clear()
            scope.timer_at_s = math.inf
            return
        if len(scope.deadlines) > 2 * waiting + _MAX_STALE:
            # A ticket that came back stands here twice: hence the keys.
            living = {entry[2]: entry for entry in scope.deadlines if entry[2].state is _WAITING}
            scope.deadlines = list(living.values())
            heapq.heapify(scope.deadlines)
        timer_at_s = scope.limit.changes_at_s(now)
        while scope.deadlines[0][0] < timer_at_s:
            if scope.deadlines[0][2].state is _WAITING:
                timer_at_s = scope.deadlines[0][0]
            else:
                heapq.heappop(scope.deadlines)
        if timer_at_s != scope.timer_at_s:
            scope.timer_at_s = timer_at_s
            heapq.heappush(self._timers, (timer_at_s, scope.number, scope))

    def _next_timer_s(self) -> float | None:
        timers = self._timers
        if len(timers) > 2 * len(self._scopes) + _MAX_STALE:
            timers[:] = [entry for entry in timers if entry[0] == entry[2].timer_at_s]
            heapq.heapify(timers)
        while timers and timers[0][0] != timers[0][2].timer_at_s:
            heapq.heappop(timers)
        return timers[0][0] if timers and timers[0][0] < math.inf else None

    def _add_scope(self, name: str, now: float) -> _Scope:
        if len(self._scopes) >= self._forget_at_scopes:
            self._forget_idle(now)
        self._scopes_made += 1
        limit = Limit(self._policy, self._jitter, self._policy.static_limits.of(name))
        scope = self._scopes[name] = _Scope(name, self._scopes_made, limit, FairQueue(self._weights))
        return scope

    def _forget_idle(self, now: float) -> None:
        """Drop the scopes that a new one could stand for; callers choose model ids, so they never end."""
        keep = {s.name: s for s in self._scopes.values() if s.queue.waiting or not s.limit.can_be_forgotten(now)}
        for scope in self._scopes.values():
            scope.in_turns = scope.in_turns and scope.queue.waiting > 0
        self._turns = deque(scope for scope in self._turns if scope.in_turns)
        self._scopes = keep
        self._forget_at_scopes = 2 * len(keep) + _MAX_STALE  # so that forgetting costs O(1) per scope made


def _rejection(reason: Reason, scope: _Scope, ticket: Ticket, now: float) -> Rejection:
    position = scope.queue.position(ticket)
    return Rejection(reason, _retry_after_s(scope, position, now), position)


def _retry_after_s(scope: _Scope, position: int, now: float) -> float:
    rest_s = scope.limit.opens_at_s - now
    forecast_s = scope.limit.forecast_s(position, now)
    return max(MIN_RETRY_AFTER_S, rest_s, 0.0 if math.isnan(forecast_s) else forecast_s)
