"""The gate: decides which request may go upstream, and when. Its shell passes in the time and acts on verdicts.

Each request is a *ticket*. It waits until the gate grants it a *permit*, goes upstream, and settles the permit with
the outcome. `tickets.py` lists the states of a ticket.

Each scope (`scopes/`) has its own limit (`adaptive/limit.py`) and its own queue, in which callers take turns
(`fairness/fair_queue.py`). A closed scope does not stop the others. Scopes and callers also take turns for the
`max_in_flight` places, which all of them share (`fairness/places.py`).

The shell calls `poll` after other calls if the gate `needs_poll` or `settle` says so, and at `wake_at_s`. Instants
are seconds of one monotonic clock. They never decrease from call to call.

Costs: each call is O(log n) amortised. A ticket that leaves stays as a stale entry in the queue and in a heap of
deadlines, until it comes to the front or the stale entries outnumber the others. A poll looks only at *dirty*
scopes, which had an event or whose timer is due, and at the scopes that take turns. A ticket that arrives behind
others does not make its scope dirty, so a long queue costs one poll per grant.
"""

import heapq
import math
from collections.abc import Callable, Iterable

from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit
from nanonets_proxy.core.ratelimit.fairness.places import Places
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.news import NewsQueue
from nanonets_proxy.core.ratelimit.rejections import rejection_of, retry_after_s
from nanonets_proxy.core.ratelimit.scope_registry import ScopeRegistry, ScopeTimers
from nanonets_proxy.core.ratelimit.scope_state import ScopeState
from nanonets_proxy.core.ratelimit.tickets import Expiry, Outcome, Reason, Rejection, Ticket, TicketState, Verdicts

# In Python 3.11 each access to a member through its enum costs a call.
_NEW, _WAITING, _ADMITTED, _RETURNED, _ENDED, _PAUSED = TicketState
_SERVED, _THROTTLED = Outcome.SERVED, Outcome.THROTTLED


