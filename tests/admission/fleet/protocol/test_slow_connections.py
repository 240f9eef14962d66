"""A connection to Redis over which messages reach one replica late, for as long as the connection lasts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from nanonets_proxy.admission.fleet.state import State
from simulator.limiters import FixedWindow
from support.gate.fleet_scene import FleetScene
from support.gate.memory_bus import MemoryBus
from support.gate.virtual_loop import run_virtually

LAG_S: Final = 0.3
"""An answer takes longer than a follower waits for it, but the leader hears something all the time."""
RUN_S: Final = 60.0


def in_fleet(test: Callable[[FleetScene], Awaitable[None]]) -> None:
    """Runs a test in a fleet of three that knows its limit."""

    async def main() -> None:
        scene = FleetScene(3, FixedWindow(40, 4.0))
        await scene.start()
        for number in range(3):
            scene.callers(number, 8, f"r{number}c")
        await asyncio.sleep(24.0)
        scene.counts.clear()
        scene.changes.clear()
        await test(scene)
        assert scene.counts.errors == []
        await scene.stop()

    run_virtually(main())


def coordinated(scene: FleetScene) -> int:
    return sum(replica.state.is_coordinated for replica in scene.replicas)


async def in_each_second(scene: FleetScene, seen: Callable[[FleetScene], int]) -> list[int]:
    found = []
    for _ in range(round(RUN_S)):
        await asyncio.sleep(1.0)
        found.append(seen(scene))
    return found


@pytest.fixture
def _lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a new connection be as slow as the earlier one."""

    def reconnect(self: MemoryBus, reason: str) -> None:
        self.reconnects += 1
        self.lose(reason)

    monkeypatch.setattr(MemoryBus, "reconnect", reconnect)


@pytest.mark.usefixtures("_lasting")
def test_a_leader_that_hears_late_lets_another_replica_lead() -> None:
    """Otherwise it would grant the whole limit to itself, and all others would use their shares beside it."""

    async def run(scene: FleetScene) -> None:
        slow = scene.leader
        scene.buses[slow].lag_s = LAG_S
        await asyncio.sleep(10.0)
        assert scene.leader not in (slow, -1)
        assert {reason for _, number, state, reason in scene.changes if (number, state) == (slow, State.ALONE)} & {
            "the messages of Redis reach this replica late"
        }
        assert min(await in_each_second(scene, coordinated)) >= 2
        assert scene.buses[slow].reconnects >= 1

    in_fleet(run)


@pytest.mark.parametrize("is_leader", [True, False])
def test_a_replica_that_hears_late_connects_anew(*, is_leader: bool) -> None:
    async def run(scene: FleetScene) -> None:
        slow = scene.leader if is_leader else (scene.leader + 1) % 3
        scene.buses[slow].lag_s = LAG_S
        await asyncio.sleep(10.0)
        assert scene.buses[slow].reconnects == 1
        assert min(await in_each_second(scene, coordinated)) == 3

    in_fleet(run)


def test_a_short_delay_of_the_messages_changes_no_leader() -> None:
    async def run(scene: FleetScene) -> None:
        leader = scene.leader
        for _ in range(10):
            scene.buses[leader].lag_s = 0.2
            await asyncio.sleep(1.0)
            scene.buses[leader].lag_s = 0.0
            await asyncio.sleep(1.0)
        assert scene.leader == leader
        assert [bus.reconnects for bus in scene.buses] == [0, 0, 0]

    in_fleet(run)
