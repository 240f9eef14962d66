"""Two gates of two processes: the new one decides for the requests of the old one, by messages between them."""

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.app.environment.gate_handover import GateHandover
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState
from nanonets_proxy.errors import RateLimited
from support.gate.virtual_loop import run_virtually

if TYPE_CHECKING:
    from nanonets_proxy.admission.handed_over_gate import Message
    from nanonets_proxy.core.ratelimit.news import News

UPSTREAM = "https://app.nanonets.com"


class Side:
    """The gate of one process, with 3 places."""

    def __init__(self, *limits: str) -> None:
        limits_ = StaticLimits(tuple(map(StaticLimit.parse, limits)))
        self.policy = GatePolicy(max_in_flight=3, max_waiting=100, static_limits=limits_)
        self.gate = Gate(self.policy, lambda: 0.0)
        self.news: list[News] = []
        self.room = WaitingRoom(self.gate, asyncio.get_running_loop(), self.news.append)
        self.handover = GateHandover(self.gate, self.room, UPSTREAM, lambda: self.policy, None)

    def admit(self, cost: float = 1) -> Ticket:
        ticket = Ticket("account", math.inf, "caller", cost=cost)
        assert self.room.enter(ticket, asyncio.get_running_loop().time()) is None
        return ticket

    def wait(self, deadline_s: float = math.inf) -> "tuple[Ticket, asyncio.Future[None]]":
        ticket = Ticket("account", deadline_s, "caller")
        admission = self.room.enter(ticket, asyncio.get_running_loop().time())
        assert admission is not None
        return ticket, admission


class Pair:
    """A process and its successor. Messages arrive when `exchange` is called."""

    def __init__(self, *limits: str) -> None:
        self.old, self.new = Side(*limits), Side(*limits)
        self._to_new: list[Message] = []
        self._to_old: list[Message] = []

    def hand_over(self) -> None:
        document = json.loads(json.dumps(self.old.handover.give(self._to_new.append)))
        self.new.handover.take(document, self._to_old.append)
        self.exchange()

    def exchange(self) -> None:
        """Delivers messages as JSON until none is left."""
        while self._to_new or self._to_old:
            queues = ((self._to_new, self.new.handover.receive_from_predecessor),
                      (self._to_old, self.old.handover.receive_from_successor))  # fmt: skip
            for queue, receive in queues:
                messages: list[Any] = json.loads(json.dumps(queue))
                queue.clear()
                for message in messages:
                    receive(message)


def test_requests_in_flight_count_once_in_the_new_gate() -> None:
    async def main() -> None:
        pair = Pair("account 4/60s")
        permits = [pair.old.admit() for _ in range(3)]
        pair.hand_over()
        assert pair.new.gate.in_flight == 3
        _, admission = pair.new.wait()
        pair.old.room.settle(permits[0], Outcome.SERVED)
        pair.exchange()
        await admission
        assert pair.new.gate.scopes.by_name["account"].limit.estimate.window.used(1000.0) == 4
        for permit in permits[1:]:
            pair.old.room.settle(permit, Outcome.SERVED)
        pair.exchange()
        assert pair.new.gate.in_flight == 1

    run_virtually(main())


def test_a_closure_goes_on_while_the_machine_sleeps_after_the_handover() -> None:
    async def main() -> None:
        pair = Pair()
        pair.old.room.settle(pair.old.admit(), Outcome.THROTTLED, 20.0)
        gate = pair.old.gate
        now_s = asyncio.get_running_loop().time()
        assert gate.scopes.closed(now_s) == {"account": now_s + 20}
        pair.hand_over()
        pair.old.room._gate.note_sleep(15.0)
        assert gate.scopes.closed(now_s) == {"account": now_s + 5}

    run_virtually(main())


def test_a_refusal_of_a_request_in_flight_closes_the_new_gate_and_no_longer_counts() -> None:
    async def main() -> None:
        pair = Pair("account 4/60s")
        pair.old.admit()
        await asyncio.sleep(0.1)
        permit = pair.old.admit()
        await asyncio.sleep(0.1)
        pair.hand_over()
        pair.old.room.settle(permit, Outcome.THROTTLED, 20.0)
        pair.exchange()
        limit = pair.new.gate.scopes.by_name["account"].limit
        now_s = asyncio.get_running_loop().time()
        assert pair.new.gate.scopes.closed(now_s) == {"account": now_s + 20}
        assert limit.estimate.window.used(now_s) == 1
        assert limit.in_flight == 1

    run_virtually(main())


