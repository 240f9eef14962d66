"""What a gate takes over from other gates: grants, closures and permits in use."""

import heapq
import math
from itertools import count

import pytest

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.lessons import learn_from
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import _MAX_KEPT, SlidingWindow
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import LimitState
from nanonets_proxy.core.ratelimit.adaptive.other_gates import await_report, merge, reported, sent, take_over
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from simulator.limiters import FixedWindow


def gate(*limits: StaticLimit) -> Gate:
    policy = GatePolicy(max_in_flight=100, max_waiting=100, static_limits=StaticLimits(limits))
    return Gate(policy, lambda: 0.0)


def test_merged_grants_count_in_the_order_of_their_instants() -> None:
    window = SlidingWindow()
    window.set(5, 10.0)
    window.add(4.0)
    window.merge([(6.0, 2), (1.0, 1)])
    assert (window.used(6.0), window.granted, window.granted_units) == (4, 3, 4)
    assert window.used(11.5) == 3  # the grant of 1.0 no longer counts
    assert window.used(14.5) == 2


def test_a_window_keeps_a_bounded_number_of_merged_grants() -> None:
    window = SlidingWindow()
    window.merge((number / 1e4, 1) for number in range(_MAX_KEPT + 10))
    assert window.used(1.0) == _MAX_KEPT


def test_grants_of_other_gates_use_up_the_limit() -> None:
    own = gate(StaticLimit("a", 2, 10.0))
    merge(own.limit_to_tell("a", 100.0), [(99.0, 1), (98.0, 1)], -math.inf)
    ticket = Ticket("a", 200.0)
    assert not own.try_admit(ticket, 100.0)
    own.enqueue(ticket, 100.0)
    assert own.poll(107.9).granted == []
    assert own.poll(108.1).granted == [ticket]


def test_a_gate_that_takes_over_does_not_probe_in_a_period_that_it_does_not_know() -> None:
    own = gate()
    own.scopes.restore([ScopeSnapshot("a", 20, 10.0, 20, None, 0, 0.0, 0.0)], 100.0, 50.0)
    estimate = own.limit_to_tell("a", 100.0).estimate
    probes, concurrency_probes = estimate.window_probes, estimate.concurrency.probes
    assert probes.due(101.0)
    assert concurrency_probes.due(101.0)
    take_over(own.limit_to_tell("a", 100.0), 100.0)
    assert not probes.due(109.9)
    assert probes.due(110.1)
    assert not concurrency_probes.due(159.9)
    assert concurrency_probes.due(160.1)
    take_over(own.limit_to_tell("b", 100.0), 100.0)  # nothing is known, and nothing to probe


def test_a_raise_that_has_not_held_yet_is_not_told() -> None:
    """Another gate could not undo it."""
    own = gate()
    own.scopes.restore([ScopeSnapshot("a", 20, 10.0, 20, None, 0, 0.0, 0.0)], 100.0, 0.0)
    estimate = own.limit_to_tell("a", 100.0).estimate
    estimate.raise_count(100.0)
    (snapshot,) = own.scopes.snapshots(101.0)
    assert estimate.window.count > 20
    assert (snapshot.count, snapshot.period_s, snapshot.proven) == (20, 10.0, 20)


@pytest.mark.parametrize(("proven", "period_s"), [(0.0, 2.0), (41.0, 4.0)])
def test_refusals_after_a_takeover_leave_the_period_of_a_proven_limit(proven: float, period_s: float) -> None:
    """The fit of periods is for the first refusals of all, and a gate that takes over does not know these."""
    own = gate()
    own.scopes.restore([ScopeSnapshot("a", 41, 4.0, proven, None, 0, 0.0, 0.0)], 100.0, 0.0)
    take_over(own.limit_to_tell("a", 100.0), 100.0)
    estimate = own.limit_to_tell("a", 100.0).estimate
    for began_s, kind in ((100.0, GrantKind.COUNT_PROBE), (104.0, GrantKind.PROVEN)):
        estimate.window.merge([(began_s + 0.1 * number, 1) for number in range(10)] + [(began_s + 1.9, 1)] * 30)
        refused = Closure(kind, began_s + 2.0, 2.0, hinted=True, opens_at_s=began_s + 4.0)
        learn_from(estimate, refused, began_s + 4.0)
    assert (estimate.window.count, estimate.window.period_s) == (40 if proven else 30, period_s)


