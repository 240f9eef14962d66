"""A replica that stays alone keeps its gate, with all that it has learned, and does not repeat its reports."""

import asyncio
from collections.abc import Callable

import pytest

from nanonets_proxy.admission.fleet.state import State
from support.gate.fleet_scene import FleetScene
from support.gate.memory_bus import MemoryRedis
from support.gate.virtual_loop import run_virtually


def _is_slow(redis: MemoryRedis) -> None:
    redis.delay_s = 0.04  # for each of two ways


def _is_read_only(redis: MemoryRedis) -> None:
    """Lets the buses find the server again and again, and lose it each time."""
    redis.is_read_only = True

    def lose(times: int = 1) -> None:
        for bus in redis.buses:
            bus.lose(f"lost {times} times")
        asyncio.get_running_loop().call_later(0.4, lose, times + 1)

    lose()


@pytest.mark.parametrize("fault", [_is_slow, _is_read_only])
def test_a_replica_that_cannot_lead_keeps_its_gate(fault: Callable[[MemoryRedis], None]) -> None:
    async def main() -> None:
        redis = MemoryRedis()
        scene = FleetScene(2, None, redis=redis)
        await scene.start()
        await asyncio.sleep(1.0)
        fault(redis)
        await asyncio.sleep(3.0)
        assert {replica.state for replica in scene.replicas} == {State.ALONE}
        homes, changes = [replica.own.home for replica in scene.replicas], len(scene.changes)
        await asyncio.sleep(10.0)
        assert redis.campaigns > 20
        assert [replica.own.home for replica in scene.replicas] == homes
        assert len(scene.changes) == changes
        await scene.stop()

    run_virtually(main())


def test_while_another_version_is_here_a_replica_keeps_its_gate() -> None:
    async def main() -> None:
        old = FleetScene(2, None)
        new = FleetScene(2, None, redis=old.redis.other_version())
        scenes = (old, new)
        for scene in scenes:
            await scene.start()
        await asyncio.sleep(3.0)
        replicas = [*old.replicas, *new.replicas]
        assert all(replica.own.others == 2 for replica in replicas)
        homes, changes = [replica.own.home for replica in replicas], [len(scene.changes) for scene in scenes]
        await asyncio.sleep(10.0)
        assert [replica.own.home for replica in replicas] == homes
        assert [len(scene.changes) for scene in scenes] == changes
        for bus in 3 * old.redis.buses:
            bus.lose("connection lost")
        assert len(old.changes) == changes[0] + 2
        for scene in scenes:
            await scene.stop()

    run_virtually(main())


def test_a_follower_whose_attempt_to_lead_comes_late_still_asks_its_leader() -> None:
    """It heard the leader while Redis hung, after the attempt had begun."""

    async def main() -> None:
        scene = FleetScene(2, None)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = scene.replicas[1 - scene.leader]
        await asyncio.sleep(0.1)  # no beat is on its way
        scene.redis.holder, scene.redis.hangs = "", True
        follower.campaign.run(follower.position.epoch)
        await asyncio.sleep(0.07)
        scene.redis.resume()
        await asyncio.sleep(0.03)
        assert scene.redis.lease_epoch > follower.position.epoch
        assert follower.state is State.FOLLOWING
        assert not follower.room.is_at(follower.own.home)
        await scene.stop()

    run_virtually(main())
