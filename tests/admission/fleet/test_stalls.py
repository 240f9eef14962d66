"""Processes that stand still, clocks that differ, and a slow Redis, in virtual time."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from nanonets_proxy.admission.fleet.bequest import give, take
from nanonets_proxy.admission.fleet.bus.port import BusError
from nanonets_proxy.admission.fleet.state import State
from simulator.limiters import FixedWindow
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

Act = Callable[[FleetScene], Awaitable[None]]


def in_fleet(test: Act, replicas: int = 3, *, clocks_off_s: float = 0.0, callers: int = 24) -> None:
    async def main() -> None:
        scene = FleetScene(replicas, FixedWindow(40, 4.0), clocks_off_s=clocks_off_s)
        await scene.start()
        for number in range(replicas):
            scene.callers(number, callers // replicas, f"r{number}c")
        await asyncio.sleep(24.0)
        await test(scene)
        await scene.stop()

    run_virtually(main())


def follower(scene: FleetScene) -> int:
    return next(n for n, replica in enumerate(scene.replicas) if replica.state is State.FOLLOWING)


@pytest.mark.parametrize("is_leader", [True, False])
def test_a_replica_that_stood_still_for_20_s_costs_few_429s(*, is_leader: bool) -> None:
    """As after SIGSTOP and SIGCONT: it comes back with a lease, messages and beliefs of the past."""

    async def run(scene: FleetScene) -> None:
        number, since_s = scene.leader if is_leader else follower(scene), scene.loop.time()
        scene.processes[number].stand_still(20.0)
        await asyncio.sleep(19.0)
        before_s = scene.loop.time()
        await asyncio.sleep(21.0)
        assert scene.counts.errors == []
        assert scene.counts.refused_since(since_s) <= 12
        assert scene.counts.refused_since(before_s) <= 10
        assert sorted(replica.state.value for replica in scene.replicas) == ["following", "following", "leading"]

    in_fleet(run)


def test_clocks_of_replicas_need_not_agree() -> None:
    """Each monotonic clock begins with the start of its machine: no instant may go over the wire."""

    async def run(scene: FleetScene) -> None:
        for act in ("kill", "away", "stand still"):
            since_s = scene.loop.time()
            if act == "kill":
                scene.kill(scene.leader)
            elif act == "away":
                scene.redis.stop()
                await asyncio.sleep(5.0)
                scene.redis.come_back()
            else:
                scene.processes[scene.leader].stand_still(3.0)
            await asyncio.sleep(20.0)
            assert scene.counts.errors == []
            assert scene.counts.refused_since(since_s) <= 12
            alive = [r for n, r in enumerate(scene.replicas) if n not in scene.dead]
            assert sorted(r.state.value for r in alive) == ["following"] * (len(alive) - 1) + ["leading"]

    in_fleet(run, 4, clocks_off_s=1_000_000.0)


def test_a_new_replica_does_not_lead_apart_after_the_clock_of_redis_was_set_back() -> None:
    """Its epoch is smaller than the one that the others know, so they ignore its beats."""

    async def run(scene: FleetScene) -> None:
        scene.redis.stop()
        await asyncio.sleep(2.0)
        scene.redis.flush_all()
        scene.redis.clock_off_s = -3600.0
        for bus in scene.buses:
            bus.is_cut = True
        scene.redis.come_back()
        await scene.add().start(1.0)
        assert scene.replicas[-1].state is State.LEADING
        for bus in scene.buses:
            bus.is_cut = False
        await asyncio.sleep(5.0)
        assert sorted(replica.state.value for replica in scene.replicas) == ["following"] * 3 + ["leading"]
        assert {replica.replicas for replica in scene.replicas} == {4}

    in_fleet(run)


@pytest.mark.parametrize("delay_s", [0.01, 0.02, 0.03, 0.045, 0.1])
def test_a_slow_redis_costs_few_429s_and_no_caller_an_error(delay_s: float) -> None:
    """Messages and commands take `delay_s` in each direction."""

    async def run(scene: FleetScene) -> None:
        since_s, before = scene.loop.time(), len(scene.counts.served_at_s)
        scene.redis.delay_s = delay_s
        await asyncio.sleep(30.0)
        assert scene.counts.errors == []
        assert scene.counts.refused_since(since_s) <= 20
        assert len(scene.counts.served_at_s) - before >= 0.85 * 300

    in_fleet(run)


def test_a_restart_while_redis_is_away_keeps_to_the_share_of_one_replica() -> None:
    async def run(scene: FleetScene) -> None:
        scene.redis.stop()
        await asyncio.sleep(8.0)
        since_s = scene.loop.time()
        document = json.loads(json.dumps(give(scene.replicas[0], scene.loop.time())))
        new = scene.add()
        take(new, document, scene.loop.time())
        await new.start(0.0)
        for task in scene.tasks[4:8]:
            task.cancel()
        scene.callers(3, 4, "new")
        await asyncio.sleep(12.0)
        for task in scene.tasks[:4]:
            task.cancel()
        await asyncio.gather(*scene.tasks[:4], return_exceptions=True)
        scene.dead.add(0)
        scene.replicas[0].room.close()
        await scene.replicas[0].stop()
        await asyncio.sleep(new.own.longest_period_s)
        new.use_part(1)
        await asyncio.sleep(8.0)
        sent = [at_s for at_s, _ in scene.counts.sent if at_s > since_s]
        assert all(later - at_s > 3.9 for at_s, later in zip(sent, sent[41:], strict=False))
        assert len(sent) > 190
        assert {scene.replicas[n].replicas for n in (1, 2, 3)} == {3}
        assert {scene.replicas[n].state for n in (1, 2, 3)} == {State.ALONE}
        scene.redis.come_back()
        await asyncio.sleep(3.0)
        assert sorted(scene.replicas[n].state.value for n in (1, 2, 3)) == ["following"] * 2 + ["leading"]

    in_fleet(run)


# --- what a leader counts -----------------------------------------------------------------------------


def counted(scene: FleetScene) -> float:
    """Returns how many requests count at the leader."""
    scopes = list(scene.replicas[scene.leader].gate().scopes)
    return sum(scope.limit.estimate.window.granted_since(0.0) for scope in scopes)


async def cut_off(scene: FleetScene, number: int, for_s: float) -> None:
    """Cuts the connection of a replica."""
    bus = scene.buses[number]
    bus.is_cut = True
    bus.lose("connection lost")
    await asyncio.sleep(for_s)
    bus.is_cut = False


@pytest.mark.parametrize(("is_refused", "count"), [(True, 2), (False, 3)])
def test_a_429_that_a_leader_did_not_hear_of_does_not_count_there(count: int, *, is_refused: bool) -> None:
    async def main() -> None:
        scene = FleetScene(2, FixedWindow(2, 60.0) if is_refused else None, service_s=0.3)
        await scene.start()
        await asyncio.sleep(1.0)
        number = follower(scene)
        tasks = [scene.loop.create_task(scene.request(number, f"c{n}")) for n in range(3)]
        await asyncio.sleep(0.005)
        await cut_off(scene, number, 0.6)
        await asyncio.sleep(1.0)
        assert scene.replicas[number].state is State.FOLLOWING
        assert len(scene.counts.refused_at_s) == is_refused
        assert counted(scene) == count
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await scene.stop()

    run_virtually(main())


def test_a_log_that_is_told_twice_counts_once() -> None:
    """The leader stood still, so its welcome came too late."""

    async def main() -> None:
        scene = FleetScene(2, None)
        await scene.start()
        await asyncio.sleep(1.0)
        number = follower(scene)
        bus = scene.buses[number]
        bus.is_cut = True
        bus.lose("connection lost")
        await asyncio.gather(*(scene.request(number, f"c{n}") for n in range(5)))
        welcomes = 0

        def passes(data: bytes) -> bool:
            nonlocal welcomes
            is_welcome = b'"t":"welcome"' in data
            welcomes += is_welcome
            return not is_welcome or welcomes > 1

        bus.passes = passes
        bus.is_cut = False
        await asyncio.sleep(1.5)
        assert welcomes == 2
        assert scene.replicas[number].state is State.FOLLOWING
        assert counted(scene) == 5
        await scene.stop()

    run_virtually(main())


def test_a_leader_forgets_a_dead_replica_with_its_first_message_to_it() -> None:
    """A probe that is granted to a dead replica would count as accepted, since no 429 comes back."""

    async def main() -> None:
        scene = FleetScene(3, FixedWindow(40, 4.0))
        await scene.start()
        for number in range(3):
            scene.callers(number, 8, f"r{number}c")
        await asyncio.sleep(2.4)
        since_s = scene.loop.time()
        scene.kill(follower(scene))
        await asyncio.sleep(3.0)
        assert scene.counts.refused_since(since_s) <= 8
        await asyncio.sleep(10.0)
        assert scene.counts.errors == []
        await scene.stop()

    run_virtually(main())


async def renew_in_vain(*_: object) -> None:
    raise BusError("LOADING Redis is loading the dataset in memory")


def test_a_replica_that_campaigns_in_vain_keeps_what_it_has_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wins the lease again and again, and loses it with its first beat."""

    async def main() -> None:
        scene = FleetScene(1, FixedWindow(40, 4.0))
        monkeypatch.setattr(scene.buses[0], "renew", renew_in_vain)
        await scene.start()
        scene.callers(0, 24)
        replica = scene.replicas[0]
        await asyncio.sleep(5.0)
        gate, changes = replica.gate(), len(scene.changes)
        await asyncio.sleep(20.0)
        assert len(scene.changes) > changes + 20
        assert replica.gate() is gate
        (scope,) = gate.scopes
        assert (scope.limit.estimate.window.count, scope.limit.estimate.window.period_s) == (40, 4.0)
        await scene.stop()

    run_virtually(main())


