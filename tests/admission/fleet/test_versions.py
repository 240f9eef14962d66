"""Replicas of two versions of the protocol, as while a fleet is upgraded step by step, in virtual time."""

import asyncio

from simulator.limiters import FixedWindow
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually


def test_two_versions_are_two_fleets_and_no_caller_fails() -> None:
    """Each fleet takes the other one for another client of the same quota."""

    async def main() -> None:
        limiter = FixedWindow(40, 4.0)
        old, new = FleetScene(3, limiter), FleetScene(3, limiter, seed=2)
        await old.start()
        for number in range(3):
            old.callers(number, 4, f"old{number}c")
        await asyncio.sleep(24.0)
        await new.start()
        for number in range(3):
            new.callers(number, 4, f"new{number}c")
        since_s, before = old.loop.time(), len(old.counts.served_at_s)
        await asyncio.sleep(60.0)
        assert old.counts.errors == new.counts.errors == []
        served = len(old.counts.served_at_s) - before + len(new.counts.served_at_s)
        assert served >= 0.95 * 600
        assert old.counts.refused_since(since_s) + new.counts.refused_since(since_s) <= 120
        for number in range(3):  # one replica after the other has the new version
            for task in old.tasks[4 * number : 4 * number + 4]:
                task.cancel()
            await asyncio.sleep(0)
            old.replicas[number].room.close()
            old.dead.add(number)
            await old.replicas[number].stop()
            await asyncio.sleep(1.0)
        since_s, before = new.loop.time(), len(new.counts.served_at_s)
        await asyncio.sleep(60.0)
        assert new.counts.errors == []
        assert len(new.counts.served_at_s) - before >= 0.85 * 600
        assert sorted(replica.state.value for replica in new.replicas) == ["following", "following", "leading"]
        await old.stop()
        await new.stop()

    run_virtually(main())
