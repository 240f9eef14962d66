"""Properties of the gate that hold for any order of events.

The machine plays the shell, several callers and an unpredictable upstream, in virtual time. It checks the gate from
outside, by tickets, permits and hints alone.
"""

import math
from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nanonets_proxy.core.ratelimit.adaptive.closure_timer import MAX_CHEAP_HINT_S
from nanonets_proxy.core.ratelimit.adaptive.limit import LimitState
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Expiry, Outcome, Reason, Rejection, Ticket, TicketState, Verdicts

SCOPES = ("account", "v2:other", "v2:predict:m")
LANES = ("a", "b", "heavy")
WEIGHTS = {"a": 1, "b": 1, "heavy": 3}
OTHER_WEIGHTS = {"a": 2, "b": 1}
MOST_WEIGHT = 3
HINTS_S = st.none() | st.sampled_from([0.0, 0.25, 1.0, 5.0, 60.0])
ENDINGS = [outcome for outcome in Outcome if outcome is not Outcome.THROTTLED]
COSTS = ((1,), (1,), (1, 2, 2.5, 8))
STATIC_LIMITS = ((), ("account 2/60s", "v2:* 3/s"), ("v2:* 5/7s",), ("account 4/1s", "v2:predict:* 2/61s"))


def policy_of(
    max_in_flight: int,
    max_waiting: int,
    per_lane: int,
    static_limits: tuple[str, ...],
    weights: dict[str, int],
) -> GatePolicy:
    return GatePolicy(
        max_in_flight=max_in_flight,
        max_waiting=max_waiting,
        max_waiting_per_lane=per_lane,
        lane_weights=tuple(weights.items()),
        static_limits=StaticLimits(tuple(map(StaticLimit.parse, static_limits))),
    )


