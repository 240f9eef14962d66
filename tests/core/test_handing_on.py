"""A freed place that is handed on goes to whom a poll would have given it."""

import math
from itertools import pairwise
from random import Random

import pytest

from nanonets_proxy.core.gate import Gate, GatePolicy, Outcome, Ticket, TicketState
from nanonets_proxy.core.preset import Presets

NEVER_S = 1e9


class Play:
    """Random callers and a random upstream in virtual time, the same for each gate that does the same."""

    def __init__(self, seed: int, presets: tuple[str, ...], *, hands_on: bool) -> None:
        self.random = Random(seed)
        self.gate = Gate(GatePolicy(max_in_flight=3, max_waiting=100, presets=Presets.parse(presets)), lambda: 0.5)
        self.hands_on = hands_on
        self.handed_on = 0
        self.now, self.wake_at_s = 0.0, math.inf
        self.tickets: list[Ticket] = []
        self.told: list[tuple[float, int, str]] = []

    def run(self) -> list[tuple[float, int, str]]:
        """What was told to whom, when: the number of its ticket, and what became of it."""
        for _ in range(3000):
            self.step()
        return self.told

    def step(self) -> None:
        choice = self.random.random()
        if choice < 0.45:
            self.arrive()
        elif choice < 0.9:
            self.end()
        elif choice < 0.95 and (waiting := self.of(TicketState.WAITING)):
            self.gate.withdraw(self.random.choice(waiting), self.now)
        else:
            self.now += self.random.choice([0.01, 0.1, 0.5, 5.0])
        if self.gate.wants_poll or self.now >= self.wake_at_s:
            self.poll()

    def of(self, state: TicketState) -> list[Ticket]:
        return [ticket for ticket in self.tickets[-200:] if ticket.state is state]

    def arrive(self) -> None:
        scope = self.random.choice(["account"] * 40 + ["v2:other"])
        wait_s = self.random.choice([0.2, 60.0, 60.0, 60.0, NEVER_S])
        ticket = Ticket(scope, self.now + wait_s, self.random.choice("ab"), self.random.choice([1, 3, 3, 3]))
        if self.gate.enqueue(ticket, self.now) is None:
            self.tickets.append(ticket)

    def end(self) -> None:
        permits = self.of(TicketState.ADMITTED)
        if not permits:
            return
        permit = self.random.choice(permits)
        outcome = self.random.choice([Outcome.SERVED] * 400 + [Outcome.THROTTLED, Outcome.UNUSED])
        self.gate.settle(permit, outcome, self.now, 0.3 if outcome is Outcome.THROTTLED else None)
        heir = self.gate.hand_on(self.now) if self.hands_on else None
        if heir is not None:
            self.handed_on += 1
            self.tell(heir, "granted")
        if heir is None or self.gate.wants_poll:
            self.poll()
        if permit.state is TicketState.RETURNED and self.gate.enqueue(permit, self.now) is not None:
            self.tell(permit, "refused")

    def poll(self) -> None:
        verdicts = self.gate.poll(self.now)
        for ticket in verdicts.granted:
            self.tell(ticket, "granted")
        for expiry in verdicts.expired:
            self.tell(expiry.ticket, expiry.reason.value)
        self.wake_at_s = math.inf if verdicts.wake_at_s is None else verdicts.wake_at_s

    def tell(self, ticket: Ticket, what: str) -> None:
        self.told.append((self.now, ticket.arrival, what))


@pytest.mark.parametrize("presets", [(), ("account 40/5s",)])
@pytest.mark.parametrize("seed", range(20))
def test_what_is_handed_on_goes_as_a_poll_would_have_it(seed: int, presets: tuple[str, ...]) -> None:
    by_polls = Play(seed, presets, hands_on=False).run()
    play = Play(seed, presets, hands_on=True)
    assert play.run() == by_polls
    assert play.handed_on >= 10


def line_of(count: int) -> tuple[Gate, list[Ticket]]:
    """A gate of one place, which the first of them has."""
    gate = Gate(GatePolicy(max_in_flight=1, max_waiting=100), lambda: 0.5)
    tickets = [Ticket("account", 60.0) for _ in range(count)]
    for ticket in tickets:
        gate.enqueue(ticket, 0.0)
    gate.poll(0.0)
    return gate, tickets


def test_a_place_that_is_handed_on_asks_for_no_poll() -> None:
    gate, tickets = line_of(100)
    for before, after in pairwise(tickets):
        gate.settle(before, Outcome.SERVED, 1.0)
        assert gate.hand_on(1.0) is after
        assert not gate.wants_poll or len(gate._scopes["account"].deadlines) > 64
    scope = gate._scopes["account"]
    assert (len(scope.deadlines), scope.alarm_s) == (0, math.inf), "who has gone leaves nothing behind"


def test_a_place_is_not_handed_on_at_the_last_instant_of_one_that_waits() -> None:
    gate, tickets = line_of(3)
    gate.settle(tickets[0], Outcome.SERVED, 60.0)
    assert gate.hand_on(60.0) is None
    assert gate.poll(60.0).granted == [tickets[1]]
    assert tickets[2].state is TicketState.ENDED
