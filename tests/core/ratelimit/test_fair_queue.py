"""Whose turn it is."""

import pytest

from nanonets_proxy.core.http.priority import urgency
from nanonets_proxy.core.ratelimit.fair_queue import FairQueue
from nanonets_proxy.core.ratelimit.tickets import DEFAULT_URGENCY, Ticket, TicketState


class Line:
    def __init__(self, **weights: int) -> None:
        self.lanes = FairQueue(weights)
        self.arrivals = 0

    def come(self, lane: str, count: int = 1, urgency: int = DEFAULT_URGENCY) -> list[Ticket]:
        tickets = []
        for _ in range(count):
            ticket = Ticket("account", 1e9, lane, urgency)
            self.arrivals += 1
            ticket.arrival = self.arrivals
            ticket.state = TicketState.WAITING
            self.lanes.push(ticket)
            tickets.append(ticket)
        return tickets

    def serve(self, count: int) -> list[Ticket]:
        served = []
        for _ in range(count):
            ticket = self.lanes.pop()
            ticket.state = TicketState.ADMITTED
            served.append(ticket)
        return served

    def leave(self, ticket: Ticket) -> None:
        ticket.state = TicketState.ENDED
        self.lanes.discard(ticket)


def names(tickets: list[Ticket]) -> str:
    return "".join(ticket.lane for ticket in tickets)


def test_callers_are_served_in_turns_however_much_they_ask() -> None:
    queue = Line()
    queue.come("a", 5)
    queue.come("b", 2)
    assert names(queue.serve(7)) == "ababaaa"


def test_a_newcomer_waits_for_one_turn_of_each() -> None:
    queue = Line()
    queue.come("a", 200)
    queue.serve(50)
    queue.come("b")
    assert "b" in names(queue.serve(2))


def test_a_weight_is_the_number_of_turns_in_a_row() -> None:
    queue = Line(a=3)
    queue.come("a", 6)
    queue.come("b", 6)
    assert names(queue.serve(8)) == "aaabaaab"


def test_within_a_lane_the_urgent_go_first_and_the_oldest_is_not_left_for_ever() -> None:
    queue = Line()
    (background,) = queue.come("a", urgency=7)
    urgent = queue.come("a", 20, urgency=0)
    served = queue.serve(21)
    assert served[:7] == urgent[:7]
    assert served.index(background) == 7
    assert [ticket for ticket in served if ticket is not background] == urgent


def test_one_that_returns_finds_its_old_place() -> None:
    queue = Line()
    first, *rest = queue.come("a", 4)
    assert queue.serve(2) == [first, rest[0]]
    rest[0].state = TicketState.WAITING
    queue.lanes.push(rest[0])
    first.state = TicketState.WAITING
    queue.lanes.push(first)
    assert queue.serve(4) == [first, *rest]


def test_who_has_left_is_passed_over() -> None:
    queue = Line()
    gone, stays = queue.come("a", 2)
    (other,) = queue.come("b")
    queue.leave(gone)
    queue.leave(other)
    assert queue.lanes.waiting == 1
    assert queue.serve(1) == [stays]
    with pytest.raises(IndexError):
        queue.lanes.pop()


def test_lanes_of_those_who_have_left_leave_nothing_behind() -> None:
    queue = Line()
    queue.come("stays")
    for number in range(2000):
        queue.leave(queue.come(f"caller {number}")[0])
    assert len(queue.lanes._lanes) < 200
    assert len(queue.lanes._turns) < 200
    (back,) = queue.come("caller 1999")
    assert back in queue.serve(2)
    assert len(queue.lanes._lanes) < 200


def test_the_place_counts_the_turns_of_the_others() -> None:
    queue = Line(heavy=2)
    assert queue.lanes.position(Ticket("account", 1e9, "a")) == 1
    queue.come("a", 3)
    queue.come("heavy", 100)
    queue.come("b", 1)
    assert queue.lanes.position(Ticket("account", 1e9, "a")) == 3 + 1 + 8 + 1
    assert queue.lanes.position(Ticket("account", 1e9, "new")) == 1 + 1 + 2 + 1
    assert queue.lanes.position(Ticket("account", 1e9, "a", urgency=0)) == 1 + 2 + 1


def test_with_many_lanes_the_place_is_estimated() -> None:
    queue = Line()
    for number in range(100):
        queue.come(f"caller {number}", 2)
    assert queue.lanes.position(Ticket("account", 1e9, "caller 0")) == 201
    assert queue.lanes.position(Ticket("account", 1e9, "new")) == 101


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), 3),
        ((b"u=0",), 0),
        ((b"u=7, i",), 7),
        ((b"i, u=5;x=1",), 5),
        ((b"u=1", b"u=2"), 2),
        ((b"u=8",), 3),
        ((b"u=-1",), 3),
        ((b"u=1.5",), 3),
        ((b"U=1",), 3),
        ((b"u",), 3),
        ((b"\xff\x00,,=,u==1",), 3),
    ],
)
def test_nonsense_in_priority_is_ignored(values: tuple[bytes, ...], expected: int) -> None:
    assert urgency(values) == expected