class TheGate(RuleBasedStateMachine):
    @initialize(
        max_in_flight=st.integers(1, 6),
        max_waiting=st.integers(1, 12),
        per_lane=st.integers(1, 6),
        static_limits=st.sampled_from(STATIC_LIMITS),
        costs=st.sampled_from(COSTS),
    )
    def start(
        self,
        max_in_flight: int,
        max_waiting: int,
        per_lane: int,
        static_limits: tuple[str, ...],
        costs: tuple[float, ...],
    ) -> None:
        self.costs = costs
        self.policy = policy_of(max_in_flight, max_waiting, per_lane, static_limits, WEIGHTS)
        self.over = 0  # permits from before a policy with fewer places
        self.gate = Gate(self.policy, lambda: 0.5)
        self.now = 0.0
        self.wake_at_s: float | None = None
        self.polled = True
        self.waiting: list[Ticket] = []
        self.permits: list[Ticket] = []
        self.paused: list[Ticket] = []
        self.resuming: list[Ticket] = []
        self.to_return: list[Ticket] = []
        self.gone: set[Ticket] = set()
        self.hinted_s: dict[str, float] = defaultdict(lambda: -math.inf)
        self.passed_over: dict[tuple[str, str], int] = defaultdict(int)  # grants to other lanes, by lane
        self.oldest_passed: dict[tuple[str, str], int] = defaultdict(int)  # grants to younger tickets, by lane
        self.granted: dict[str, dict[Ticket, float]] = defaultdict(dict)  # the grants that the upstream counts
        self.substitutes: dict[str, Ticket | None] = {}  # of scopes in doubt; None: not granted yet
        self.refused_probes: dict[str, Ticket] = {}

    # --- the operator -------------------------------------------------------------------------

    @rule(
        max_in_flight=st.integers(1, 6),
        max_waiting=st.integers(1, 12),
        per_lane=st.integers(1, 6),
        static_limits=st.sampled_from(STATIC_LIMITS),
        weights=st.sampled_from([WEIGHTS, OTHER_WEIGHTS]),
    )
    def change_policy(
        self,
        max_in_flight: int,
        max_waiting: int,
        per_lane: int,
        static_limits: tuple[str, ...],
        weights: dict[str, int],
    ) -> None:
        self.policy = policy_of(max_in_flight, max_waiting, per_lane, static_limits, weights)
        waiting = [(ticket, ticket.arrival, ticket.state) for ticket in self.waiting]
        self.gate.change_policy(self.policy)
        assert waiting == [(ticket, ticket.arrival, ticket.state) for ticket in self.waiting]
        for scope in SCOPES:
            if scope not in self.gate.scopes.by_name:  # forgotten, with the grants from before any limit
                self.granted[scope].clear()
        self.over = max(self.over, len(self.permits))
        self.passed_over.clear()
        self.polled = False

    # --- callers ------------------------------------------------------------------------------

    @rule(
        scope=st.sampled_from(SCOPES),
        lane=st.sampled_from(LANES),
        urgency=st.sampled_from([0, 3, 7]),
        kind=st.sampled_from(["", "other"]),
        wait_s=st.sampled_from([0.0, 0.5, 10.0, 300.0, math.inf]),
        data=st.data(),
    )
    def arrive(self, scope: str, lane: str, urgency: int, kind: str, wait_s: float, data: st.DataObject) -> None:
        scopes = self.gate.scopes
        scopes._forget_at_scopes, scopes._forget_at_s = 1, -math.inf  # forget idle scopes at every chance
        ticket = Ticket(scope, self.now + wait_s, lane, urgency, data.draw(st.sampled_from(self.costs)), kind)
        rejection = self.gate.enqueue(ticket, self.now)
        in_lane = sum(other.scope == scope and other.lane == lane for other in self.waiting)
        full = len(self.waiting) >= self.policy.max_waiting
        self.check_enqueued(ticket, rejection, full=full, lane_full=in_lane >= self.policy.max_waiting_per_lane)

    @precondition(lambda self: self.polled)
    @rule(scope=st.sampled_from(SCOPES), lane=st.sampled_from(LANES), data=st.data())
    def arrive_by_try_admit(self, scope: str, lane: str, data: st.DataObject) -> None:
        """Calls `try_admit`, which must grant nothing that `enqueue` and `poll` would not."""
        ticket = Ticket(scope, self.now + 10.0, lane, cost=data.draw(st.sampled_from(self.costs)))
        if not self.gate.try_admit(ticket, self.now):
            assert ticket.state is TicketState.NEW
            return
        assert all(other.scope != scope or other.is_held for other in self.waiting)
        self.waiting.append(ticket)
        self.check_granted(ticket)

    @precondition(lambda self: self.to_return)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.to_return))
        self.to_return.remove(ticket)
        self.check_enqueued(ticket, self.gate.enqueue(ticket, self.now), full=False, lane_full=False)

    def check_enqueued(self, ticket: Ticket, rejection: Rejection | None, *, full: bool, lane_full: bool) -> None:
        if rejection is None:
            assert not full
            assert not lane_full
            if not any((other.scope, other.lane) == (ticket.scope, ticket.lane) for other in self.waiting):
                self.passed_over[ticket.scope, ticket.lane] = 0
            self.waiting.append(ticket)
            self.polled = False
            return
        self.gone.add(ticket)
        assert ticket.state is not TicketState.WAITING
        assert rejection.retry_after_s >= max(1.0, self.hinted_s[ticket.scope] - self.now)
        assert 1 <= rejection.position <= len(self.waiting) + 1
        match rejection.reason:
            case Reason.QUEUE_FULL:
                assert full
            case Reason.LANE_FULL:
                assert lane_full
            case Reason.LARGER_THAN_LIMIT:
                assert ticket.cost > 1
            case Reason.REFUSED_ALONE:
                assert ticket.own_refusals >= 2
            case _:
                assert ticket.deadline_s < math.inf
                assert rejection.retry_after_s > ticket.deadline_s - self.now

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.gate.withdraw(ticket, self.now)
        self.waiting.remove(ticket)
        self.gone.add(ticket)
        self.polled = False

    # --- the upstream -------------------------------------------------------------------------

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), outcome=st.sampled_from(ENDINGS))
    def end(self, data: st.DataObject, outcome: Outcome) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        self.settle(permit, outcome, None)
        if outcome is not Outcome.SERVED:
            self.to_return.append(permit)

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), hint_s=HINTS_S)
    def refuse(self, data: st.DataObject, hint_s: float | None) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        doubts = permit.doubts
        was_probe = self.gate.scopes.by_name[permit.scope].limit.state is LimitState.PROBING
        self.settle(permit, Outcome.THROTTLED, hint_s)
        self.to_return.append(permit)
        scope = permit.scope
        if permit.doubts > doubts:  # it closes nothing, but the ticket itself must wait
            assert permit.held_until_s >= self.now + max(1.0, hint_s or 0.0)
            if self.gate.scopes.by_name[scope].limit.estimate.known:
                self.substitutes[scope] = None
        else:
            self.substitutes.pop(scope, None)
            if was_probe:
                self.refused_probes[scope] = permit
            # A refusal that the concurrency limit explains closes nothing.
            if hint_s is not None and self.gate.scopes.by_name[scope].limit.state is LimitState.CLOSED:
                # A short hint in whole seconds is rounded up, so the true wait may be up to a second shorter.
                is_rounded = hint_s <= MAX_CHEAP_HINT_S and not hint_s % 1
                least_s = hint_s - 1.0 if is_rounded else hint_s
                self.hinted_s[scope] = max(self.hinted_s[scope], self.now + least_s)

    @precondition(lambda self: self.permits)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        self.gate.pause(permit)
        self.permits.remove(permit)
        self.paused.append(permit)
        self.polled = False

    @precondition(lambda self: self.polled and self.paused)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        permit = data.draw(st.sampled_from(self.paused))
        self.paused.remove(permit)
        if self.gate.resume(permit):
            self.permits.append(permit)
        else:
            assert len(self.permits) >= self.policy.max_in_flight
            self.resuming.append(permit)

    @precondition(lambda self: self.paused or self.resuming)
    @rule(data=st.data(), outcome=st.sampled_from(ENDINGS))
    def end_while_paused(self, data: st.DataObject, outcome: Outcome) -> None:
        permit = data.draw(st.sampled_from(self.paused + self.resuming))
        (self.paused if permit in self.paused else self.resuming).remove(permit)
        self.permits.append(permit)
        self.settle(permit, outcome, None)
        if outcome is not Outcome.SERVED:
            self.to_return.append(permit)

    def settle(self, permit: Ticket, outcome: Outcome, hint_s: float | None) -> None:
        self.permits.remove(permit)
        if self.substitutes.get(permit.scope) is permit:
            self.substitutes[permit.scope] = None
            if outcome is Outcome.SERVED:
                del self.substitutes[permit.scope]
        if outcome in (Outcome.THROTTLED, Outcome.UNUSED):
            self.granted[permit.scope].pop(permit, None)
        self.gate.settle(permit, outcome, self.now, hint_s)
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
        self.now = max(self.now, self.wake_at_s)
        self.decide()

    @rule()
    def poll(self) -> None:
        self.decide()

    @rule()
    def restart(self) -> None:
        """Restarts the process while it has no requests. The new gate restores the snapshots."""
        if self.waiting or self.permits or self.to_return or self.paused or self.resuming:
            return
        snapshots = self.gate.scopes.snapshots(self.now)
        self.gate = Gate(self.policy, lambda: 0.5)
        self.gate.scopes.restore(snapshots, self.now, 0.0)
        self.wake_at_s = None

    def decide(self) -> Verdicts:
        before = list(self.waiting)
        resumed: list[Ticket] = []
        may_decide = self.gate.needs_poll or (self.wake_at_s is not None and self.wake_at_s <= self.now)
        verdicts = self.gate.poll(self.now)
        assert may_decide or verdicts == ([], [], self.wake_at_s), "decided something without asking for a poll"
        self.polled, self.wake_at_s = True, verdicts.wake_at_s
        assert self.wake_at_s is None or self.wake_at_s > self.now
        # A ticket with a deadline of just now may still be granted in this poll; late tickets expire first.
        for expiry in verdicts.expired:
            if expiry.ticket.deadline_s != self.now and expiry.reason is not Reason.LARGER_THAN_LIMIT:
                self.check_expired(expiry)
        for permit in verdicts.granted:
            if permit in self.resuming:
                self.resuming.remove(permit)
                self.permits.append(permit)
                resumed.append(permit)
                assert permit.state is TicketState.ADMITTED
            else:
                self.check_granted(permit)
        for expiry in verdicts.expired:
            if expiry.ticket.deadline_s == self.now or expiry.reason is Reason.LARGER_THAN_LIMIT:
                self.check_expired(expiry)
        assert all(ticket.deadline_s > self.now for ticket in self.waiting)
        assert sorted(map(id, before)) == sorted(
            map(
                id,
                [
                    *self.waiting,
                    *(ticket for ticket in verdicts.granted if ticket not in resumed),
                    *(expiry.ticket for expiry in verdicts.expired),
                ],
            )
        )
        self.check_no_grant_was_missed()
        return verdicts

    def check_expired(self, expiry: Expiry) -> None:
        ticket = expiry.ticket
        assert ticket in self.waiting
        self.waiting.remove(ticket)
        self.gone.add(ticket)
        if expiry.reason is Reason.LARGER_THAN_LIMIT:
            assert ticket.cost > 1
        elif expiry.reason is Reason.REFUSED_ALONE:
            assert ticket.refusals >= 3
            assert ticket.own_refusals >= 2
        else:
            passed = ticket.deadline_s <= self.now
            assert expiry.reason is (Reason.DEADLINE_PASSED if passed else Reason.CANNOT_BE_IN_TIME)
        assert expiry.retry_after_s >= max(1.0, self.hinted_s[ticket.scope] - self.now)

    def check_granted(self, ticket: Ticket) -> None:
        assert ticket.state is TicketState.ADMITTED
        assert ticket not in self.gone
        assert ticket in self.waiting, "granted twice"
        assert self.now >= self.hinted_s[ticket.scope], "granted while the scope is closed"
        assert self.now <= ticket.deadline_s
        assert self.now >= ticket.held_until_s, "granted while the ticket is held"
        queue = [other for other in self.waiting if other.scope == ticket.scope and not other.is_held]
        if not self.replaces_another(ticket):
            same = [
                other.arrival for other in queue if (other.lane, other.urgency) == (ticket.lane, ticket.urgency)
            ]
            assert ticket.arrival == min(same), "not in order of arrival"
            self.check_turns(ticket, queue)
        self.waiting.remove(ticket)
        self.permits.append(ticket)
        granted = self.granted[ticket.scope]
        granted[ticket] = self.now
        if static_limit := self.policy.static_limits.of(ticket.scope):
            recent = [other.cost for other, at_s in granted.items() if at_s + static_limit.period_s > self.now]
            assert sum(recent) <= static_limit.count

    def replaces_another(self, ticket: Ticket) -> bool:
        """Notes a substitute. Returns whether the ticket may be granted before others."""
        scope = ticket.scope
        suspicion = self.gate.scopes.by_name[scope].suspicion
        if suspicion is None or not suspicion._in_doubt:  # the last substitute was accepted by timeout
            self.substitutes.pop(scope, None)
        if scope in self.substitutes:
            assert self.substitutes[scope] is None, "two substitutes at a time"
            self.substitutes[scope] = ticket
            return True
        refused = self.refused_probes.pop(scope, None)
        return refused is not None and refused in self.waiting

    def check_turns(self, ticket: Ticket, queue: list[Ticket]) -> None:
        lanes = {other.lane for other in queue}
        for lane in LANES:
            key = (ticket.scope, lane)
            held = sum(permit.lane == lane for permit in self.permits)
            if lane not in lanes or lane == ticket.lane or held:  # it may hold its share of the places
                self.passed_over[key] = 0
            else:
                self.passed_over[key] += 1
                others = MOST_WEIGHT * (len(LANES) - 1)
                if len(self.costs) > 1:  # a turn may be as long as the largest cost, and a lane may owe turns
                    others *= 8 * 9
                assert self.passed_over[key] <= others, "a lane was left out of a round"
        mine = [other for other in queue if other.lane == ticket.lane]
        key = (ticket.scope, ticket.lane)
        if ticket.arrival == min(other.arrival for other in mine):
            self.oldest_passed[key] = 0
        else:
            self.oldest_passed[key] += 1
            assert self.oldest_passed[key] < 8, "the oldest ticket of a lane was passed over too often"

    def check_no_grant_was_missed(self) -> None:
        if len(self.permits) < self.policy.max_in_flight:
            assert not self.resuming
            for scope in {ticket.scope for ticket in self.waiting}:
                if any(ticket.scope == scope and not ticket.is_held for ticket in self.waiting):
                    state = self.gate.scopes.by_name[scope]
                    assert not state.grant_kind(self.now, state.queue.next_cost())
        if self.waiting:
            earliest_s = min(ticket.deadline_s for ticket in self.waiting)
            assert earliest_s == math.inf or (self.wake_at_s is not None and self.wake_at_s <= earliest_s)

    # --- always -------------------------------------------------------------------------------

    @invariant()
    def the_counts_are_correct(self) -> None:
        assert self.gate.waiting == len(self.waiting)
        self.over = min(self.over, len(self.permits))
        assert self.gate.in_flight == len(self.permits) <= max(self.policy.max_in_flight, self.over)
        closed = self.gate.scopes.closed(self.now)
        for scope, until_s in self.hinted_s.items():
            assert until_s <= self.now or closed.get(scope, -math.inf) >= until_s

    @invariant()
    def a_waiting_ticket_has_a_next_poll(self) -> None:
        if self.polled and self.gate.waiting and not (self.permits or self.paused or self.resuming):
            assert self.wake_at_s is not None

    def teardown(self) -> None:
        """Serves all permits: the queue must drain."""
        if not hasattr(self, "gate"):
            return
        for _ in range(50 * self.gate.waiting + 200):
            self.permits += self.paused + self.resuming
            self.paused.clear()
            self.resuming.clear()
            for permit in list(self.permits):
                self.settle(permit, Outcome.SERVED, None)
            self.poll()
            if not self.gate.waiting:
                break
            if not self.permits:
                assert self.wake_at_s is not None
                self.now = self.wake_at_s
        assert self.gate.waiting == 0
        for permit in list(self.permits):
            self.settle(permit, Outcome.SERVED, None)
        assert len(self.gate._places) == 0
        assert self.gate.in_flight == 0


TestTheGate = TheGate.TestCase
TestTheGate.settings = settings(max_examples=75, stateful_step_count=60)