def test_a_closure_of_another_gate_closes_the_scope() -> None:
    own = gate()
    merge(own.limit_to_tell("a", 100.0), (), 105.0)
    assert own.scopes.closed(100.0) == {"a": 105.0}
    assert not own.try_admit(Ticket("a", 200.0), 104.0)
    assert own.try_admit(Ticket("a", 200.0), 105.0)


def test_the_same_closure_heard_a_little_later_still_teaches() -> None:
    own = gate()
    tickets = [Ticket("a", 200.0) for _ in range(8)]
    for ticket in tickets:
        assert own.try_admit(ticket, 100.0)
    for ticket in tickets[:6]:
        own.settle(ticket, Outcome.SERVED, 100.1)
    for ticket in tickets[6:]:
        own.settle(ticket, Outcome.THROTTLED, 100.1, 4.0)
    merge(own.limit_to_tell("a", 100.2), (), 104.1)
    probe = Ticket("a", 200.0)
    own.enqueue(probe, 104.3)
    assert own.poll(104.3).granted == [probe]
    (scope,) = own.scopes
    assert scope.limit.estimate.known


@pytest.mark.parametrize("closed_for_s", [3.3, 3.55, 3.8, 3.95])
def test_after_a_closure_of_another_gate_the_limit_is_learned_from_hints_in_whole_seconds(
    closed_for_s: float,
) -> None:
    """The gate used to find the end of each period by several refusals, and to learn nothing from it."""
    own, limiter, numbers = gate(), FixedWindow(40, 4.0), count()
    for _ in range(40):  # by other gates; the period ends at 104
        limiter.admit(100.0)
    merge(own.limit_to_tell("a", 100.2), [(100.0, 1)] * 10, 100.0 + closed_for_s)
    events: list[tuple[float, int, Ticket, Outcome, float | None]] = []
    refused = 0
    for now in (100.2 + 0.005 * step for step in range(4000)):
        while events and events[0][0] <= now:
            _, _, done, outcome, hint_s = heapq.heappop(events)
            refused += outcome is Outcome.THROTTLED
            own.settle(done, outcome, now, hint_s)
        while own.waiting + own.in_flight < 24:
            own.enqueue(Ticket("a", math.inf), now)
        for ticket in own.poll(now).granted:
            wait_s = limiter.wait_s(now)
            if wait_s:
                heapq.heappush(
                    events, (now + 0.035, next(numbers), ticket, Outcome.THROTTLED, float(math.ceil(wait_s)))
                )
            else:
                limiter.admit(now)
                heapq.heappush(events, (now + 0.1, next(numbers), ticket, Outcome.SERVED, None))
    (scope,) = own.scopes
    assert (scope.limit.estimate.window.count, scope.limit.estimate.window.period_s) == (40, 4.0)
    assert refused <= 24


def test_a_refusal_of_a_permit_that_was_adopted_while_closed_belongs_to_the_closure() -> None:
    own = gate()
    merge(own.limit_to_tell("a", 100.0), (), 105.0)
    adopted = Ticket("a", 200.0)
    merge(own.limit_to_tell("a", 100.0), [(99.5, 1)], -math.inf)
    own.adopt(adopted, 99.5, 100.0)
    own.settle(adopted, Outcome.THROTTLED, 100.3, None)
    (scope,) = own.scopes
    assert scope.limit.state is LimitState.CLOSED
    assert scope.limit.opens_at_s == 105.0


def test_requests_count_a_little_longer_than_the_period_also_at_another_gate() -> None:
    """Travel times differ: without that guard, the first request of each period could come too early."""
    own = gate()
    tickets = [Ticket("a", 200.0) for _ in range(8)]
    for ticket in tickets:
        assert own.try_admit(ticket, 100.0)
    for ticket in tickets[:6]:
        own.settle(ticket, Outcome.SERVED, 100.1)
    for ticket in tickets[6:]:
        own.settle(ticket, Outcome.THROTTLED, 100.1, 4.0)
    own.enqueue(Ticket("a", 200.0), 104.3)
    own.poll(104.3)
    snapshots = own.scopes.snapshots(104.4)
    other = gate()
    other.scopes.restore(snapshots, 104.4, 0.0)
    windows = [next(iter(each.scopes)).limit.estimate.window for each in (own, other)]
    assert windows[0].counted_for_s > windows[0].period_s
    assert windows[1].counted_for_s == windows[0].counted_for_s


# --- requests that other processes send ---------------------------------------------------------------


