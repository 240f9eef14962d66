"""Paused requests and the places of replicas, in virtual time."""

import asyncio
from dataclasses import replace

import pytest

from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

PLACES = 4
POLICY = GatePolicy(max_in_flight=PLACES, max_waiting=1000)


def place(scene: FleetScene, who: str) -> int:
    return 1 - scene.leader if who == "follower" else scene.leader


async def granted(scene: FleetScene, number: int, count: int) -> list[Ticket]:
    """Returns tickets with a permit, or as many as there are within a moment."""
    room, loop = scene.replicas[number].room, scene.loop
    tickets = [Ticket("account", loop.time() + 1000.0, f"c{n}") for n in range(count)]
    for ticket in tickets:
        if not room.try_admit(ticket, loop.time()):
            room.enter(ticket, loop.time())
    await asyncio.sleep(1.0)
    return [ticket for ticket in tickets if ticket.state is TicketState.ADMITTED]


@pytest.mark.parametrize("who", ["alone", "leader", "follower"])
@pytest.mark.parametrize("moves", [False, True])
def test_paused_requests_lend_their_places_to_others_also_of_other_replicas(who: str, *, moves: bool) -> None:
    """Callers that read nothing may hold up nobody else, at no replica."""

    async def main() -> None:
        scene = FleetScene(2, None, POLICY)
        await scene.start()
        await asyncio.sleep(1.0)
        number = place(scene, who)
        room = scene.replicas[number].room
        if who == "alone":
            scene.redis.stop()
            await asyncio.sleep(0.1)
        slow = await granted(scene, number, PLACES)
        for ticket in slow:
            room.pause(ticket, lambda: None)
        if moves:
            scene.redis.stop()
            await asyncio.sleep(0.5)
            if who != "alone":
                scene.redis.come_back()
                await asyncio.sleep(2.0)
        await asyncio.sleep(1.0)
        others = await granted(scene, number, PLACES)
        assert len(others) == PLACES
        at_other = await granted(scene, 1 - number, PLACES)
        assert len(at_other) == PLACES
        # A paused request goes on as soon as its replica has a place.
        resumed = scene.loop.create_task(room.resume(slow[0]))
        await asyncio.sleep(0.1)
        assert not resumed.done()
        room.settle(others[0], Outcome.SERVED)
        await resumed
        assert slow[0].state is TicketState.ADMITTED
        await asyncio.sleep(1.0)
        for ticket in (*slow, *others[1:]):
            room.settle(ticket, Outcome.SERVED)
        for ticket in at_other:
            scene.replicas[1 - number].room.settle(ticket, Outcome.SERVED)
        await asyncio.sleep(1.0)
        for n in range(2):
            assert (scene.replicas[n].room.in_flight, scene.replicas[n].room.waiting) == (0, 0)
        gates = [r.gate() for r in scene.replicas if r.state is not State.FOLLOWING]
        assert {(gate.in_flight, gate.waiting) for gate in gates} == {(0, 0)}
        assert all(scope.limit.in_flight == 0 for gate in gates for scope in gate.scopes)
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("places", [1, 12])
def test_a_reload_changes_the_places_that_the_leader_counts(places: int) -> None:
    async def main() -> None:
        scene = FleetScene(2, None, POLICY)
        await scene.start()
        await asyncio.sleep(1.0)
        follower, leader = scene.replicas[1 - scene.leader], scene.replicas[scene.leader]
        follower.change_policy(replace(POLICY, max_in_flight=places))
        await asyncio.sleep(0.6)
        assert leader.gate().policy.max_in_flight == PLACES + places
        await scene.stop()

    run_virtually(main())


def test_requests_that_no_longer_wait_for_a_place_take_no_memory() -> None:
    """And each of them leaves in the same time, however many there are: a stop rejects all of them at once."""

    async def main() -> None:
        scene = FleetScene(2, None, POLICY)
        await scene.start()
        await asyncio.sleep(1.0)
        number = scene.leader
        room, loop = scene.replicas[number].room, scene.loop
        in_use = await granted(scene, number, PLACES)
        for _ in range(500):
            ticket = Ticket("account", loop.time() + 100.0, "c")
            assert room.enter(ticket, loop.time()) is not None
            assert room._places._waiting
            room.leave(ticket)
        assert (room.waiting, room.in_flight) == (0, PLACES)
        assert len(room._places._in_order) < 100
        room.settle(in_use[0], Outcome.SERVED)
        await scene.request(number, "next")
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("all_resume", [False, True])
def test_beyond_its_places_the_request_that_paused_first_gives_up(*, all_resume: bool) -> None:
    """A paused request keeps its connection to the upstream. If all others resume, the newest one gives up."""

    async def main() -> None:
        scene = FleetScene(1, None, POLICY)
        await scene.start()
        await asyncio.sleep(1.0)
        room, ended = scene.replicas[0].room, []

        def pause(ticket: Ticket) -> None:
            room.pause(ticket, lambda: ended.append(ticket))

        slow = await granted(scene, 0, PLACES)
        for ticket in slow:
            pause(ticket)
        others = await granted(scene, 0, PLACES)
        resuming = [scene.loop.create_task(room.resume(ticket)) for ticket in slow if all_resume]
        await asyncio.sleep(0)
        assert ended == []
        pause(others[0])
        assert ended == [others[0] if all_resume else slow[0]]
        if not all_resume:
            pause(others[0])  # which is paused already
            assert ended == [slow[0]]
        assert room.in_flight == (PLACES if all_resume else PLACES - 1)
        assert scene.replicas[0].gate().in_flight == room.in_flight
        assert not any(task.done() for task in resuming)
        room.settle(ended[0], Outcome.FAILED)
        await asyncio.wait_for(room.resume(slow[0] if all_resume else others[0]), 0.1)
        assert room.in_flight == PLACES
        await scene.stop()

    run_virtually(main())
