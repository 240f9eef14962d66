"""Settings of callers and scopes at a gate that knows them by hashes, in virtual time."""

import asyncio
from dataclasses import replace

import pytest

from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

ROW = StaticLimit("account", 20, 2.0)
POLICY = GatePolicy(256, 1000, static_limits=StaticLimits((ROW,)))


@pytest.mark.parametrize("is_new_at_leader", [True, False])
def test_while_other_limits_are_rolled_out_no_scope_gets_the_limit_of_another(*, is_new_at_leader: bool) -> None:
    """The replicas have other rows for a while. The new first row is much stricter."""

    async def main() -> None:
        scene = FleetScene(2, None, POLICY)
        await scene.start()
        await asyncio.sleep(1.0)
        changed = scene.leader if is_new_at_leader else 1 - scene.leader
        limits = StaticLimits((StaticLimit("v2:*", 1, 600.0), ROW))
        scene.replicas[changed].own._names.change_limits(limits)
        scene.replicas[changed].change_policy(replace(POLICY, static_limits=limits))
        for number in range(2):
            scene.callers(number, 20, f"r{number}c")
        await asyncio.sleep(20.0)
        assert len(scene.counts.served_at_s) == pytest.approx(200, rel=0.15)
        await scene.stop()

    run_virtually(main())


def test_a_reload_applies_also_to_a_replica_that_gathers_the_others_for_long() -> None:
    """While another version is here, a replica of each version gathers, and all use their shares."""

    async def main() -> None:
        old = FleetScene(1, None, POLICY)
        new = FleetScene(1, None, POLICY, redis=old.redis.other_version())
        for scene in (old, new):
            await scene.start()
        await asyncio.sleep(3.0)
        replica = new.replicas[0]
        assert replica.state is State.COLLECTING
        replica.change_policy(replace(POLICY, static_limits=StaticLimits((replace(ROW, count=8),))))
        assert [row.count for row in replica.gate().policy.static_limits.rows] == [4]
        for scene in (old, new):
            await scene.stop()

    run_virtually(main())


def test_two_parts_of_a_share_change_nothing_while_a_leader_decides() -> None:
    """The earlier process of a restart asks its leader, or leads, until it ends."""

    async def main() -> None:
        scene = FleetScene(2, None, POLICY)
        await scene.start()
        await asyncio.sleep(1.0)
        homes = [replica.room._home for replica in scene.replicas]
        for replica in scene.replicas:
            replica.use_part(2)
        assert [replica.room._home for replica in scene.replicas] == homes
        await scene.stop()

    run_virtually(main())