def test_a_refused_request_waits_for_the_new_gate_and_is_sent_again() -> None:
    async def main() -> None:
        pair = Pair()
        permit = pair.old.admit()
        pair.hand_over()
        pair.old.room.settle(permit, Outcome.THROTTLED, 20.0)
        again = pair.old.room.enter(permit, asyncio.get_running_loop().time())
        pair.exchange()
        assert again is not None
        await asyncio.sleep(19)
        pair.exchange()
        assert not again.done()
        await asyncio.sleep(1.1)
        pair.exchange()
        await again
        assert (len(pair.old.news), len(pair.new.news)) == (0, 1), "one process reports the closure"
        pair.old.room.settle(permit, Outcome.SERVED)
        pair.exchange()
        assert pair.new.gate.in_flight == 0

    run_virtually(main())


def test_waiting_requests_keep_their_turns_and_their_deadlines() -> None:
    async def main() -> None:
        pair = Pair("account 1/60s")
        pair.old.admit()
        _, first = pair.old.wait()
        _, late = pair.old.wait(asyncio.get_running_loop().time() + 100)
        pair.hand_over()
        _, newest = pair.new.wait()
        await asyncio.sleep(62)
        pair.exchange()
        assert (first.done(), late.done(), newest.done()) == (True, False, False)
        await asyncio.sleep(40)
        pair.exchange()
        with pytest.raises(RateLimited):
            late.result()
        await asyncio.sleep(25)
        assert newest.done()

    run_virtually(main())


def test_a_caller_that_leaves_frees_its_turn_even_if_the_grant_is_on_its_way() -> None:
    async def main() -> None:
        pair = Pair("account 1/60s")
        permit = pair.old.admit()
        ticket, _ = pair.old.wait()
        pair.hand_over()
        pair.old.room.settle(permit, Outcome.UNUSED)  # the successor grants the next ticket
        pair.old.room.leave(ticket)
        pair.exchange()
        pair.new.admit()
        assert pair.new.gate.in_flight == 1

    run_virtually(main())


def test_a_paused_request_frees_its_place_until_it_ends() -> None:
    async def main() -> None:
        pair = Pair()
        permits = [pair.old.admit() for _ in range(3)]
        pair.hand_over()
        _, waiting = pair.new.wait()
        pair.old.room.pause(permits[0], lambda: None)
        pair.exchange()
        await waiting
        for permit in permits:
            pair.old.room.settle(permit, Outcome.SERVED)
        pair.exchange()
        assert pair.new.gate.in_flight == 1
        assert pair.new.gate.scopes.by_name["account"].limit.in_flight == 1, "each request has ended once"

    run_virtually(main())


def test_requests_of_a_lost_predecessor_leave_their_places_and_still_count() -> None:
    async def main() -> None:
        pair = Pair("account 3/60s")
        permit = pair.old.admit()
        pair.hand_over()
        _, admission = _wait_in_old(pair)
        await admission
        pair.new.handover.lose_predecessor()
        assert pair.new.gate.in_flight == 0
        pair.new.admit()
        pair.new.wait()  # the upstream may have counted both requests of the predecessor
        assert permit.state is TicketState.ADMITTED

    run_virtually(main())


def test_the_old_gate_decides_again_when_its_successor_is_gone() -> None:
    async def main() -> None:
        pair = Pair("account 2/60s")
        permit = pair.old.admit()
        pair.hand_over()
        pair.new.admit()
        _, admission = _wait_in_old(pair)
        assert not admission.done()
        pair.old.handover.take_back()
        await admission
        pair.old.room.settle(permit, Outcome.SERVED)
        assert pair.old.gate.in_flight == 1

    run_virtually(main())


def test_a_clock_that_is_set_between_the_processes_changes_nothing() -> None:
    async def main() -> None:
        pair = Pair("account 4/60s")
        for _ in range(3):
            pair.old.room.settle(pair.old.admit(), Outcome.SERVED)
        document: Any = json.loads(json.dumps(pair.old.handover.give(lambda _: None)))
        del document["exact"]
        document["limits"]["saved_at_s"] -= 3600.0
        pair.new.handover.take(document, lambda _: None)
        assert pair.new.gate.scopes.by_name["account"].limit.estimate.window.used(1000.0) == 3

    run_virtually(main())


def _wait_in_old(pair: Pair) -> "tuple[Ticket, asyncio.Future[None]]":
    ticket, admission = pair.old.wait()
    pair.exchange()
    return ticket, admission
