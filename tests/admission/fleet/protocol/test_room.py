"""The waiting room of a replica treats its requests as that of a proxy alone does, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import RateLimited, ShuttingDown
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

PLACES = 4


def at_each(test: Callable[[FleetScene, int], Awaitable[None]]) -> None:
    """Runs a test at a leader, and at a follower."""

    async def main(who: str) -> None:
        scene = FleetScene(2, None, GatePolicy(PLACES, 1000))
        await scene.start()
        await asyncio.sleep(1.0)
        await test(scene, scene.leader if who == "leader" else 1 - scene.leader)
        await scene.stop()

    for who in ("leader", "follower"):
        run_virtually(main(who))


async def in_use(scene: FleetScene, number: int) -> list[Ticket]:
    """Returns the tickets of as many requests as the replica has places."""
    room, now_s = scene.replicas[number].room, scene.loop.time()
    tickets = [Ticket("account", now_s + 100.0, "c") for _ in range(PLACES)]
    for ticket in tickets:
        if (future := room.enter(ticket, now_s)) is not None:
            await future
    return tickets


def test_no_more_requests_are_sent_than_there_are_places() -> None:
    async def test(scene: FleetScene, number: int) -> None:
        await in_use(scene, number)
        now_s = scene.loop.time()
        assert not scene.replicas[number].room.try_admit(Ticket("account", now_s + 100.0, "c"), now_s)

    at_each(test)


def test_a_request_learns_that_it_must_wait() -> None:
    """Its body is not read meanwhile."""

    async def test(scene: FleetScene, number: int) -> None:
        await in_use(scene, number)
        waits = []
        ticket = Ticket("account", scene.loop.time() + 1.0, "c")
        future = scene.replicas[number].room.enter(ticket, scene.loop.time(), lambda: waits.append(ticket))
        assert future is not None
        assert waits == [ticket]
        with pytest.raises(RateLimited):
            await future

    at_each(test)


def test_a_request_whose_caller_hangs_up_before_or_after_its_wait_is_forgotten() -> None:
    """A task may be cancelled in the same turn in which its request is rejected."""

    async def test(scene: FleetScene, number: int) -> None:
        room = scene.replicas[number].room
        room.leave(Ticket("account", scene.loop.time() + 1.0, "c"))  # it waited for a key
        await in_use(scene, number)
        ticket = Ticket("account", scene.loop.time() + 1.0, "c")
        future = room.enter(ticket, scene.loop.time())
        assert future is not None
        with pytest.raises(RateLimited):
            await future
        room.leave(ticket)
        assert room.waiting == 0

    at_each(test)


def test_a_permit_ends_once() -> None:
    async def test(scene: FleetScene, number: int) -> None:
        room = scene.replicas[number].room
        tickets = await in_use(scene, number)
        room.settle(tickets[0], Outcome.SERVED)
        waiting = Ticket("account", scene.loop.time() + 1.0, "c")
        for ticket in (tickets[0], waiting):
            with pytest.raises(ValueError, match="already settled"):
                room.settle(ticket, Outcome.SERVED)

    at_each(test)


def test_while_a_replica_stops_a_request_without_a_place_is_rejected_at_once() -> None:
    async def test(scene: FleetScene, number: int) -> None:
        room = scene.replicas[number].room
        tickets = await in_use(scene, number)
        room.close()
        ticket = Ticket("account", scene.loop.time() + 100.0, "c")
        with pytest.raises(ShuttingDown):
            room.enter(ticket, scene.loop.time())
        room.settle(tickets[0], Outcome.SERVED)
        if (future := room.enter(ticket, scene.loop.time())) is not None:
            await future

    at_each(test)
