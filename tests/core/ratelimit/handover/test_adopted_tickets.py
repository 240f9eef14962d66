"""The gate of a new process takes over the requests that its predecessor has in flight."""

import math

import pytest

from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState
from support.gate.gate_scene import GateScene


def taken_over(*static_limits: str, in_flight: int = 1, max_in_flight: int = 100) -> tuple[GateScene, list[Ticket]]:
    """Returns a gate that has the state of another one, and the tickets that the other one has in flight."""
    before = GateScene(*static_limits, max_in_flight=max_in_flight)
    before.ask(in_flight)
    granted = before.gate.poll(before.now).granted
    assert len(granted) == in_flight
    after = GateScene(*static_limits, max_in_flight=max_in_flight)
    after.now += 1
    after.gate.scopes.restore(before.gate.scopes.snapshots(after.now), after.now, 0.0)
    tickets = [Ticket("account", math.inf) for _ in granted]
    for ticket, permit in zip(tickets, granted, strict=True):
        after.gate.adopt(ticket, permit.granted_at_s, after.now)
    after.gate.poll(after.now)
    return after, tickets


def test_adopted_requests_take_places_and_count_once() -> None:
    scene, tickets = taken_over("account 3/10s", in_flight=2)
    assert scene.gate.in_flight == 2
    scene.ask(5)
    assert scene.go() == 1
    for ticket in tickets:
        scene.gate.settle(ticket, Outcome.SERVED, scene.now)
    assert (scene.gate.in_flight, scene.go()) == (0, 0)
    scene.now = 1010.5
    assert scene.go() == 2


def test_a_refusal_of_an_adopted_request_closes_the_scope() -> None:
    scene, (ticket,) = taken_over()
    scene.gate.settle(ticket, Outcome.THROTTLED, scene.now, 20.0)
    assert scene.gate.scopes.closed(scene.now) == {"account": scene.now + 20}
    assert scene.gate.enqueue(ticket, scene.now) is None
    scene.now += 20
    assert scene.gate.poll(scene.now).granted == [ticket]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.KEY_REJECTED, Outcome.UNUSED, Outcome.SERVED])
def test_an_adopted_request_that_ends_otherwise_leaves_the_scope_open(outcome: Outcome) -> None:
    scene, (ticket,) = taken_over()
    scene.gate.settle(ticket, outcome, scene.now)
    assert not scene.gate.scopes.closed(scene.now)
    assert (scene.gate.in_flight, scene.go()) == (0, 0)


def test_adopted_requests_may_exceed_the_places_of_a_smaller_pool() -> None:
    scene, tickets = taken_over(in_flight=4)
    small = GateScene(max_in_flight=2)
    for ticket in tickets:
        scene.gate.settle(ticket, Outcome.SERVED, scene.now)
        small.gate.adopt(own := Ticket("account", math.inf), small.now, small.now)
        assert own.state is TicketState.ADMITTED
    assert small.gate.in_flight == 4
    small.ask(1)
    assert small.go() == 0
