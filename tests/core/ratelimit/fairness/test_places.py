"""How callers share the places in flight."""

import math

import pytest

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState

UNLIMITED = StaticLimits((StaticLimit.parse("* 1000000/s"),))


class Scene:
    """A gate whose scopes have limits that are never reached: only the places are scarce."""

    def __init__(self, places: int, **weights: int) -> None:
        policy = GatePolicy(places, 100_000, lane_weights=tuple(weights.items()), static_limits=UNLIMITED)
        self.gate = Gate(policy, lambda: 0.5)
        self.permits: list[Ticket] = []

    def ask(self, lane: str, count: int = 1, scope: str = "account") -> list[Ticket]:
        tickets = [Ticket(scope, math.inf, lane) for _ in range(count)]
        for ticket in tickets:
            if self.gate.try_admit(ticket, 0.0):
                self.permits.append(ticket)
            else:
                assert self.gate.enqueue(ticket, 0.0) is None
        self.poll()
        return tickets

    def poll(self) -> list[Ticket]:
        granted: list[Ticket] = []
        while self.gate.needs_poll:
            granted += self.gate.poll(0.0).granted
        self.permits += granted
        return granted

    def finish(self, lane: str, count: int = 1) -> str:
        """Serves permits of a lane one by one. Returns the lanes of the permits that are granted then."""
        granted = ""
        for _ in range(count):
            ticket = next(permit for permit in self.permits if permit.lane == lane)
            self.permits.remove(ticket)
            self.gate.settle(ticket, Outcome.SERVED, 0.0)
            granted += "".join(permit.lane for permit in self.poll())
        return granted

    def held(self, lane: str) -> int:
        return sum(permit.lane == lane for permit in self.permits)


def test_a_caller_alone_may_hold_all_places() -> None:
    scene = Scene(10)
    scene.ask("a", 30)
    assert scene.held("a") == 10
    assert scene.finish("a") == "a"


@pytest.mark.parametrize("scope", ["account", "v2:other"])
def test_the_places_of_a_caller_above_its_share_go_to_a_caller_below_it(scope: str) -> None:
    scene = Scene(10)
    scene.ask("a", 100)
    scene.ask("b", 100, scope)
    assert scene.finish("a", 5) == "bbbbb"
    assert scene.finish("b", 20) == "b" * 20
    assert scene.finish("a", 20) == "a" * 20
    assert (scene.held("a"), scene.held("b")) == (5, 5)


def test_a_caller_with_requests_in_many_scopes_gets_no_more_places() -> None:
    scene = Scene(10)
    for number in range(20):
        scene.ask("a", 5, f"v2:predict:{number}")
    scene.ask("b", 100)
    assert scene.finish("a", 5) == "bbbbb"
    assert scene.finish("a", 10) == "a" * 10


def test_a_weight_gives_more_places() -> None:
    scene = Scene(12, a=1, b=3)
    scene.ask("a", 100)
    scene.ask("b", 100)
    assert scene.finish("a", 9) == "b" * 9
    assert scene.finish("a", 3) == "aaa"
    assert scene.finish("b", 9) == "b" * 9


def test_no_place_stays_free_while_anyone_waits() -> None:
    scene = Scene(10)
    scene.ask("a", 100)
    scene.ask("b", 2)
    assert scene.finish("a", 4) == "bbaa"
    assert scene.gate.in_flight == 10


def test_a_third_caller_shrinks_the_shares_of_the_others() -> None:
    scene = Scene(9)
    scene.ask("a", 100)
    scene.ask("b", 100)
    scene.finish("a", 4)
    scene.ask("c", 100, "v2:other")
    scene.finish("a", 9)
    scene.finish("b", 9)
    assert scene.held("c") >= 3


def test_a_paused_permit_leaves_its_place_to_others() -> None:
    scene = Scene(2)
    slow, other = scene.ask("a", 2)
    (waiting,) = scene.ask("b")
    scene.gate.pause(slow)
    assert scene.poll() == [waiting]
    assert not scene.gate.resume(slow)
    scene.gate.settle(other, Outcome.SERVED, 0.0)
    assert scene.poll() == [slow]
    assert slow.state is TicketState.ADMITTED
    assert scene.gate.resume(slow), "it has its place"
    scene.gate.pause(slow)
    assert scene.gate.resume(slow)
    scene.gate.settle(slow, Outcome.SERVED, 0.0)
    assert scene.gate.in_flight == 1


def test_a_permit_that_another_process_has_given_a_place_goes_on_even_if_none_is_free() -> None:
    scene = Scene(1)
    (slow,) = scene.ask("a")
    scene.gate.pause(slow)
    (other,) = scene.ask("b")
    assert scene.gate.resume(slow, even_if_full=True)
    assert (slow.state, scene.gate.in_flight) == (TicketState.ADMITTED, 2)
    waiting = scene.ask("b")
    scene.gate.settle(other, Outcome.SERVED, 0.0)
    assert scene.poll() == []
    scene.gate.settle(slow, Outcome.SERVED, 0.0)
    assert scene.poll() == waiting


def test_paused_permits_of_a_caller_above_its_share_wait_behind_others() -> None:
    scene = Scene(2)
    slow = scene.ask("a", 2)
    for ticket in slow:
        scene.gate.pause(ticket)
    scene.permits.clear()
    scene.ask("a", 2)
    for ticket in slow:
        assert not scene.gate.resume(ticket)
    scene.ask("b", 2)
    assert scene.finish("a") == "b"
    assert scene.finish("a") == "a"
    assert scene.finish("b") == "b"


def test_a_permit_may_settle_while_it_is_paused_or_waits_for_its_place() -> None:
    scene = Scene(1)
    (first,) = scene.ask("a")
    scene.gate.pause(first)
    scene.gate.pause(first)
    (second,) = scene.ask("a")
    assert not scene.gate.resume(first)
    scene.gate.settle(first, Outcome.FAILED, 0.0)
    assert first.state is TicketState.RETURNED
    scene.gate.pause(first)
    assert first.state is TicketState.RETURNED, "only a permit can be paused"
    scene.gate.settle(second, Outcome.SERVED, 0.0)
    assert scene.poll() == []
    assert scene.gate.in_flight == 0


def test_callers_without_requests_are_forgotten_once_they_are_many() -> None:
    scene = Scene(10)
    scene.ask("stays")
    for number in range(1000):
        scene.ask(f"caller {number}")
        scene.finish(f"caller {number}")
    assert len(scene.gate._places._lanes) < 100
    assert scene.held("stays") == 1
