"""Tickets that wait outside the queue."""

import math

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.held_tickets import HeldTickets
from nanonets_proxy.core.ratelimit.tickets import Ticket


def _hold(held: HeldTickets, until_s: float, lane: str = "a") -> Ticket:
    ticket = Ticket("account", math.inf, lane)
    ticket.held_until_s = until_s
    ticket.arrival = int(until_s)
    held.add(ticket)
    return ticket


def test_tickets_are_due_in_the_order_of_their_times() -> None:
    held = HeldTickets()
    late, early = _hold(held, 20.0), _hold(held, 10.0)
    assert held.pop_due(9.0) is None
    assert [held.pop_due(20.0), held.pop_due(20.0), held.pop_due(20.0)] == [early, late, None]
    assert (held.count, held.next_due_at_s()) == (0, math.inf)


def test_a_discarded_ticket_is_never_due() -> None:
    held = HeldTickets()
    first, second, other = _hold(held, 10.0), _hold(held, 20.0), _hold(held, 30.0, "b")
    held.discard(first)
    assert not first.is_held
    assert (held.count, held.in_lane("a"), held.in_lane("b")) == (2, 1, 1)
    assert held.next_due_at_s() == 20.0
    assert held.pop_due(15.0) is None
    held.discard(second)
    assert held.in_lane("a") == 0
    assert held.pop_due(40.0) is other


def test_a_sleep_of_the_machine_counts_as_waiting() -> None:
    held = HeldTickets()
    _hold(held, 30.0)
    held.note_sleep(12.0)
    assert held.next_due_at_s() == 18.0


def test_a_held_ticket_is_granted_earlier_by_the_length_of_a_sleep() -> None:
    gate = Gate(GatePolicy(max_in_flight=10, max_waiting=10), lambda: 0.0)
    ticket = Ticket("account", math.inf, "a")
    ticket.held_until_s = 130.0
    assert gate.enqueue(ticket, 100.0) is None
    assert gate.poll(100.0).wake_at_s == 130.0
    gate.note_sleep(12.0)
    assert gate.poll(117.9).granted == []
    assert gate.poll(118.0).granted == [ticket]