def probing(now: float) -> tuple[Gate, Ticket]:
    """Returns a gate after its first closure, with the recovery probe in flight and a waiting ticket."""
    own = gate()
    refused = Ticket("a", 200.0)
    assert own.try_admit(refused, now - 5.0)
    own.settle(refused, Outcome.THROTTLED, now - 4.98, 4.0)
    probe = Ticket("a", 200.0)
    own.enqueue(probe, now)
    assert own.poll(now).granted == [probe]
    own.enqueue(Ticket("a", 200.0), now)
    return own, probe


def test_a_probe_that_another_process_sends_is_accepted_only_by_its_report() -> None:
    """Its 429 may be on its way for longer than the acceptance timeout."""
    own, probe = probing(110.0)
    limit = own.limit_to_tell("a", 110.0)
    timeout_s = await_report(limit, probe.serial, 2.0)
    assert timeout_s == limit.slow_start.timeout_s
    assert own.poll(111.9).granted == []
    reported(own.limit_to_tell("a", 111.9), probe.serial, 111.9)
    assert len(own.poll(111.9).granted) == 1


def test_a_probe_whose_report_never_comes_counts_as_accepted_later() -> None:
    """Or a lost message would keep the scope closed for as long as the request takes: for minutes."""
    own, probe = probing(110.0)
    timeout_s = await_report(own.limit_to_tell("a", 110.0), probe.serial, 2.0)
    assert timeout_s is not None
    verdicts = own.poll(110.0)
    assert verdicts.granted == []
    assert verdicts.wake_at_s == pytest.approx(112.0 + timeout_s)
    assert len(own.poll(112.001 + timeout_s).granted) == 1


@pytest.mark.parametrize("first", ["awaited", "own"])
def test_a_grant_that_awaits_its_report_does_not_hold_up_the_acceptance_of_others(first: str) -> None:
    """Not those granted before it, and not those granted after it."""
    own = Gate(GatePolicy(max_in_flight=100, max_waiting=100, initial_unconfirmed=2), lambda: 0.0)
    tickets = [Ticket("a", 200.0) for _ in range(2)]
    assert own.try_admit(tickets[0], 100.0)
    assert own.try_admit(tickets[1], 100.01)
    awaited = tickets[first == "own"]
    timeout_s = await_report(own.limit_to_tell("a", 100.02), awaited.serial, 2.0)
    assert timeout_s is not None
    own.enqueue(Ticket("a", 200.0), 100.02)
    verdicts = own.poll(100.02)
    assert verdicts.granted == []
    granted_at_s = 100.01 if first == "awaited" else 100.0
    assert verdicts.wake_at_s is not None
    assert verdicts.wake_at_s == pytest.approx(granted_at_s + timeout_s)
    assert len(own.poll(verdicts.wake_at_s + 1e-9).granted) == 1


def test_a_late_429_of_such_a_probe_closes_the_scope_again() -> None:
    own, probe = probing(110.0)
    await_report(own.limit_to_tell("a", 110.0), probe.serial, 2.0)
    own.settle(probe, Outcome.THROTTLED, 111.0, 4.0)
    reported(own.limit_to_tell("a", 111.0), probe.serial, 111.0)  # crossed the 429
    assert own.poll(114.9).granted == []
    assert len(own.poll(115.1).granted) == 1


def test_a_grant_that_is_not_unconfirmed_needs_no_report() -> None:
    own = gate(StaticLimit("a", 2, 10.0))
    ticket = Ticket("a", 200.0)
    assert own.try_admit(ticket, 100.0)
    assert await_report(own.limit_to_tell("a", 100.0), ticket.serial, 2.0) is None


def test_a_request_counts_from_when_it_was_sent() -> None:
    own = gate(StaticLimit("a", 1, 10.0))
    ticket = Ticket("a", 200.0)
    assert own.try_admit(ticket, 100.0)
    limit = own.limit_to_tell("a", 100.3)
    sent(limit, ticket.serial, 100.0, 100.3, 1)
    assert limit.last_grant_s == limit.estimate.window.newest_s == 100.3


def test_an_unconfirmed_request_is_accepted_by_timeout_from_when_it_was_sent() -> None:
    own = gate()
    ticket = Ticket("a", 200.0)
    assert own.try_admit(ticket, 100.0)
    limit = own.limit_to_tell("a", 100.3)
    sent(limit, ticket.serial, 100.0, 100.3, 1)
    assert limit.slow_start.next_timeout_at_s() == pytest.approx(100.3 + limit.slow_start.timeout_s)
