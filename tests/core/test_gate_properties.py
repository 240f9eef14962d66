"""Whatever callers and upstream do, in whatever order: what is always true of the gate.

The machine plays the shell, several callers and a moody upstream in virtual time. Beside the gate it runs
a *plain* one that keeps lists and looks at everything each time, on limits of the same kind; both must
decide alike. What the limits themselves must hold is checked from the outside, by the hints alone.
"""

import math
from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nanonets_proxy.core.gate import (
    Gate,
    GatePolicy,
    Outcome,
    Permit,
    Reason,
    Refusal,
    Ticket,
    Verdicts,
)
from nanonets_proxy.core.limits import Limit, LimitState

SCOPES = ("account", "v2:other", "v2:predict:m")
HINTS_S = st.none() | st.sampled_from([0.0, 0.25, 1.0, 5.0, 60.0])
ENDINGS = [outcome for outcome in Outcome if outcome is not Outcome.THROTTLED]


class PlainLine:
    """One scope, the obvious way."""

    def __init__(self, policy: GatePolicy) -> None:
        self.limit = Limit(policy, lambda: 0.5)
        self.waiting: list[Ticket] = []

    def poll(self, now: float) -> list[Ticket]:
        """Who leaves in vain before anyone is granted. Also lets time pass for the limit."""
        expired = [t for t in self.waiting if t.deadline_s < max(now, self.limit.opens_at_s)]
        self.waiting = [t for t in self.waiting if t not in expired]
        if self.waiting:
            self.limit.advance(now, len(self.waiting))
        return expired

    @property
    def ready(self) -> bool:
        return bool(self.waiting) and self.limit.may_grant


