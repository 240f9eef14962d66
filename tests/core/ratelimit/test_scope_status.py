"""What operators see of the gate's scopes."""

import math

import pytest

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scope_status import ScopeStatus
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket


def make_gate(*limits: str) -> Gate:
    static_limits = StaticLimits(tuple(map(StaticLimit.parse, limits)))
    return Gate(GatePolicy(max_in_flight=100, max_waiting=1000, static_limits=static_limits), lambda: 0.0)


def ask(gate: Gate, scope: str, now: float) -> Ticket:
    ticket = Ticket(scope, math.inf)
    assert gate.enqueue(ticket, now) is None
    gate.poll(now)
    return ticket


def only(gate: Gate, now: float) -> ScopeStatus:
    (status,) = gate.scopes.statuses(now, 10)
    return status


def test_an_open_scope_shows_its_requests_in_flight() -> None:
    gate = make_gate()
    ticket = ask(gate, "a", 0.0)
    status = only(gate, 0.0)
    assert (status.name, status.state, status.in_flight, status.waiting) == ("a", "open", 1, 0)
    assert (status.count, status.period_s, status.concurrency_limit) == (None, None, None)
    gate.settle(ticket, Outcome.SERVED, 1.0)
    assert gate.scopes.statuses(1.0, 10) == []


def test_a_closed_scope_shows_when_it_opens_and_what_waits() -> None:
    gate = make_gate()
    gate.settle(ask(gate, "a", 0.0), Outcome.THROTTLED, 1.0, 30.0)
    ask(gate, "a", 2.0)
    status = only(gate, 11.0)
    assert (status.state, status.waiting, status.in_flight) == ("closed", 1, 0)
    assert status.opens_in_s == pytest.approx(20.0, abs=2.0)
    assert not status.quota_used_up


def test_a_used_up_quota_shows() -> None:
    gate = make_gate()
    for kind in ("first", "substitute"):  # the first refusal may concern its own request alone
        ticket = Ticket("a", math.inf, kind=kind)
        assert gate.enqueue(ticket, 0.0) is None
        gate.poll(0.0)
        gate.settle(ticket, Outcome.THROTTLED, 0.0, quota_used_up=True)
    assert only(gate, 1.0).quota_used_up
    assert only(gate, 100_000.0).quota_used_up  # until a probe is accepted


def test_a_known_limit_shows_without_any_request() -> None:
    gate = make_gate("a 5/minute")
    gate.settle(ask(gate, "a", 0.0), Outcome.SERVED, 1.0)
    status = only(gate, 2.0)
    assert (status.state, status.count, status.period_s, status.proven) == ("learned", 5, 60.0, 5)
    assert (status.opens_in_s, status.reserve) == (0.0, 0.0)


def test_the_busiest_scopes_come_first_and_others_are_left_out() -> None:
    gate = make_gate("* 5/minute")
    for scope in ("idle", "later"):
        gate.settle(ask(gate, scope, 0.0 if scope == "idle" else 1.0), Outcome.SERVED, 2.0)
    ask(gate, "in-flight", 3.0)
    for _ in range(6):
        ask(gate, "waiting", 3.0)
    assert [status.name for status in gate.scopes.statuses(3.0, 10)] == ["waiting", "in-flight", "later", "idle"]
    assert [status.name for status in gate.scopes.statuses(3.0, 2)] == ["waiting", "in-flight"]
