"""Fleets in which many thousands of requests wait or count, in virtual time."""

import asyncio
from typing import Final, NamedTuple

import orjson
import pytest

from nanonets_proxy.admission.fleet import beliefs, host
from nanonets_proxy.admission.fleet.homes.claim import OwnClaim
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

_MOST_ASKED: Final = 1000 // 2
_WAITING: Final = 1200


class Heard(NamedTuple):
    """The numbers of claims in the messages that reach the leader."""

    asked: list[int]
    left: list[int]


def listen(scene: FleetScene) -> Heard:
    """Returns what reaches the leader from now on."""
    heard = Heard([], [])
    bus = scene.buses[scene.leader]

    def passes(data: bytes) -> bool:
        for message in orjson.loads(data)["is"]:
            if message["t"] == "ask":
                heard.asked.append(message["n"])
            elif message["t"] == "leave":
                heard.left.append(message["n"])
        return True

    bus.passes = passes
    return heard


async def fleet(count: int) -> FleetScene:
    """Returns a fleet of two with a limit of so many requests in an hour."""
    limits = StaticLimits((StaticLimit("*", count, 3600.0),))
    scene = FleetScene(2, None, GatePolicy(2000, 10_000, static_limits=limits))
    await scene.start()
    await asyncio.sleep(1.0)
    return scene


async def slow_fleet() -> FleetScene:
    """Returns a fleet of two with a limit of one request in an hour, which is used up."""
    scene = await fleet(1)
    await scene.request(scene.leader, "first")
    return scene


def enter(scene: FleetScene, number: int, count: int) -> list[Ticket]:
    """Lets requests wait at a replica."""
    room, now_s = scene.replicas[number].room, scene.loop.time()
    tickets = [Ticket("account", now_s + 1e7, f"c{n}") for n in range(count)]
    for ticket in tickets:
        assert room.enter(ticket, now_s) is not None
    return tickets


def numbers(tickets: list[Ticket]) -> list[int]:
    """Returns the numbers of the claims of tickets that wait."""
    return [ticket.claim.number for ticket in tickets if isinstance(ticket.claim, OwnClaim)]


def test_a_follower_asks_for_a_part_of_its_requests_at_a_time_and_for_all_of_them_in_their_order() -> None:
    """A leader answers the last of many thousands so late that its follower would leave it."""

    async def main() -> None:
        scene = await slow_fleet()
        leader, heard = scene.leader, listen(scene)
        scene.processes[leader].stand_still(0.03)
        tickets = enter(scene, 1 - leader, _WAITING)
        await asyncio.sleep(0.02)
        assert heard.asked == numbers(tickets[:_MOST_ASKED])
        remote = scene.replicas[1 - leader].position.remote
        assert remote is not None
        assert remote.waiting() == heard.asked  # the leader would take all others for lost
        await asyncio.sleep(0.1)
        assert heard.asked == numbers(tickets)
        assert scene.replicas[leader].own.home.gate.waiting == _WAITING
        await asyncio.sleep(5.0)
        assert {*heard.asked[_WAITING:]} == {1}  # whether the leader still hears this replica
        await scene.stop()

    run_virtually(main())


def test_a_request_that_ends_before_its_question_sends_nothing_and_lets_no_other_one_ask() -> None:
    async def main() -> None:
        scene = await slow_fleet()
        leader, heard = scene.leader, listen(scene)
        room = scene.replicas[1 - leader].room
        scene.processes[leader].stand_still(0.03)
        tickets = enter(scene, 1 - leader, _MOST_ASKED + 2)
        room.leave(tickets[_MOST_ASKED])
        await asyncio.sleep(0.01)
        assert len(heard.asked) == _MOST_ASKED
        assert heard.left == []
        room.leave(tickets[0])
        await asyncio.sleep(0.01)
        assert heard.asked[_MOST_ASKED:] == numbers(tickets[-1:])
        assert heard.left == numbers(tickets[:1])
        await asyncio.sleep(1.0)
        assert scene.replicas[leader].own.home.gate.waiting == _MOST_ASKED
        await scene.stop()

    run_virtually(main())


