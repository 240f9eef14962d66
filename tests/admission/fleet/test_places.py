"""A replica with more requests than places in flight, in virtual time."""

import asyncio

import pytest

from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

POLICY = GatePolicy(max_in_flight=10, max_waiting=1000, initial_unconfirmed=4)


@pytest.mark.parametrize("is_leader", [False, True])
def test_a_replica_holds_no_more_permits_than_it_has_places(*, is_leader: bool) -> None:
    async def main() -> None:
        scene = FleetScene(3, None, POLICY, service_s=300.0)
        await scene.start()
        await asyncio.sleep(1.0)
        leader = scene.leader
        busy = leader if is_leader else (leader + 1) % 3
        scene.callers(busy, 45, "busy")
        await asyncio.sleep(3.0)
        assert scene.replicas[busy].room.in_flight == 10
        assert scene.replicas[leader].gate().in_flight == 10
        for number in {0, 1, 2} - {busy}:
            scene.callers(number, 10, f"r{number}c")
        await asyncio.sleep(3.0)
        assert scene.replicas[leader].gate().in_flight == 30
        await scene.stop()

    run_virtually(main())


def test_a_place_that_is_free_again_goes_to_the_request_that_arrived_first() -> None:
    async def main() -> None:
        scene = FleetScene(2, None, POLICY, service_s=5.0)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = 1 - scene.leader
        served: list[int] = []

        async def request(number: int) -> None:
            await scene.request(follower, f"c{number % 3}")
            served.append(number)

        tasks = [scene.loop.create_task(request(number)) for number in range(30)]
        await asyncio.gather(*tasks)
        assert [sorted(served[first : first + 10]) for first in (0, 10, 20)] == [
            list(range(first, first + 10)) for first in (0, 10, 20)
        ]
        assert max(scene.counts.waits_s) < 2 * 5.0 * 1.2 + 0.2  # a free place stays empty for milliseconds
        await scene.stop()

    run_virtually(main())


def test_a_request_that_waits_for_a_place_ends_at_its_deadline_and_when_its_caller_goes() -> None:
    async def main() -> None:
        scene = FleetScene(2, None, POLICY, service_s=300.0)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = 1 - scene.leader
        scene.callers(follower, 10, "slow")
        await asyncio.sleep(1.0)
        tasks = [scene.loop.create_task(scene.request(follower, "late", wait_s=wait_s)) for wait_s in (2.0, 300.0)]
        await asyncio.sleep(1.0)
        room = scene.replicas[follower].room
        assert room.waiting == 2
        tasks[1].cancel()
        await asyncio.sleep(3.0)
        assert len(scene.counts.errors) == 1
        assert room.waiting == 0
        await asyncio.gather(*tasks, return_exceptions=True)
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("ends", ["its caller goes", "its deadline passes"])
@pytest.mark.parametrize("is_leader", [False, True])
def test_a_request_that_ends_while_it_asks_for_a_free_place_leaves_it_to_the_next(
    ends: str, *, is_leader: bool
) -> None:
    async def main() -> None:
        scene = FleetScene(2, None, GatePolicy(max_in_flight=2, max_waiting=1000, initial_unconfirmed=50))
        await scene.start()
        await asyncio.sleep(1.0)
        number = scene.leader if is_leader else 1 - scene.leader
        room, loop = scene.replicas[number].room, scene.loop
        waits_s = (300.0, 300.0, 5.0 if ends == "its deadline passes" else 300.0, 300.0)
        tickets = [Ticket("account", loop.time() + wait_s, "c") for wait_s in waits_s]
        futures = [room.enter(ticket, loop.time()) for ticket in tickets]
        await asyncio.sleep(5.1)  # the room refuses only later, in case its home is about to decide
        assert [ticket.state is TicketState.ADMITTED for ticket in tickets] == [True, True, False, False]
        room.settle(tickets[0], Outcome.SERVED)
        if ends == "its caller goes":
            room.leave(tickets[2])
        await asyncio.sleep(0.1)
        assert tickets[3].state is TicketState.ADMITTED
        assert (room.in_flight, room.waiting) == (2, 0)
        for future in futures:
            if future is not None and future.done():
                future.exception()  # the refusal is read
        await scene.stop()

    run_virtually(main())
