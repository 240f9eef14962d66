"""One scope inside the gate: its limit, its queue, its deadlines and its timer."""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import Belief
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.fairness.fair_queue import FairQueue
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.held_tickets import HeldTickets
from nanonets_proxy.core.ratelimit.long_quota import FIRST_DISTANCE_S, LongQuota
from nanonets_proxy.core.ratelimit.news import LimitClosed, LimitLearned, News, QuotaChanged, QuotaUsedUp
from nanonets_proxy.core.ratelimit.quota_watch import QuotaFinding, QuotaWatch
from nanonets_proxy.core.ratelimit.suspicion import Suspicion
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason, Ticket, TicketState

MAX_STALE = 64
"""Up to this many stale entries or idle scopes are not worth a cleanup."""

MAX_IDLE_SCOPES = 1024
"""Scopes of invented model ids may have closures and estimates too. A scope takes about 5 KB."""

_REMEMBERED_S = 3600.0  # how long an estimate is kept without a request
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
    is_deferred: bool = False
    """Whether only callers with their share of the places waited in the scope when its turn last came."""
    held: HeldTickets = field(default_factory=HeldTickets)
    suspicion: Suspicion | None = None
    """Made by the first refusal."""
    quota: LongQuota | None = None
    """Set while a quota is used up for long."""
    closed_at_s: float = math.inf
    """When the closure began that `take_news` has not reported yet; inf: there is none."""
    refused_count: int = 0
    longest_hint_s: float | None = None
    was_long: bool = False
    """Whether a quota was used up for long in the closure that `take_news` has not reported yet."""
    watch: QuotaWatch = field(default_factory=QuotaWatch)
    reported: Belief = field(init=False)
    """The latest estimate that `take_news` reported; at first, the estimate from the settings or the state file."""

    def __post_init__(self) -> None:
        self.reported = self.limit.estimate.belief

    @property
    def waiting(self) -> int:
        """The number of waiting tickets, in the queue or held."""
        return self.queue.waiting + self.held.count

    def waiting_in(self, lane: str) -> int:
        """Returns how many tickets of a lane wait, in the queue or held."""
        return self.queue.waiting_in(lane) + self.held.in_lane(lane)

    def change_policy(self, policy: GatePolicy, weights: Mapping[str, int]) -> None:
        """Applies another policy. A new estimate that comes from the settings is no news."""
        self.queue.change_weights(weights)
        self.limit.change_policy(policy, policy.static_limits.of(self.name))
        self.reported = self.limit.estimate.belief
        if self.quota is not None:
            self.quota.limit_distance(policy.max_quota_probe_s)

    def grant_kind(self, now: float, cost: float = 1) -> GrantKind | None:
        """Returns the kind of grant that a queued ticket of this cost may have now; None if it must wait."""
        if self.suspicion is not None and not self.suspicion.may_grant(self.limit):
            return None
        return self.limit.grant_kind(now, cost)

    def pop(self, kind: GrantKind, now: float) -> Ticket:
        """Takes from the queue the ticket for the next grant, which is of this kind."""
        replaced = None if self.suspicion is None else self.suspicion.replaced(kind, now)
        return self.queue.pop() if replaced is None else self.queue.pop_other(replaced)

    def refused(
        self, ticket: Ticket, now: float, hint_s: float | None, policy: GatePolicy, *, quota_used_up: bool
    ) -> None:
        """Notes a 429 to a ticket. If its refusal is in doubt, the limit learns nothing from it.

        `quota_used_up`: the 429 says that a quota is used up for long, as a hint beyond the longest wait does too.
        """
        quota_used_up = quota_used_up or (hint_s is not None and hint_s > policy.max_wait_s)
        limit = self.limit
        if self.suspicion is None:
            self.suspicion = Suspicion()
        known_quota = quota_used_up and self.quota_is_used_up(now)
        told_s = None if limit.estimate.hints.is_refuted(hint_s) else hint_s
        in_doubt = self.suspicion.refused(
            ticket, limit, now, told_s, quota_used_up=quota_used_up and not known_quota
        )
        if in_doubt or quota_used_up:
            limit.not_served(ticket.serial, ticket.granted_at_s, Outcome.UNUSED, now, None, cost=ticket.cost)
        else:
            outcome = Outcome.THROTTLED
            limit.not_served(ticket.serial, ticket.granted_at_s, outcome, now, hint_s, cost=ticket.cost)
            self.quota = None
        if quota_used_up:
            ticket.quota_used_up = True
            if not in_doubt:
                self.quota = self.quota or LongQuota(policy.max_quota_probe_s)
                limit.close(self.quota.refused(ticket.granted_at_s, now, hint_s))
        if not in_doubt and limit.state is LimitState.CLOSED:
            if self.closed_at_s == math.inf:
                self.closed_at_s = now
                self.watch.refused(ticket.granted_at_s, hint_s)
            self.refused_count += 1
            if hint_s is not None:
                self.longest_hint_s = max(hint_s, self.longest_hint_s or 0.0)

    def correct_cost(self, ticket: Ticket, cost: float) -> None:
        """Charges a granted ticket for its true cost."""
        self.limit.estimate.window.change_cost(ticket.granted_at_s, ticket.cost, cost)
        self.queue.charge(ticket.lane, cost - ticket.cost)

    def quota_is_used_up(self, now: float) -> bool:
        """Returns whether a quota is used up for long, as far as is known now."""
        if self.quota is None:
            return False
        self.limit.advance(now)
        if self.limit.state in (LimitState.OPEN, LimitState.LEARNED):  # the probe was accepted
            self.quota = None
        return self.quota is not None

    def take_news(self, now: float) -> list[News]:
        """Returns the news of the scope: closures, a quota that is used up, and a change of the estimate."""
        news: list[News] = []
        limit = self.limit
        if self.closed_at_s < math.inf:
            limit.advance(now)
            if self.quota is not None and not self.was_long:  # its closure may last for days
                self.was_long = True
                news.append(QuotaUsedUp(self.name, self.longest_hint_s, max(0.0, limit.opens_at_s - now)))
            if limit.state is not LimitState.CLOSED and not self.quota_is_used_up(now):
                lasted_s, was_long = now - self.closed_at_s, self.was_long
                news.append(LimitClosed(self.name, self.refused_count, lasted_s, self.longest_hint_s, was_long))
                if not was_long and (finding := self._quota_finding(now)) is not None:
                    news.append(QuotaChanged(self.name, finding))
                self.closed_at_s, self.refused_count, self.longest_hint_s = math.inf, 0, None
                self.was_long = False
        estimate, reported = limit.estimate, self.reported
        if (
            estimate.window.count != reported.count
            or estimate.window.period_s != reported.period_s
            or estimate.concurrency.limit != reported.concurrency_limit
        ):
            self.reported = estimate.belief
            news.append(LimitLearned(self.name, reported, self.reported))
        return news

    def _quota_finding(self, now: float) -> QuotaFinding | None:
        """Returns what the latest closure shows about the quota. Requests that are refused alone show nothing."""
        if self.suspicion is not None and now < self.suspicion.expected_until_s:
            return None
        estimate = self.limit.estimate
        return self.watch.closed(estimate.window, self.closed_at_s, estimate.refusal_delay_s)

    def take_ended(self, now: float) -> list[tuple[Ticket, Reason]]:
        """Returns the waiting tickets that end now: those refused alone, or all if a quota is used up.

        The scope must have had a refusal.
        """
        assert self.suspicion is not None
        ended_alone, self.suspicion.ended = self.suspicion.ended, []
        if self.quota is not None and self.quota_is_used_up(now):
            tickets = dict.fromkeys(entry[2] for entry in self.deadlines)
        else:
            tickets = dict.fromkeys(ended_alone)
        return [
            (ticket, Reason.REFUSED_ALONE if ticket.must_end else Reason.QUOTA_USED_UP)
            for ticket in tickets
            if ticket.state is _WAITING
        ]

    @property
    def opens_at_s(self) -> float:
        """When the closure of the scope ends."""
        return self.limit.opens_at_s if self.quota is None else max(self.limit.opens_at_s, self.quota.until_s)

    def note_sleep(self, slept_s: float) -> None:
        """Notes that the machine slept."""
        self.limit.note_sleep(slept_s)
        if self.quota is not None:
            self.quota.note_sleep(slept_s)
        self.held.note_sleep(slept_s)

    def advance(self, now: float) -> None:
        """Applies the passage of time: queues tickets that were held long enough, and ends doubts."""
        if self.suspicion is not None and self.suspicion.substitute_accepted_at_s <= now:
            self.suspicion.accept_substitute(self.limit, now)
        while self.held.count and (ticket := self.held.pop_due(now)) is not None:
            self.queue.push(ticket)

    def discard(self, ticket: Ticket) -> None:
        """Removes a ticket that no longer waits. Its state must have changed already."""
        if ticket.is_held:
            self.held.discard(ticket)
        else:
            self.queue.discard(ticket)

    def pop_overdue(self, before_s: float, now: float) -> Iterator[tuple[Ticket, Reason]]:
        """Removes from the heap the waiting tickets with deadlines before `before_s`, and yields them."""
        deadlines = self.deadlines
        while deadlines and deadlines[0][0] < before_s:
            ticket = heapq.heappop(deadlines)[2]
            if ticket.state is _WAITING:
                is_late = ticket.deadline_s <= now
                yield ticket, Reason.DEADLINE_PASSED if is_late else Reason.CANNOT_BE_IN_TIME

    def next_event_at_s(self, now: float) -> float:
        """Returns when the gate must look at the scope again; inf if no ticket waits. Clears stale entries."""
        waiting = self.waiting
        own_event_at_s = self.held.next_due_at_s() if self.held.count else math.inf
        if self.suspicion is not None:
            own_event_at_s = min(own_event_at_s, self.suspicion.substitute_accepted_at_s)
        if self.closed_at_s < math.inf:
            own_event_at_s = min(own_event_at_s, self.limit.changes_at_s(now))
            if self.was_long:  # a probe may be taken for accepted before its response
                own_event_at_s = min(own_event_at_s, now + FIRST_DISTANCE_S)
        if not waiting:
            self.deadlines.clear()
            return own_event_at_s
        if len(self.deadlines) > 2 * waiting + MAX_STALE:
            # A returned ticket has two entries; the dict keeps one of them.
            entries = {entry[2]: entry for entry in self.deadlines if entry[2].state is _WAITING}
            self.deadlines = list(entries.values())
            heapq.heapify(self.deadlines)
        event_at_s = own_event_at_s
        if self.queue.waiting:
            event_at_s = min(event_at_s, self.limit.changes_at_s(now, self.queue.next_cost()))
        while self.deadlines and self.deadlines[0][0] < event_at_s:
            if self.deadlines[0][2].state is _WAITING:
                return self.deadlines[0][0]
            heapq.heappop(self.deadlines)
        return event_at_s


def worth_keeping(scopes: Iterable[ScopeState], now: float) -> list[ScopeState]:
    """Returns the scopes in use, and at most `MAX_IDLE_SCOPES` others that have something to remember.

    If there are more, those with the latest grants stay. Forgetting a closure costs one more refusal.
    """
    in_use, idle = [], []
    for scope in scopes:
        if scope.waiting or scope.limit.in_flight:
            in_use.append(scope)
        elif _has_something_to_remember(scope.limit, now):
            idle.append(scope)
    if len(idle) > MAX_IDLE_SCOPES:
        idle.sort(key=lambda scope: scope.limit.last_grant_s)
        del idle[:-MAX_IDLE_SCOPES]
    return in_use + idle


def _has_something_to_remember(limit: Limit, now: float) -> bool:
    """Returns whether a new `Limit` would not do as well: the scope is closed, or its estimate is recent."""
    if now < limit.opens_at_s:
        return True
    return limit.estimate.known and now < max(limit.last_grant_s, limit.opens_at_s) + _REMEMBERED_S
