"""The races of the gate's shell: grants, hang-ups and shutdown that meet."""

import asyncio
import math

import pytest

from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import RateLimited, ShuttingDown
from support.waiting_caller import admitted


class Room:
    """A waiting room with one place."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.gate = Gate(GatePolicy(max_in_flight=1, max_waiting=100), lambda: 0.0)
        self.room = WaitingRoom(self.gate, self.loop)
        self.waits = 0

    def ticket(self, wait_s: float = math.inf) -> Ticket:
        return Ticket("account", self.loop.time() + wait_s)

    async def enter(self) -> "asyncio.Task[Ticket]":
        """A caller that has come as far as it can."""
        task = asyncio.create_task(self.admit(self.ticket()))
        await asyncio.sleep(0)
        return task

    async def admit(self, ticket: Ticket) -> Ticket:
        await admitted(self.room, ticket, self.loop.time(), self._count)
        return ticket

    def _count(self) -> None:
        self.waits += 1

    def settle(self, permit: Ticket, outcome: Outcome = Outcome.SERVED) -> None:
        self.room.settle(permit, outcome)


async def test_who_need_not_wait_is_not_told_to() -> None:
    room = Room()
    first = await room.enter()
    assert first.done()
    second = await room.enter()
    assert not second.done()
    assert room.waits == 1
    room.settle(await first)
    room.settle(await second)
    assert (room.gate.waiting, room.gate.in_flight) == (0, 0)


async def test_a_caller_that_is_cancelled_while_it_waits_is_never_granted() -> None:
    room = Room()
    running = await (await room.enter())
    gone, stays = await room.enter(), await room.enter()
    gone.cancel()
    await asyncio.sleep(0)
    assert room.gate.waiting == 1
    room.settle(running)
    room.settle(await stays)
    assert gone.cancelled()
    assert (room.gate.waiting, room.gate.in_flight) == (0, 0)


async def test_a_caller_that_is_cancelled_after_its_grant_hands_it_on() -> None:
    room = Room()
    running = await (await room.enter())
    gone, stays = await room.enter(), await room.enter()
    room.settle(running)  # the grant is set, its task has not run yet
    gone.cancel()
    permit = await stays
    assert gone.cancelled()
    assert room.gate.in_flight == 1
    room.settle(permit)
    assert room.gate.in_flight == 0


async def test_callers_that_are_cancelled_in_the_same_turn_lose_no_permit() -> None:
    room = Room()
    running = await (await room.enter())
    callers = [await room.enter() for _ in range(10)]
    room.settle(running)
    for caller in callers[:9]:
        caller.cancel()
    room.settle(await callers[9])
    assert (room.gate.waiting, room.gate.in_flight) == (0, 0)


async def test_shutdown_sends_all_who_wait_away_and_leaves_permits_good() -> None:
    room = Room()
    running = await (await room.enter())
    callers = [await room.enter() for _ in range(5)]
    room.room.close()
    for caller in callers:
        with pytest.raises(ShuttingDown):
            await caller
    with pytest.raises(ShuttingDown):
        await (await room.enter())
    assert room.gate.in_flight == 1
    room.settle(running)
    assert (room.gate.waiting, room.gate.in_flight) == (0, 0)


async def test_a_caller_that_is_cancelled_while_the_shutdown_sends_it_away() -> None:
    room = Room()
    running = await (await room.enter())
    caller = await room.enter()
    room.room.close()
    caller.cancel()
    with pytest.raises((asyncio.CancelledError, ShuttingDown)):
        await caller
    room.settle(running)
    assert (room.gate.waiting, room.gate.in_flight) == (0, 0)


async def test_a_refused_caller_waits_again_ahead_of_those_who_came_later() -> None:
    room = Room()
    ticket = room.ticket()
    permit = await room.admit(ticket)
    later = await room.enter()
    room.room.settle(permit, Outcome.THROTTLED, 0.01)
    again = asyncio.create_task(room.admit(ticket))
    room.settle(await again)
    room.settle(await later)


async def test_who_cannot_be_in_time_is_told_so_at_once() -> None:
    room = Room()
    permit = await room.admit(room.ticket())
    room.room.settle(permit, Outcome.THROTTLED, 100.0)
    with pytest.raises(RateLimited) as rejection:
        await room.admit(room.ticket(wait_s=5))
    assert rejection.value.retry_after_s == pytest.approx(100, abs=5)