class Gate:
    """Holds tickets back and grants permits as fast as the limits allow."""

    def __init__(self, policy: GatePolicy, jitter: Callable[[], float]) -> None:
        """Takes the policy, and a function that returns a random number from 0 to 1."""
        self.waiting = 0
        """The number of waiting tickets of all scopes. Read-only for others."""
        self.news = NewsQueue()
        self.policy = policy
        self._arrivals = 0
        self._places = Places(policy.max_in_flight, dict(policy.lane_weights))
        self.scopes = ScopeRegistry(policy, jitter, self._places)
        """The scopes, for reports and for the state file. Only the gate changes them."""
        self._by_name = self.scopes.by_name
        self._dirty: dict[ScopeState, None] = {}  # an ordered set
        self._timers = ScopeTimers()

    @property
    def in_flight(self) -> int:
        """The number of unsettled permits of all scopes, without the paused ones."""
        return self._places.in_flight

    @property
    def needs_poll(self) -> bool:
        """Whether a poll before the last `wake_at_s` could decide anything."""
        return bool(self._dirty) or (self._places.in_flight < self._places.total and self._places.is_wanted)

    def change_policy(self, policy: GatePolicy) -> None:
        """Applies another policy from now on. A poll must follow.

        Waiting tickets keep their place and their deadline, and permits stay valid, even if there are more of them
        than the policy allows.
        """
        self.policy = policy
        self._places.change(policy.max_in_flight, dict(policy.lane_weights))
        self.scopes.change_policy(policy)
        self._dirty.update(dict.fromkeys(self._by_name.values()))

    def try_admit(self, ticket: Ticket, now: float) -> bool:
        """Admits a new ticket that need not wait, with the same result as `enqueue` and `poll`.

        Returns False if the ticket must wait; it stays new. Raises ValueError if it is not new. Most requests need
        not wait, so this call is much cheaper than the others.
        """
        if ticket.state is not _NEW:
            raise ValueError(f"a ticket in state {ticket.state.value} cannot be admitted at once")
        scope = self._by_name.get(ticket.scope) or self.scopes.add(ticket.scope, now)
        ticket.scope = scope.name
        limit, places, cost = scope.limit, self._places, ticket.cost
        if scope.queue.waiting or places.in_flight >= places.total or (self.waiting and places.scopes_wait):
            return False
        if ticket.deadline_s < now or (kind := (scope if scope.suspicion else limit).grant_kind(now, cost)) is None:
            return False
        if cost > 1 and limit.grants.is_too_large(cost):  # not even as a recovery probe
            return False
        self._arrivals = ticket.arrival = self._arrivals + 1
        places.admit_at_once(ticket)
        ticket.state = _ADMITTED
        ticket.granted_at_s = now
        ticket.serial = limit.grant(kind, now, cost)
        if scope.suspicion is not None:
            scope.suspicion.note_grant(ticket, limit, now)
        return True

    def adopt(self, ticket: Ticket, granted_at_s: float, now: float) -> None:
        """Takes over a new ticket whose request another process sent at `granted_at_s`, for that to settle.

        The snapshots of the other gate, which `scopes.restore` has applied, count the request already. The ticket
        takes a place even if none is free. A poll must follow.
        """
        scope = self._by_name.get(ticket.scope) or self.scopes.add(ticket.scope, now)
        ticket.scope = scope.name
        self._arrivals = ticket.arrival = self._arrivals + 1
        self._places.admit_at_once(ticket)
        ticket.state = _ADMITTED
        ticket.granted_at_s = granted_at_s
        ticket.serial = scope.limit.adopt(granted_at_s)
        self._dirty[scope] = None

    def enqueue(self, ticket: Ticket, now: float) -> Rejection | None:
        """Lets a ticket wait, or returns why it may not. Only new tickets count against the bounds of the queue.

        Raises ValueError if the ticket waits already, has a permit, or has ended.
        """
        if ticket.state is not _NEW and ticket.state is not _RETURNED:
            raise ValueError(f"a ticket in state {ticket.state.value} cannot be enqueued")
        scope = self._by_name.get(ticket.scope) or self.scopes.add(ticket.scope, now)
        ticket.scope = scope.name
        if (rejection := rejection_of(ticket, scope, self.policy, self.waiting, now)) is not None:
            return rejection
        if ticket.state is _NEW:
            self._arrivals = ticket.arrival = self._arrivals + 1
        ticket.state = _WAITING
        self.waiting += 1
        self._places.enter(ticket)
        # Behind others, a ticket changes nothing before the scope's timer, unless its own deadline comes first.
        if not (scope.queue.waiting and now < scope.timer_at_s <= ticket.deadline_s):
            self._dirty[scope] = None
        if ticket.held_until_s > now:
            scope.held.add(ticket)
            self._dirty[scope] = None
        else:
            scope.queue.push(ticket)
        heapq.heappush(scope.deadlines, (ticket.deadline_s, ticket.arrival, ticket))
        return None

    def withdraw(self, ticket: Ticket, now: float) -> None:  # noqa: ARG002 - every event takes its instant
        """Ends a waiting ticket whose caller has gone. Ignores any other ticket: hang-ups race with polls."""
        if ticket.state is _WAITING:
            scope = self._by_name[ticket.scope]
            self._end_waiting(scope, ticket)
            self._dirty[scope] = None

    def settle(
        self,
        ticket: Ticket,
        outcome: Outcome,
        now: float,
        retry_after_s: float | None = None,
        quota_used_up: bool = False,
    ) -> bool:
        """Ends a ticket's permit. Returns whether its scope needs a poll. `retry_after_s`: the hint of a 429.

        `quota_used_up`: the 429 says that a quota is used up for long, as a hint beyond the longest wait does too.
        Raises ValueError if the ticket has no permit of this gate, or has settled it already.
        """
        scope = self._by_name.get(ticket.scope)
        if (ticket.state is not _ADMITTED and ticket.state is not _PAUSED) or scope is None:
            raise ValueError("this permit is already settled, or belongs to another gate")
        self._places.settle(ticket)
        if outcome is _SERVED:
            ticket.state = _ENDED
            scope.limit.served(ticket.serial, now)
        else:
            ticket.state = _RETURNED
            if outcome is _THROTTLED:
                scope.refused(ticket, now, retry_after_s, self.policy, quota_used_up=quota_used_up)
            else:
                scope.limit.not_served(ticket.serial, ticket.granted_at_s, outcome, now, None, cost=ticket.cost)
        if scope.suspicion is not None and outcome is not _THROTTLED:
            scope.suspicion.ended_otherwise(ticket, outcome, scope.limit, now)
        if outcome is _THROTTLED or scope.queue.waiting or scope.was_long or (scope.suspicion and scope.waiting):
            self._dirty[scope] = None
            return True
        return False

    def limit_to_tell(self, name: str, now: float) -> Limit:
        """Returns the limit of a scope, to be told what other gates know (`other_gates.py`). A poll must follow."""
        scope = self._by_name.get(name) or self.scopes.add(name, now)
        self._dirty[scope] = None
        return scope.limit

    def pause(self, ticket: Ticket) -> None:
        """Gives the place of an admitted ticket back, since its caller is too slow to use it."""
        if ticket.state is _ADMITTED:
            self._places.pause(ticket)

    def resume(self, ticket: Ticket, even_if_full: bool = False) -> bool:
        """Takes a place for a paused ticket. If none is free, returns False, and a later `poll` grants one."""
        return ticket.state is not _PAUSED or self._places.resume(ticket, even_if_full)

    def correct_cost(self, ticket: Ticket, cost: float) -> None:
        """Corrects the cost of a ticket that was granted with an estimate of it, before it is enqueued again."""
        scope = self._by_name.get(ticket.scope)
        if scope is not None and ticket.state is not _RETURNED:
            scope.correct_cost(ticket, cost)
            self._dirty[scope] = None
        ticket.cost = cost

    def note_advice(self, ticket: Ticket, advice: Advice, now: float) -> None:
        """Applies what the response to a ticket announced about the limit of its scope, before any refusal."""
        scope = self._by_name.get(ticket.scope)
        if scope is not None:
            scope.limit.note_advice(ticket.serial, advice, now)
            self._dirty[scope] = None

    def note_sleep(self, slept_s: float) -> None:
        """Notes that the machine slept: the clock of `now` stood still, while the upstream's went on."""
        for scope in self._by_name.values():
            scope.note_sleep(slept_s)
            self._dirty[scope] = None

    def poll(self, now: float) -> Verdicts:
        """Decides which tickets are granted, which expire, and when to poll again."""
        granted: list[Ticket] = []
        expired: list[Expiry] = []
        for scope in self._timers.pop_due(now):
            self._dirty[scope] = None
        for scope in self._dirty:
            limit = scope.limit
            scope.advance(now)
            # The scope is closed until `opens_at_s`: a ticket with an earlier deadline expires now.
            if scope.deadlines and scope.deadlines[0][0] < (before_s := max(now, limit.opens_at_s)):
                self._expire(scope, scope.pop_overdue(before_s, now), now, expired)
            if scope.queue.waiting:
                limit.advance(now)
                if not scope.in_turns and self._grant_kind(scope, now, expired) is not None:
                    self._places.add_scope(scope)
        places = self._places
        while places.in_flight < places.total and (turn := places.next_turn()) is not None:
            if isinstance(turn, Ticket):
                granted.append(turn)
            elif (kind := self._grant_kind(turn, now, expired)) is not None:
                granted.append(self._grant(turn, kind, now))
                places.end_turn(turn)
                self._dirty[turn] = None
        expired_before = len(expired)
        for scope in self._dirty:
            if scope.suspicion is not None:
                self._expire(scope, scope.take_ended(now), now, expired)
            if scope.deadlines and scope.deadlines[0][0] <= now:  # the grants above were their last chance
                self._expire(scope, scope.pop_overdue(math.nextafter(now, math.inf), now), now, expired)
            if news := scope.take_news(now):
                self.news.add(news)
            if scope.suspicion is not None and not scope.held.count and scope.suspicion.is_idle(now):
                scope.suspicion = None
            self._timers.set(scope, scope.next_event_at_s(now))
        self._dirty.clear()
        if len(expired) > expired_before:  # perhaps the first ticket, and the next one may cost less
            self._dirty.update((self._by_name[expiry.ticket.scope], None) for expiry in expired[expired_before:])
            more = self.poll(now)
            return Verdicts([*granted, *more.granted], [*expired, *more.expired], more.wake_at_s)
        return Verdicts(granted, expired, self._timers.next_s(len(self._by_name)))

    def _grant_kind(self, scope: ScopeState, now: float, expired: list[Expiry]) -> GrantKind | None:
        """Returns the kind of grant for the scope's next ticket; None if none may go. Ends too large tickets."""
        queue = scope.queue
        while queue.waiting:
            cost = queue.next_cost()
            if cost <= 1 or not scope.limit.grants.is_too_large(cost):
                return scope.grant_kind(now, cost)
            self._end(ticket := queue.pop())
            expired.append(Expiry(ticket, Reason.LARGER_THAN_LIMIT, math.inf))
        return None

    def _grant(self, scope: ScopeState, kind: GrantKind, now: float) -> Ticket:
        ticket = scope.pop(kind, now)
        self.waiting -= 1
        self._places.admit(ticket)
        ticket.state = _ADMITTED
        ticket.granted_at_s = now
        ticket.serial = scope.limit.grant(kind, now, ticket.cost)
        if scope.suspicion is not None:
            scope.suspicion.note_grant(ticket, scope.limit, now)
        return ticket

    def _expire(
        self, scope: ScopeState, ended: Iterable[tuple[Ticket, Reason]], now: float, expired: list[Expiry]
    ) -> None:
        for ticket, reason in ended:
            self._end_waiting(scope, ticket)
            expired.append(Expiry(ticket, reason, retry_after_s(scope, ticket, now)))

    def _end_waiting(self, scope: ScopeState, ticket: Ticket) -> None:
        self._end(ticket)
        scope.discard(ticket)

    def _end(self, ticket: Ticket) -> None:
        """Ends a ticket that waits no longer."""
        ticket.state = _ENDED
        self.waiting -= 1
        self._places.leave(ticket)
