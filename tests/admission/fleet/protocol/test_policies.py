"""Settings of callers and scopes at a gate that knows them by hashes, in virtual time."""

import asyncio
from dataclasses import replace

import pytest

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
