"""When a replica begins to lead, and what its beats tell, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import Mock

import pytest

from nanonets_proxy.admission.fleet.bus.post import seal, unseal
from nanonets_proxy.admission.fleet.lead import COLLECT_S
from nanonets_proxy.admission.fleet.position import Position
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually


def in_fleet(replicas: int, test: Callable[[FleetScene], Awaitable[None]]) -> None:
    async def main() -> None:
        scene = FleetScene(replicas, None)
        await scene.start()
        await asyncio.sleep(1.0)
        await test(scene)
        await scene.stop()

    run_virtually(main())


def leader(scene: FleetScene) -> Position:
    return scene.replicas[scene.leader].position


def test_a_new_leader_waits_for_the_hello_of_each_replica_that_is_here() -> None:
    """Without their logs, it would grant what they have used already."""

    async def test(scene: FleetScene) -> None:
        old, (first, second, third) = scene.leader, (n for n in range(4) if n != scene.leader)
        for number in (second, third):
            scene.replicas[number].campaign.run = Mock()  # type: ignore[method-assign] # the first one wins
        lost_s: list[float] = []

        def passes(data: bytes) -> bool:
            is_lost = unseal(data).sender == scene.replicas[second].position.name and b'"t":"hello"' in data
            if is_lost:
                lost_s.append(scene.loop.time())
            return not is_lost

        scene.buses[first].passes = passes
        scene.kill(old)
        await asyncio.sleep(3.0)
        begun_s = next(at_s for at_s, n, state, _ in scene.changes if (n, state) == (first, State.LEADING))
        assert begun_s >= lost_s[0] + 0.9 * COLLECT_S

    in_fleet(4, test)


def test_a_late_word_that_a_replica_is_here_changes_nothing_at_a_leader() -> None:
    async def test(scene: FleetScene) -> None:
        position, number = leader(scene), scene.leader
        follower = scene.replicas[1 - number].position.name
        lead, changes = position.lead, len(scene.changes)
        assert lead is not None
        host = lead.host
        data = seal(follower, position.epoch, scene.processes[number].time(), [{"t": "here"}])
        scene.buses[number].deliver(data, scene.loop)
        await asyncio.sleep(1.0)
        assert position.lead is lead
        assert lead.host is host
        assert len(scene.changes) == changes

    in_fleet(2, test)


def test_a_replica_that_is_away_for_a_moment_still_counts() -> None:
    """Otherwise, the shares of the others would be too large if Redis went away then."""

    async def test(scene: FleetScene) -> None:
        number = next(n for n in range(3) if n != scene.leader)
        await asyncio.sleep(5.0)
        scene.kill(number)
        await asyncio.sleep(1.8)  # the leader has forgotten it
        lead = leader(scene).lead
        assert lead is not None
        assert lead.host is not None
        assert (len(lead.host.members), lead.replicas) == (1, 3)
        await asyncio.sleep(3.0)
        assert lead.replicas == 2

    in_fleet(3, test)


@pytest.mark.parametrize("is_beat_underway", [False, True])
def test_all_hear_of_a_closure_at_once(*, is_beat_underway: bool) -> None:
    async def test(scene: FleetScene) -> None:
        position, follower = leader(scene), scene.replicas[1 - scene.leader]
        ticket = Ticket("account", scene.loop.time() + 10.0, "c")
        assert position.room.try_admit(ticket, scene.loop.time())
        await asyncio.sleep(0.1)
        if is_beat_underway:
            assert position.lead is not None
            position.lead.beat()
            await asyncio.sleep(0.0004)  # it has left already
        position.room.settle(ticket, Outcome.THROTTLED, 20.0)
        await asyncio.sleep(0.01)
        assert [snapshot.opens_in_s for snapshot in follower.beliefs.snapshots] == [pytest.approx(20.0, abs=0.1)]

    in_fleet(2, test)


def test_the_last_replica_of_a_version_leads_once_the_other_version_has_gone() -> None:
    async def test(old: FleetScene) -> None:
        new = FleetScene(1, None, redis=old.redis.other_version())
        await new.start()
        await asyncio.sleep(3.0)
        assert new.replicas[0].state is State.COLLECTING
        old.dead.add(0)
        await old.replicas[0].stop()
        await asyncio.sleep(4.0)
        assert new.replicas[0].state is State.LEADING
        await new.stop()

    in_fleet(1, test)
