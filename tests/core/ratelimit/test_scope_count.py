"""The number of scopes that the gate remembers: callers choose model ids, so they can invent scopes."""

import math

import pytest

from nanonets_proxy.core.ratelimit import scope_state
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState

MOST = 10


@pytest.fixture(params=[(), ("* 5/minute",)], ids=["unknown limits", "static limits"])
def gate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setattr(scope_state, "MAX_IDLE_SCOPES", MOST)
    limits = StaticLimits(tuple(map(StaticLimit.parse, request.param)))
    return Gate(GatePolicy(max_in_flight=100, max_waiting=1000, static_limits=limits), lambda: 0.0)


def admit(gate: Gate, scope: str, now: float) -> Ticket:
    ticket = Ticket(scope, math.inf)
    assert gate.enqueue(ticket, now) is None
    assert ticket in gate.poll(now).granted
    return ticket


def test_invented_scopes_are_bounded_although_each_is_closed_for_days(gate: Gate) -> None:
    running = admit(gate, "in-flight", 0.0)
    waiting = Ticket("waiting", math.inf)
    gate.settle(admit(gate, "waiting", 0.0), Outcome.THROTTLED, 0.0, 7 * 86400.0)
    assert gate.enqueue(waiting, 0.0) is None
    for number in range(2000):
        now = float(number)
        gate.settle(admit(gate, f"invented-{number}", now), Outcome.THROTTLED, now, 7 * 86400.0)
    assert len(gate.scopes) <= 2 * (MOST + 2) + scope_state.MAX_STALE + 1
    assert {"in-flight", "waiting", "invented-1999"} <= gate.scopes.by_name.keys()
    assert gate.in_flight + gate.waiting == 2
    gate.settle(running, Outcome.SERVED, 3000.0)
    gate.poll(8 * 86400.0)
    assert waiting.state is TicketState.ADMITTED


def test_another_gate_learns_only_of_the_closures_that_last(gate: Gate) -> None:
    gate.settle(admit(gate, "brief", 0.0), Outcome.THROTTLED, 0.0, 10.0)
    gate.settle(admit(gate, "long", 0.0), Outcome.THROTTLED, 0.0, 60.0)
    admit(gate, "open", 0.0)
    assert gate.scopes.closures(20.0) == {"long": 60.0}


def test_a_scope_that_is_used_outlives_invented_ones(gate: Gate) -> None:
    for number in range(1000):
        now = number * 20.0
        gate.settle(admit(gate, "real", now), Outcome.SERVED, now)
        gate.settle(admit(gate, f"invented-{number}", now), Outcome.THROTTLED, now, 7 * 86400.0)
        if number == 0:
            first = gate.scopes.by_name["real"]
    if first.limit.estimate.known:
        assert gate.scopes.by_name["real"] is first
