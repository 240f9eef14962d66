"""Which ticket goes next: turns of the callers, urgency, order of arrival."""

import pytest

from nanonets_proxy.core.ratelimit.fairness.fair_queue import FairQueue
from nanonets_proxy.core.ratelimit.tickets import DEFAULT_URGENCY, Ticket, TicketState


class Scene:
    """A fair queue that tickets enter and leave."""

    def __init__(self, **weights: int) -> None:
        self.queue = FairQueue(weights)
        self.arrivals = 0

    def arrive(self, lane: str, count: int = 1, urgency: int = DEFAULT_URGENCY, cost: float = 1) -> list[Ticket]:
        tickets = []
        for _ in range(count):
            ticket = Ticket("account", 1e9, lane, urgency, cost)
            self.arrivals += 1
            ticket.arrival = self.arrivals
            ticket.state = TicketState.WAITING
            self.queue.push(ticket)
            tickets.append(ticket)
        return tickets

    def serve(self, count: int) -> list[Ticket]:
        served = []
        for _ in range(count):
            ticket = self.queue.pop()
            ticket.state = TicketState.ADMITTED
            served.append(ticket)
        return served

    def leave(self, ticket: Ticket) -> None:
        ticket.state = TicketState.ENDED
        self.queue.discard(ticket)


def names(tickets: list[Ticket]) -> str:
    return "".join(ticket.lane for ticket in tickets)


def test_callers_take_turns_regardless_of_their_number_of_requests() -> None:
    scene = Scene()
    scene.arrive("a", 5)
    scene.arrive("b", 2)
    assert names(scene.serve(7)) == "ababaaa"


def test_a_newcomer_waits_for_one_turn_of_each_other_caller() -> None:
    scene = Scene()
    scene.arrive("a", 200)
    scene.serve(50)
    scene.arrive("b")
    assert "b" in names(scene.serve(2))


def test_a_weight_is_the_number_of_grants_per_turn() -> None:
    scene = Scene(a=3)
    scene.arrive("a", 6)
    scene.arrive("b", 6)
    assert names(scene.serve(8)) == "aaabaaab"


def test_callers_share_units_not_requests() -> None:
    scene = Scene()
    scene.arrive("a", 40, cost=8)
    scene.arrive("b", 320)
    served = names(scene.serve(180))
    assert abs(served.count("a") * 8 - served.count("b")) <= 2 * 8
    assert max(map(len, served.replace("a", " ").split())) <= 16


@pytest.mark.parametrize("cost", [10_000, 1e9])
def test_a_lane_owes_a_huge_request_to_the_others_but_not_for_ever(cost: float) -> None:
    scene = Scene()
    scene.arrive("a", cost=cost)
    (later,) = scene.arrive("a")
    scene.arrive("b", 300)
    assert names(scene.serve(1)) == "a"
    served = scene.serve(250)
    assert 80 <= served.index(later) <= 101


def test_a_lane_alone_owes_nothing() -> None:
    scene = Scene()
    scene.arrive("a", 3, cost=50)
    scene.arrive("a")
    assert names(scene.serve(3)) == "aaa"
    scene.arrive("b")
    assert scene.queue.next_cost() == 1
    assert sorted(names(scene.serve(2))) == ["a", "b"]


@pytest.mark.parametrize(("units", "expected"), [(3, "bbbabab"), (1e9, "bbbbbbb"), (-2, "aaababa")])
def test_a_lane_is_charged_for_costs_that_become_known_later(units: float, expected: str) -> None:
    scene = Scene()
    scene.arrive("a", 20)
    scene.arrive("b", 200)
    scene.queue.charge("a", units)
    scene.queue.charge("nobody", units)
    assert names(scene.serve(7)) == expected
    assert names(scene.serve(200)).count("a") >= 19 - expected.count("a")


def test_the_next_cost_is_that_of_the_ticket_that_goes_next() -> None:
    scene = Scene()
    for number in range(1, 30):
        scene.arrive("abc"[number % 3], urgency=number % 2, cost=number)
    while scene.queue.waiting:
        cost = scene.queue.next_cost()
        assert scene.serve(1)[0].cost == cost


