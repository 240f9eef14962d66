"""The gate gets another policy while requests wait and are in flight."""

import math

import pytest

from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason, Ticket


def policy(
    *limits: str, places: int = 100, weights: tuple[tuple[str, int], ...] = (), quota_probe_s: float = 3600.0
) -> GatePolicy:
    return GatePolicy(
        max_in_flight=places,
        max_waiting=1000,
        lane_weights=weights,
        max_wait_s=300.0,
        max_quota_probe_s=quota_probe_s,
        static_limits=StaticLimits(tuple(map(StaticLimit.parse, limits))),
    )


def ask(gate: Gate, count: int, now: float = 0.0, lane: str = "", cost: float = 1) -> list[Ticket]:
    tickets = [Ticket("account", math.inf, lane, cost=cost) for _ in range(count)]
    for ticket in tickets:
        assert gate.enqueue(ticket, now) is None
    return tickets


def granted(gate: Gate, now: float = 0.0) -> list[Ticket]:
    return list(gate.poll(now).granted)


def test_more_places_let_waiting_requests_go_in_their_order() -> None:
    gate = Gate(policy(places=1), lambda: 0.0)
    tickets = ask(gate, 4)
    assert granted(gate) == tickets[:1]
    gate.change_policy(policy(places=3))
    assert granted(gate) == tickets[1:3]


def test_fewer_places_end_no_permit_and_let_no_other_request_go_before() -> None:
    gate = Gate(policy(places=3), lambda: 0.0)
    tickets = ask(gate, 4)
    permits = granted(gate)
    gate.change_policy(policy(places=1))
    assert (granted(gate), gate.in_flight) == ([], 3)
    for permit in permits[:2]:
        gate.settle(permit, Outcome.SERVED, 0.0)
        assert granted(gate) == []
    gate.settle(permits[2], Outcome.SERVED, 0.0)
    assert granted(gate) == tickets[3:]


def test_a_new_limit_counts_the_requests_of_its_period() -> None:
    gate = Gate(policy(), lambda: 0.0)
    for permit in ask(gate, 3):
        granted(gate)
        gate.settle(permit, Outcome.SERVED, 0.0)
    tickets = ask(gate, 4, 10.0)
    gate.change_policy(policy("account 5/60s"))
    assert granted(gate, 10.0) == tickets[:2]
    assert granted(gate, 59.0) == []
    assert granted(gate, 62.0) == tickets[2:]


@pytest.mark.parametrize(("old", "new", "more"), [("account 2/60s", "account 5/60s", 3), ("account 5/60s", "", 0)])
def test_another_limit_applies_at_once_and_without_one_the_last_stays_as_the_estimate(
    old: str, new: str, more: int
) -> None:
    gate = Gate(policy(old), lambda: 0.0)
    tickets = ask(gate, 9)
    first = granted(gate)
    gate.change_policy(policy(*filter(None, [new])))
    assert len(granted(gate)) == more
    assert gate.scopes.snapshots(0.0)[0].count == 5
    assert [ticket for ticket in tickets if ticket not in first][more:]


def test_a_waiting_request_that_exceeds_a_new_limit_ends() -> None:
    gate = Gate(policy("account 1/60s"), lambda: 0.0)
    ask(gate, 1)
    gate.poll(0.0)
    gate.change_policy(policy("account 20 pages/60s"))
    (large,) = ask(gate, 1, cost=20)
    gate.change_policy(policy("account 10 pages/60s"))
    (expiry,) = gate.poll(0.0).expired
    assert (expiry.ticket, expiry.reason) == (large, Reason.LARGER_THAN_LIMIT)


def test_other_weights_apply_to_the_callers_that_wait() -> None:
    gate = Gate(policy(places=1, weights=(("a", 4),)), lambda: 0.0)
    ask(gate, 9, lane="a")
    ask(gate, 9, lane="b")
    gate.change_policy(policy(places=1, weights=(("b", 2),)))
    order = ""
    for _ in range(9):
        (permit,) = granted(gate)
        order += permit.lane
        gate.settle(permit, Outcome.SERVED, 0.0)
    assert order == "ababbabba", "the turn that has begun ends first"


def test_a_caller_that_was_passed_over_gets_a_place_if_its_share_grows() -> None:
    gate = Gate(policy(places=4), lambda: 0.0)
    ask(gate, 3, lane="a")
    granted(gate)
    passed_over = ask(gate, 2, lane="a")
    ask(gate, 2, lane="b")
    assert [permit.lane for permit in granted(gate)] == ["b"]
    gate.change_policy(policy(places=5, weights=(("a", 5),)))
    assert granted(gate) == passed_over[:1]


def test_the_stricter_of_the_announced_and_the_configured_limit_applies() -> None:
    limit = Limit(policy(), lambda: 0.0)
    limit.note_advice(0, Advice(None, 0.0, StaticLimit("account", 10, 60.0)), 0.0)
    for configured, applied in [(5, 5), (20, 10), (None, 10)]:
        static_limit = None if configured is None else StaticLimit("account", configured, 60.0)
        limit.change_policy(policy(), static_limit)
        assert (limit.estimate.window.count, limit.state) == (applied, LimitState.LEARNED)


def test_a_refusal_that_turns_out_not_to_concern_the_limit_restores_no_more_than_a_younger_limit_allows() -> None:
    limit = Limit(policy(), lambda: 0.0, StaticLimit("account", 50, 60.0))
    belief = limit.estimate.belief
    limit.change_policy(policy(), StaticLimit("account", 5, 60.0))
    limit.restore(belief)
    assert (limit.estimate.window.count, limit.estimate.proven) == (5, 5)


def test_a_used_up_quota_is_tested_as_often_as_the_new_setting_says() -> None:
    gate = Gate(policy(), lambda: 0.0)
    for _ in range(2):  # the first refusal may concern its own request alone
        (ticket,) = ask(gate, 1)
        gate.poll(0.0)
        gate.settle(ticket, Outcome.THROTTLED, 0.0, quota_used_up=True)
    gate.poll(0.0)
    assert gate.scopes.closed(0.0) == {"account": 60.0}
    gate.change_policy(policy(quota_probe_s=5.0))
    (probe,) = ask(gate, 1, 60.0)
    assert granted(gate, 60.0) == [probe]
    gate.settle(probe, Outcome.THROTTLED, 60.0, quota_used_up=True)
    assert gate.scopes.closed(60.0) == {"account": 65.0}