def test_nobody_leads_at_a_redis_that_is_slow() -> None:
    """The replicas would join a leader and leave it again and again, each time with a share beside its grants."""

    async def main() -> None:
        scene = FleetScene(3, FixedWindow(40, 4.0))
        scene.redis.delay_s = 0.045
        await scene.start()
        for number in range(3):
            scene.callers(number, 8, f"r{number}c")
            for later in range(100):
                scene.loop.call_later(0.2 * later, scene.processes[number].stand_still, 0.06 + 0.01 * number)
        await asyncio.sleep(20.0)
        assert all(state in (State.ALONE, State.COLLECTING) for _, _, state, _ in scene.changes)
        assert scene.redis.campaigns > 20
        scene.redis.delay_s = 0.0003
        await asyncio.sleep(10.0)
        assert scene.leader >= 0
        assert scene.counts.errors == []
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("delay_s", [0.0, 0.045, 0.1])
def test_a_replica_that_never_leads_uses_the_limits_that_the_last_leader_kept(
    monkeypatch: pytest.MonkeyPatch, delay_s: float
) -> None:
    """It campaigns in vain, as in the two tests above, and reads them with its first lease."""

    async def main() -> None:
        before = FleetScene(1, FixedWindow(40, 4.0))
        await before.start()
        before.callers(0, 24)
        await asyncio.sleep(24.0)
        await before.stop()
        scene = FleetScene(1, FixedWindow(40, 4.0))
        scene.redis.kept["kept"] = before.redis.kept["kept"][0], scene.loop.time()
        scene.redis.delay_s = delay_s
        monkeypatch.setattr(scene.buses[0], "renew", renew_in_vain)
        await scene.start()
        scene.callers(0, 24)
        await asyncio.sleep(20.0)
        assert scene.leader == -1
        assert scene.counts.refused_at_s == []
        assert len(scene.counts.served_at_s) >= 190
        await scene.stop()

    run_virtually(main())
