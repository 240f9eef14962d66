"""Faults while a limit is being learned, in virtual time. Callers never fail, and few requests are refused."""

import asyncio
from collections.abc import Callable

import pytest

from fleet.faults import FAULTS, LEARNING_AT_S, run
from nanonets_proxy.admission.fleet.homes.remote_home import RemoteHome
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from simulator.limiters import FixedWindow, Limiter, SlidingLog
from support.gate import fleet_scene
from support.gate.fleet_scene import FleetScene
from support.gate.memory_bus import MemoryRedis
from support.gate.virtual_loop import run_virtually


@pytest.mark.parametrize(
    ("fault", "when", "most"),
    [
        ("leader: SIGKILL", 4, 20),
        ("follower: SIGSTOP for 20 s", 2, 20),
        ("Redis: hangs for 0.3 s", 3, 20),
        ("Redis: hangs for 3 s", 1, 20),
        ("Redis: away for 3 s, then empty", 1, 20),
        ("Redis: away for 30 s, then empty", 2, 29),
        ("Redis: read-only for 5 s", 1, 20),
        ("Redis: 20 ms slow for 20 s", 0, 20),
    ],
)
def test_a_fault_while_the_limit_is_being_learned_costs_few_429s(fault: str, when: int, most: int) -> None:
    """Without a fault, a fleet draws up to 9 429s in these 40 s. The aim is at most 20 more.

    It costs almost as many if Redis is away for so long that each replica meets the limit on its own.
    """
    found = run(FAULTS[fault], LEARNING_AT_S[when])
    assert found.refused <= most
    assert found.errors == 0


async def uses_its_limit(scene: FleetScene) -> None:
    """Checks what the fleet does in the next 20 s before a limit of 40 in 4 s."""
    scene.counts.clear()
    await asyncio.sleep(20.0)
    assert len(scene.counts.served_at_s) >= 0.9 * 200
    assert len(scene.counts.refused_at_s) <= 5
    assert scene.counts.errors == []


@pytest.mark.parametrize("alone_s", [3.0, 6.0, 12.0])
@pytest.mark.parametrize("seed", [1, 3])
def test_a_fleet_keeps_its_limit_when_a_replica_led_alone_on_the_earlier_master(alone_s: float, seed: int) -> None:
    """That replica competed with the fleet, so what it has learned is too low."""

    async def main() -> None:
        scene = FleetScene(3, FixedWindow(40, 4.0), seed=seed)
        earlier, later = scene.redis, MemoryRedis(chance=scene.random)
        await scene.start()
        for replica in range(3):
            scene.callers(replica, 8)
        await asyncio.sleep(32.0)
        for bus in scene.buses:
            bus.move(later, scene.loop.time() + 1.0)
        await asyncio.sleep(3.0)
        earlier.holder = ""
        newcomer = scene.add()
        await newcomer.start(1.0)
        assert newcomer.state is State.LEADING
        scene.callers(3, 8)
        await asyncio.sleep(alone_s)
        assert newcomer.state is State.LEADING  # there are two leaders
        scene.buses[3].move(later, scene.loop.time() + 0.3)
        await asyncio.sleep(2.0)
        assert {replica.state.is_coordinated for replica in scene.replicas} == {True}
        await uses_its_limit(scene)
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("newcomers", [1, 2])
@pytest.mark.parametrize("alone_s", [0.5, 3.0, 10.0])
@pytest.mark.parametrize("limiter", [lambda: FixedWindow(40, 4.0), lambda: SlidingLog(40, 4.0)])
def test_a_fleet_keeps_its_limit_when_it_comes_to_a_server_where_newcomers_lead(
    limiter: Callable[[], Limiter], alone_s: float, newcomers: int
) -> None:
    """They know nothing, or they have learned while they competed with the fleet."""

    async def main() -> None:
        scene = FleetScene(4, limiter())
        earlier, later = scene.redis, MemoryRedis(chance=scene.random)
        await scene.start()
        for replica in range(4):
            scene.callers(replica, 8)
        await asyncio.sleep(32.0)
        scene.redis = later
        new = [scene.add() for _ in range(newcomers)]
        await asyncio.gather(*(replica.start(1.0) for replica in new))
        for replica in range(4, 4 + newcomers):
            scene.callers(replica, 8)
        await asyncio.sleep(alone_s)
        assert State.LEADING in {replica.state for replica in new}
        scene.changes.clear()
        for number, bus in enumerate([*earlier.buses]):  # one after the other
            bus.move(later, scene.loop.time() + 0.1 + 0.9 * number)
        await asyncio.sleep(6.0)
        assert {replica.state.is_coordinated for replica in scene.replicas} == {True}
        leads = [state for _, _, state, _ in scene.changes if state is State.LEADING]
        assert len(leads) == 1, "a lead that ends for each replica that comes"
        assert scene.leader >= 4
        await uses_its_limit(scene)
        await scene.stop()

    run_virtually(main())


