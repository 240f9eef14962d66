"""Properties of a fleet under random faults, in virtual time: no permit is lost, no caller waits for ever."""

import asyncio

from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.errors import ShuttingDown
from simulator.limiters import SlidingLog
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

REPLICAS = 3
FAULTS = ("hang", "down", "wipe", "read_only", "kill", "add", "cancel", "stop", "cut", "lossy", "twice", "disorder")

steps = st.lists(
    st.tuples(st.sampled_from(FAULTS), st.floats(0.0, 3.0), st.integers(0, 9)),
    min_size=1,
    max_size=6,
)


async def apply(scene: FleetScene, fault: str, lasts_s: float, which: int) -> None:
    redis, alive = scene.redis, [n for n in range(len(scene.replicas)) if n not in scene.dead]
    number = alive[which % len(alive)]
    match fault:
        case "hang":
            redis.hangs = True
            await asyncio.sleep(lasts_s)
            redis.resume()
        case "down":
            redis.stop()
            await asyncio.sleep(lasts_s)
            redis.come_back()
        case "wipe":
            redis.flush_all()
        case "read_only":
            redis.is_read_only = True
            await asyncio.sleep(lasts_s)
            redis.is_read_only = False
        case "kill" if len(alive) > 1:
            scene.kill(number)
        case "stop" if len(alive) > 1:
            scene.dead.add(number)
            scene.replicas[number].room.close()
            await scene.replicas[number].stop()
        case "add" if len(scene.replicas) < 6:
            await scene.add().start(1.0)
            scene.callers(len(scene.replicas) - 1, 2, "late")
        case "cancel":  # callers hang up, while they wait or are served
            for task in scene.tasks[which :: len(FAULTS)]:
                task.cancel()
        case "lossy":
            redis.lost = 0.1 * (1 + which)
            await asyncio.sleep(lasts_s)
            redis.lost = 0.0
        case "twice":
            redis.doubled = 0.1 * (1 + which)
            await asyncio.sleep(lasts_s)
            redis.doubled = 0.0
        case "disorder":  # messages overtake each other
            redis.disorder_s = 0.01 * (1 + which)
            await asyncio.sleep(lasts_s)
            redis.disorder_s = 0.0
        case "cut":  # one replica loses its connection for a while
            bus = scene.buses[number]
            bus.is_cut = True
            bus.lose("connection lost")
            await asyncio.sleep(lasts_s)
            bus.is_cut = False
    await asyncio.sleep(lasts_s)


@settings(max_examples=8, deadline=None)
@given(steps, st.integers(0, 2**16), st.sampled_from((0, 20)))
@example([("kill", 0.0, 0), ("hang", 0.3, 0), ("cut", 0.5, 1)], 1, 20)
@example([("down", 1.0, 0), ("cancel", 0.1, 1), ("stop", 0.2, 2), ("add", 0.0, 0)], 2, 20)
@example([("cut", 2.0, 0), ("cut", 0.2, 1), ("wipe", 0.0, 0)], 3, 0)
@example([("lossy", 3.0, 2), ("twice", 3.0, 9), ("disorder", 3.0, 9)], 4, 20)
@example([("lossy", 3.0, 0), ("disorder", 3.0, 2), ("kill", 0.0, 0), ("twice", 1.0, 9)], 5, 20)
def test_after_any_faults_one_gate_decides_again_and_no_permit_is_lost(
    faults: list[tuple[str, float, int]], seed: int, limit: int
) -> None:
    async def main() -> None:
        limiter = SlidingLog(limit, 2.0) if limit else None
        scene = FleetScene(REPLICAS, limiter, seed=seed)
        await scene.start()
        for number in range(REPLICAS):
            scene.callers(number, 4, f"r{number}c", pause_s=0.05)
        await asyncio.sleep(3.0)
        for fault, lasts_s, which in faults:
            await apply(scene, fault, lasts_s, which)
        await asyncio.sleep(4.0)
        assert [error for error in scene.counts.errors if not isinstance(error, ShuttingDown)] == []

        alive = [n for n in range(len(scene.replicas)) if n not in scene.dead]
        states = sorted(scene.replicas[n].state.value for n in alive)
        assert states == ["following"] * (len(alive) - 1) + ["leading"]
        assert {scene.replicas[n].replicas for n in alive} == {max(1, len(alive))}

        # All callers hang up: then nothing may be in flight or wait anywhere.
        for task in scene.tasks:
            task.cancel()
        await asyncio.gather(*scene.tasks, return_exceptions=True)
        scene.tasks.clear()
        await asyncio.sleep(1.0)
        for n in alive:
            room = scene.replicas[n].room
            assert (room.in_flight, room.waiting) == (0, 0)
        leader = scene.replicas[scene.leader]
        assert leader.state is State.LEADING
        gate = leader.gate()
        assert (gate.in_flight, gate.waiting) == (0, 0)
        assert all(scope.limit.in_flight == 0 for scope in gate.scopes)

        # And the next request of each replica is served.
        await asyncio.gather(*(scene.request(n, "last", wait_s=60.0) for n in alive))
        assert [error for error in scene.counts.errors if not isinstance(error, ShuttingDown)] == []
        await scene.stop()

    run_virtually(main())