def test_a_parked_lane_gets_no_turn_while_another_lane_waits() -> None:
    scene = Scene()
    scene.arrive("a", 3)
    scene.arrive("b", 2)
    assert scene.queue.unparked_lane() == "a"
    scene.queue.park()
    assert names(scene.serve(2)) == "bb"
    assert scene.queue.unparked_lane() is None
    assert names(scene.serve(1)) == "a"
    scene.queue.unpark("nobody")
    (gone,) = scene.arrive("c")
    scene.queue.park()
    scene.leave(gone)
    assert scene.queue.unparked_lane() is None or scene.queue.unparked_lane() == "a"
    assert names(scene.serve(2)) == "aa"


def test_an_unparked_lane_gets_the_next_turn() -> None:
    scene = Scene()
    scene.arrive("a", 2)
    scene.arrive("b", 2)
    scene.queue.park()
    assert names(scene.serve(1)) == "b"
    scene.queue.unpark("a")
    assert names(scene.serve(1)) == "a"


def test_urgent_requests_of_a_caller_go_first_but_one_grant_in_eight_goes_to_its_oldest() -> None:
    scene = Scene()
    (background,) = scene.arrive("a", urgency=7)
    urgent = scene.arrive("a", 20, urgency=0)
    served = scene.serve(21)
    assert served[:7] == urgent[:7]
    assert served.index(background) == 7
    assert [ticket for ticket in served if ticket is not background] == urgent


def test_a_returned_ticket_gets_its_old_place() -> None:
    scene = Scene()
    first, *rest = scene.arrive("a", 4)
    assert scene.serve(2) == [first, rest[0]]
    rest[0].state = TicketState.WAITING
    scene.queue.push(rest[0])
    first.state = TicketState.WAITING
    scene.queue.push(first)
    assert scene.serve(4) == [first, *rest]


def test_withdrawn_tickets_are_skipped() -> None:
    scene = Scene()
    gone, stays = scene.arrive("a", 2)
    (other,) = scene.arrive("b")
    scene.leave(gone)
    scene.leave(other)
    assert scene.queue.waiting == 1
    assert scene.serve(1) == [stays]
    with pytest.raises(IndexError):
        scene.queue.pop()


def test_withdrawn_tickets_are_skipped_among_several_urgencies() -> None:
    scene = Scene()
    (gone,) = scene.arrive("a", urgency=0)
    (background,) = scene.arrive("a", urgency=7)
    usual = scene.arrive("a", 2)
    scene.leave(gone)
    scene.leave(usual[0])
    assert scene.serve(2) == [usual[1], background]


def test_lanes_of_withdrawn_tickets_leave_nothing_behind() -> None:
    scene = Scene()
    scene.arrive("stays")
    for number in range(2000):
        scene.leave(scene.arrive(f"caller {number}")[0])
    assert len(scene.queue._lanes) < 200
    assert len(scene.queue._turns) < 200
    (back,) = scene.arrive("caller 1999")
    assert back in scene.serve(2)
    assert len(scene.queue._lanes) < 200


def test_a_position_counts_the_turns_of_the_other_callers() -> None:
    scene = Scene(heavy=2)
    assert scene.queue.position(Ticket("account", 1e9, "a")) == 1
    scene.arrive("a", 3)
    scene.arrive("heavy", 100)
    scene.arrive("b", 1)
    assert scene.queue.position(Ticket("account", 1e9, "a")) == 3 + 1 + 8 + 1
    assert scene.queue.position(Ticket("account", 1e9, "new")) == 1 + 1 + 2 + 1
    assert scene.queue.position(Ticket("account", 1e9, "a", urgency=0)) == 1 + 2 + 1


def test_with_many_lanes_a_position_is_estimated() -> None:
    scene = Scene()
    for number in range(100):
        scene.arrive(f"caller {number}", 2)
    assert scene.queue.position(Ticket("account", 1e9, "caller 0")) == 201
    assert scene.queue.position(Ticket("account", 1e9, "new")) == 101
