"""How soon another replica leads when the leader has died."""

import asyncio

import pytest

from nanonets_proxy.admission.fleet.state import State
from simulator.limiters import FixedWindow
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually


@pytest.mark.parametrize("replicas", [2, 3, 8])
def test_nobody_waits_for_a_leader_that_has_died(replicas: int) -> None:
    """Its lease expires after a second. It cannot say that it is here."""

    async def main() -> None:
        scene = FleetScene(replicas, FixedWindow(40, 4.0))
        await scene.start()
        for number in range(replicas):
            scene.callers(number, 24 // replicas)
        await asyncio.sleep(20.0)
        died_at_s = scene.loop.time()
        scene.changes.clear()
        scene.kill(scene.leader)
        await asyncio.sleep(3.0)
        (leads_at_s,) = [at_s for at_s, _, state, _ in scene.changes if state is State.LEADING]
        assert leads_at_s - died_at_s < 1.3
        assert scene.replicas[scene.leader].position.lead is not None
        assert scene.counts.errors == []
        await scene.stop()

    run_virtually(main())


def test_all_replicas_are_awaited_when_redis_was_away() -> None:
    """One that is connected again a moment later would use its share beside the leader."""

    async def main() -> None:
        scene = FleetScene(3, FixedWindow(40, 4.0))
        await scene.start()
        await asyncio.sleep(5.0)
        scene.redis.stop()
        await asyncio.sleep(3.0)
        leader, late = scene.leader, scene.buses[2]
        assert leader == -1
        scene.redis.come_back()
        late.connects_at_s = scene.loop.time() + 0.4
        scene.changes.clear()
        began_at_s = scene.loop.time()
        await asyncio.sleep(2.0)
        (leads_at_s,) = [at_s for at_s, _, state, _ in scene.changes if state is State.LEADING]
        assert leads_at_s - began_at_s > 0.4
        await scene.stop()

    run_virtually(main())


def test_a_leader_that_has_died_is_missing_only_once() -> None:
    """When its successor begins again, all replicas that the successor knows may live."""

    async def main() -> None:
        scene = FleetScene(3, FixedWindow(40, 4.0))
        await scene.start()
        for number in range(3):
            scene.callers(number, 8)
        await asyncio.sleep(5.0)
        scene.kill(scene.leader)
        await asyncio.sleep(5.0)
        first = scene.leader
        (late,) = {0, 1, 2} - scene.dead - {first}
        scene.redis.stop()
        await asyncio.sleep(3.0)
        scene.redis.come_back()
        scene.buses[late].connects_at_s = scene.loop.time() + 0.4
        scene.changes.clear()
        began_at_s = scene.loop.time()
        await asyncio.sleep(2.0)
        (leads,) = [(at_s, number) for at_s, number, state, _ in scene.changes if state is State.LEADING]
        assert leads[1] == first
        assert leads[0] - began_at_s > 0.4
        await scene.stop()

    run_virtually(main())