class TheGate(RuleBasedStateMachine):
    @initialize(max_in_flight=st.integers(1, 6), max_waiting=st.integers(1, 12))
    def start(self, max_in_flight: int, max_waiting: int) -> None:
        self.policy = GatePolicy(max_in_flight=max_in_flight, max_waiting=max_waiting)
        self.gate = Gate(self.policy, lambda: 0.5)
        self.now = 0.0
        self.wake_at_s: float | None = None
        self.polled = True
        self.plain: dict[str, PlainLine] = defaultdict(lambda: PlainLine(self.policy))
        self.permits: list[Permit] = []
        self.plain_rounds: dict[Permit, int] = {}
        self.to_return: list[Ticket] = []
        self.gone: set[Ticket] = set()
        self.hinted_s: dict[str, float] = defaultdict(lambda: -math.inf)
        self.passed_over: dict[str, list[str]] = {}  # a ready scope -> whom the gate has served since

    # --- callers ------------------------------------------------------------------------------

    @rule(
        scope=st.sampled_from(SCOPES),
        waits_s=st.lists(st.sampled_from([0.0, 0.5, 10.0, 300.0, math.inf]), min_size=1, max_size=6),
    )
    def arrive(self, scope: str, waits_s: list[float]) -> None:
        self.gate._forget_at_scopes = 1  # forget idle scopes at every chance
        for wait_s in waits_s:
            ticket = Ticket(scope, self.now + wait_s)
            full = self.gate.waiting >= self.policy.max_waiting
            self.check_enqueued(ticket, self.gate.enqueue(ticket, self.now), full=full)

    @precondition(lambda self: self.to_return)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.to_return))
        self.to_return.remove(ticket)
        self.check_enqueued(ticket, self.gate.enqueue(ticket, self.now), full=False)

    def check_enqueued(self, ticket: Ticket, refusal: Refusal | None, *, full: bool) -> None:
        line = self.plain[ticket.scope]
        if refusal is None:
            assert not full
            line.waiting = sorted([*line.waiting, ticket], key=lambda waiting: waiting.arrival)
            self.polled = False
            return
        self.gone.add(ticket)
        late = ticket.deadline_s < line.limit.opens_at_s
        assert refusal.reason is (Reason.CANNOT_BE_IN_TIME if late else Reason.QUEUE_FULL)
        assert late or full
        assert refusal.retry_after_s == max(1.0, line.limit.opens_at_s - self.now)
        assert refusal.position == len(line.waiting) + 1

    @precondition(lambda self: any(line.waiting for line in self.plain.values()))
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from([t for line in self.plain.values() for t in line.waiting]))
        self.gate.withdraw(ticket, self.now)
        self.plain[ticket.scope].waiting.remove(ticket)
        self.gone.add(ticket)
        self.polled = False

    # --- the upstream -------------------------------------------------------------------------

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), outcome=st.sampled_from(ENDINGS))
    def end(self, data: st.DataObject, outcome: Outcome) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        self.settle(permit, outcome, None)
        if outcome is not Outcome.SERVED:
            self.to_return.append(permit.ticket)

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), hint_s=HINTS_S)
    def refuse(self, data: st.DataObject, hint_s: float | None) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        self.settle(permit, Outcome.THROTTLED, hint_s)
        self.to_return.append(permit.ticket)
        if hint_s is not None:
            scope = permit.ticket.scope
            self.hinted_s[scope] = max(self.hinted_s[scope], self.now + hint_s)

    def settle(self, permit: Permit, outcome: Outcome, hint_s: float | None) -> None:
        self.permits.remove(permit)
        self.gate.settle(permit, outcome, self.now, hint_s)
        limit = self.plain[permit.ticket.scope].limit
        limit.settle(self.plain_rounds.pop(permit), permit.granted_at_s, outcome, self.now, hint_s)
        self.polled = False

    # --- time ---------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 7.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.polled = False

    @precondition(lambda self: self.polled and self.wake_at_s is not None)
    @rule()
    def wake(self) -> None:
        assert self.wake_at_s is not None
        woken_at_s = self.now = max(self.now, self.wake_at_s)
        states = [line.limit.changes_at_s for line in self.plain.values()]
        verdicts = self.decide()
        moved = states != [line.limit.changes_at_s for line in self.plain.values()]
        assert verdicts.granted or verdicts.expired or moved, "woken for nothing"
        assert verdicts.wake_at_s is None or verdicts.wake_at_s > woken_at_s

    @rule()
    def poll(self) -> None:
        self.decide()

    def decide(self) -> Verdicts:
        verdicts = self.gate.poll(self.now)
        self.polled, self.wake_at_s = True, verdicts.wake_at_s
        assert self.wake_at_s is None or self.wake_at_s > self.now
        expected = {t: None for line in self.plain.values() for t in line.poll(self.now)}
        for permit in verdicts.granted:
            self.check_granted(permit)
        for line in self.plain.values():
            last = [t for t in line.waiting if t.deadline_s <= self.now]
            expected.update(dict.fromkeys(last))
            line.waiting = [t for t in line.waiting if t not in last]
        assert {expiry.ticket for expiry in verdicts.expired} == set(expected)
        assert len(verdicts.expired) == len(expected)
        for expiry in verdicts.expired:
            passed = expiry.ticket.deadline_s <= self.now
            assert expiry.reason is (Reason.DEADLINE_PASSED if passed else Reason.CANNOT_BE_IN_TIME)
            opens_at_s = self.plain[expiry.ticket.scope].limit.opens_at_s
            assert expiry.retry_after_s == max(1.0, opens_at_s - self.now)
        self.gone.update(expected)
        self.check_nothing_was_left_undone()
        return verdicts

    def check_granted(self, permit: Permit) -> None:
        ticket, line = permit.ticket, self.plain[permit.ticket.scope]
        assert ticket not in self.gone
        assert ticket is line.waiting[0], "not in order of arrival, or granted twice"
        assert line.limit.may_grant
        assert self.now >= self.hinted_s[ticket.scope], "granted while the scope is closed"
        ready = {scope for scope, other in self.plain.items() if other.ready}
        self.passed_over.pop(ticket.scope, None)
        for scope in ready - {ticket.scope}:
            served = self.passed_over.setdefault(scope, [])
            assert ticket.scope not in served, "served twice while another stood ready"
            served.append(ticket.scope)
        del line.waiting[0]
        self.plain_rounds[permit] = line.limit.grant(self.now)
        self.permits.append(permit)

    def check_nothing_was_left_undone(self) -> None:
        ready = {scope for scope, line in self.plain.items() if line.ready}
        assert not ready or len(self.permits) == self.policy.max_in_flight
        instants = [t.deadline_s for line in self.plain.values() for t in line.waiting]
        instants += [line.limit.changes_at_s for line in self.plain.values() if line.waiting]
        earliest_s = min(instants, default=math.inf)
        assert self.wake_at_s == (earliest_s if earliest_s < math.inf else None)

    # --- always -------------------------------------------------------------------------------

    @invariant()
    def the_counts_are_right(self) -> None:
        assert self.gate.waiting == sum(len(line.waiting) for line in self.plain.values())
        assert self.gate.in_flight == len(self.permits) <= self.policy.max_in_flight
        closed = {s: line.limit.opens_at_s for s, line in self.plain.items() if line.limit.opens_at_s > self.now}
        assert self.gate.closed_scopes(self.now) == closed
        for scope, until_s in self.hinted_s.items():
            assert until_s <= self.now or closed[scope] >= until_s

    @invariant()
    def who_cannot_go_is_not_passed_over(self) -> None:
        self.passed_over = {s: served for s, served in self.passed_over.items() if self.plain[s].ready}

    @invariant()
    def who_waits_will_be_looked_at(self) -> None:
        if self.polled and self.gate.waiting and not self.gate.in_flight:
            assert self.wake_at_s is not None

    @invariant()
    def idle_limits_are_as_new(self) -> None:
        """The gate may have forgotten an idle scope: then the plain one forgets it as well."""
        for scope in [s for s in self.plain if s not in self.gate._scopes]:
            line = self.plain.pop(scope)
            assert not line.waiting
            assert line.limit.in_flight == 0
            assert line.limit.state is LimitState.OPEN or line.limit.opens_at_s + 60 <= self.now

    def teardown(self) -> None:
        """Served at last, the queue drains."""
        if not hasattr(self, "gate"):
            return
        for _ in range(10 * self.gate.waiting + 100):
            for permit in list(self.permits):
                self.settle(permit, Outcome.SERVED, None)
            self.poll()
            if not self.gate.waiting:
                break
            if not self.permits:
                assert self.wake_at_s is not None
                self.now = self.wake_at_s
        assert self.gate.waiting == 0


TestTheGate = TheGate.TestCase
TestTheGate.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
