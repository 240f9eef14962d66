"""The two races of the gate's shell, and what a closed room does. The loop and the gate are real."""

import asyncio

import pytest

from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import RateLimited, ShuttingDown
from support.waiting_caller import admitted

LONG_S = 60.0


class Room:
    """A waiting room with one place in flight."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.gate = Gate(GatePolicy(max_in_flight=1, max_waiting=10), lambda: 0.0)
        self.room = WaitingRoom(self.gate, self.loop)

    async def admit(self, wait_s: float = LONG_S) -> Ticket:
        now_s = self.loop.time()
        ticket = Ticket("account", now_s + wait_s)
        await admitted(self.room, ticket, now_s)
        return ticket

    async def waiting(self) -> "asyncio.Task[Ticket]":
        task = asyncio.create_task(self.admit())
        await asyncio.sleep(0)
        return task


async def test_a_task_that_is_cancelled_after_its_grant_hands_the_permit_on() -> None:
    room = Room()
    permit = await room.admit()
    cancelled, next_one = await room.waiting(), await room.waiting()
    room.room.settle(permit, Outcome.SERVED)  # grants to the first, whose task has not run yet
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    room.room.settle(await next_one, Outcome.SERVED)
    assert (room.gate.in_flight, room.gate.waiting) == (0, 0)


async def test_a_grant_to_a_task_that_is_being_cancelled_goes_to_the_next() -> None:
    room = Room()
    permit = await room.admit()
    cancelled, next_one = await room.waiting(), await room.waiting()
    cancelled.cancel()  # its future is cancelled at once, its task runs later
    room.room.settle(permit, Outcome.SERVED)
    room.room.settle(await next_one, Outcome.SERVED)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (room.gate.in_flight, room.gate.waiting) == (0, 0)


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_line() -> None:
    room = Room()
    permit = await room.admit()
    cancelled = await room.waiting()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert room.gate.waiting == 0
    room.room.settle(permit, Outcome.SERVED)
    assert room.gate.in_flight == 0


async def test_closing_sends_those_who_wait_away_and_leaves_permits_good() -> None:
    room = Room()
    permit = await room.admit()
    waiting, cancelled = await room.waiting(), await room.waiting()
    cancelled.cancel()
    room.room.close()
    with pytest.raises(ShuttingDown):
        await waiting
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(ShuttingDown):
        await room.admit()
    room.room.settle(permit, Outcome.SERVED)
    assert (room.gate.in_flight, room.gate.waiting) == (0, 0)


async def test_a_permit_that_was_granted_before_closing_is_good_still() -> None:
    room = Room()
    permit = await room.admit()
    granted = await room.waiting()
    room.room.settle(permit, Outcome.SERVED)
    room.room.close()
    room.room.settle(await granted, Outcome.SERVED)
    assert room.gate.in_flight == 0


async def test_a_deadline_ends_the_wait_and_a_wait_of_zero_takes_a_free_place() -> None:
    room = Room()
    permit = await room.admit(0)
    with pytest.raises(RateLimited) as rejection:
        await room.admit(0.02)
    assert rejection.value.details["reason"] == "deadline_passed"
    with pytest.raises(RateLimited):
        await room.admit(0)
    room.room.settle(permit, Outcome.SERVED)
    assert (room.gate.in_flight, room.gate.waiting) == (0, 0)


async def test_one_that_comes_behind_a_cancelled_grant_is_admitted_at_once() -> None:
    room = Room()
    permit = await room.admit()
    cancelled = await room.waiting()
    cancelled.cancel()
    room.gate.settle(permit, Outcome.SERVED, room.loop.time())
    room.room.settle(await room.admit(), Outcome.SERVED)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (room.gate.in_flight, room.gate.waiting) == (0, 0)