def test_a_leader_tells_its_own_grants_at_once() -> None:
    """If it dies before its next beat, the next leader must not grant them again."""

    async def main() -> None:
        scene = FleetScene(2, None, service_s=5.0)
        await scene.start()
        await asyncio.sleep(1.0)
        leader = scene.leader
        tasks = [scene.loop.create_task(scene.request(leader, f"c{number}")) for number in range(5)]
        await asyncio.sleep(0.03)
        scene.kill(leader)
        await asyncio.sleep(3.0)
        other = scene.replicas[1 - leader]
        assert other.state is State.LEADING
        (scope,) = other.gate().scopes
        assert scope.limit.estimate.window.granted_since(0.0) == 5
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await scene.stop()

    run_virtually(main())


def test_a_follower_reports_a_request_that_has_no_response_for_long() -> None:
    """Slow start at the leader goes on by that, although the requests take minutes."""

    async def main() -> None:
        scene = FleetScene(2, None, service_s=60.0)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = 1 - scene.leader
        scene.callers(follower, 150, "c")
        await asyncio.sleep(0.03)
        assert len(scene.counts.sent) == 64
        await asyncio.sleep(1.0)
        assert len(scene.counts.sent) == 150
        await scene.stop()

    run_virtually(main())


def test_a_lost_report_holds_up_nobody_for_long() -> None:
    async def main() -> None:
        policy = GatePolicy(max_in_flight=100, max_waiting=1000, initial_unconfirmed=1)
        scene = FleetScene(2, None, policy, service_s=300.0)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = 1 - scene.leader
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RemoteHome, "_report", lambda *_: None)
            scene.callers(follower, 1, "first")
            await asyncio.sleep(0.5)
        scene.callers(scene.leader, 1, "second")
        await asyncio.sleep(2.0)
        assert len(scene.counts.sent) == 2
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize(("slower_s", "seed"), [(0.02, 1), (0.04, 2), (0.08, 2)])
def test_a_try_just_before_the_end_of_a_window_makes_its_period_no_longer(
    monkeypatch: pytest.MonkeyPatch, slower_s: float, seed: int
) -> None:
    """Windows of 40 in 4 s. Its hint of a whole second would make 5 s of the period, for good.

    The upstream becomes slower for a while, so the tries within the last second come at other instants.
    """

    async def main() -> None:
        scene = FleetScene(1, FixedWindow(40, 4.0), seed=seed)
        await scene.start()
        scene.callers(0, 24)
        await asyncio.sleep(0.6)
        monkeypatch.setattr(fleet_scene, "TRAVEL_S", fleet_scene.TRAVEL_S + slower_s)
        await asyncio.sleep(20.0)
        monkeypatch.undo()
        await asyncio.sleep(20.0)
        (scope,) = scene.replicas[0].gate().scopes
        window = scope.limit.estimate.window
        assert (window.count, window.period_s) == (40, 4.0)
        await scene.stop()

    run_virtually(main())