def test_a_request_that_must_ask_again_while_many_others_ask_gets_one_permit() -> None:
    """Its first question may have been late, and not lost."""

    async def main() -> None:
        scene = await fleet(10_000)
        leader, heard = scene.leader, listen(scene)
        replica = scene.replicas[1 - leader]
        scene.processes[leader].stand_still(0.03)
        tickets = enter(scene, 1 - leader, _WAITING)
        remote = replica.position.remote
        assert remote is not None
        for _ in range(2):
            remote.answer({"t": "lost", "n": numbers(tickets)[0]})
        await asyncio.sleep(1.0)
        assert sorted(set(heard.asked)) == numbers(tickets)
        assert (replica.room.waiting, replica.room.in_flight) == (0, _WAITING)
        assert scene.replicas[leader].own.home.gate.in_flight == _WAITING
        for ticket in tickets:
            replica.room.settle(ticket, Outcome.SERVED)
        await asyncio.sleep(1.0)
        assert scene.replicas[leader].own.home.gate.in_flight == 0
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("is_leader", [True, False])
def test_requests_that_wait_for_their_question_move_with_all_others(is_leader: bool) -> None:
    """All of them wait at the next leader."""

    async def main() -> None:
        scene = await slow_fleet()
        leader = scene.leader
        enter(scene, leader if is_leader else 1 - leader, _WAITING)
        await asyncio.sleep(0.001)
        scene.processes[leader].stand_still(3.0)
        await asyncio.sleep(6.0)
        assert scene.leader == 1 - leader
        waiting = sum(replica.room.waiting for replica in scene.replicas)
        assert waiting >= _WAITING - 1  # a replica alone may send one
        assert scene.replicas[1 - leader].own.home.gate.waiting == waiting
        await scene.stop()

    run_virtually(main())


def test_a_replica_joins_a_leader_with_tens_of_thousands_of_requests_of_its_own() -> None:
    """It would drop a welcome with more lists than an envelope may have."""

    async def main() -> None:
        scene = await fleet(10_000)
        room, now_s = scene.replicas[scene.leader].room, scene.loop.time()
        for number in range(51_000):
            ticket = Ticket(f"scope {number % 51}", now_s + 1.0)
            assert room.try_admit(ticket, now_s)
            room.settle(ticket, Outcome.SERVED)
        joined = scene.add()
        await joined.start(1.0)
        assert joined.state is State.FOLLOWING
        await scene.stop()

    run_virtually(main())


def test_a_leader_remembers_the_latest_ended_requests_of_each_follower_within_a_bound_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise, the memory of a leader with hundreds of followers would grow for hours."""

    async def main() -> None:
        scene = FleetScene(3, None)
        await scene.start()
        await asyncio.sleep(1.0)
        lead = scene.replicas[scene.leader].position.lead
        assert lead is not None
        assert lead.host is not None
        for most, served, kept in ((10_000, 8, [*range(1, 9)]), (10, 4, [*range(8, 13)])):
            monkeypatch.setattr(host, "_MAX_ENDED_OF_ALL", most)
            for number in {0, 1, 2} - {scene.leader}:
                for _ in range(served):
                    await scene.request(number, "c")
            await asyncio.sleep(0.1)
            assert [[*member.ended] for member in lead.host.members.values()] == [kept, kept]
        await scene.stop()

    run_virtually(main())


def test_a_leader_does_not_sum_up_what_is_used_for_each_replica_that_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tens of thousands of requests, each sum takes milliseconds, and those that join wait for 200 ms."""

    async def main() -> None:
        scene = await fleet(10_000)
        await scene.request(scene.leader, "c")
        await asyncio.sleep(1.0)
        sums: list[int] = []

        def summarize(_ages: object, _period_s: float) -> list[tuple[float, float]]:
            sums.append(1)
            return []

        monkeypatch.setattr(beliefs, "summarize", summarize)
        joined = [scene.add() for _ in range(10)]
        await asyncio.gather(*(replica.start(1.0) for replica in joined))
        assert {replica.state for replica in joined} == {State.FOLLOWING}
        assert len(sums) <= 2  # the beats tell it
        await scene.stop()

    run_virtually(main())
