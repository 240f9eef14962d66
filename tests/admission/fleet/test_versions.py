"""Replicas of two versions of the protocol, as while a fleet is upgraded step by step."""

import asyncio
import math
from collections.abc import Callable
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from fleet.redis_server import RedisServer
from nanonets_proxy.admission.fleet.bus.post import seal
from nanonets_proxy.admission.fleet.lead import OTHER_VERSION
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.app.environment.fleet import Fleet
from nanonets_proxy.core.net.redis_address import RedisAddress
from nanonets_proxy.core.ratelimit.fleet.policy import PROTOCOL, FleetPolicy
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.telemetry.alerts import Alerts
from simulator.limiters import FixedWindow, Limiter, SlidingLog
from support import eventually
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually


async def _stop(scene: FleetScene, number: int) -> None:
    """Ends a replica with its four callers."""
    for task in scene.tasks[4 * number : 4 * number + 4]:
        task.cancel()
    await asyncio.sleep(0)
    scene.replicas[number].room.close()
    scene.dead.add(number)
    await scene.replicas[number].stop()


async def _stay_ready(*scenes: FleetScene) -> None:
    """Ends if a replica that has met its fleet would be unready, with `coordination_required`."""
    lost_s = 0.0
    while lost_s < 2.5:
        await asyncio.sleep(0.02)
        living = [r for scene in scenes for n, r in enumerate(scene.replicas) if n not in scene.dead]
        lost_s = max(r.uncoordinated_for_s for r in living if r.uncoordinated_for_s < math.inf)


@pytest.mark.parametrize("limiter", [lambda: FixedWindow(40, 4.0), lambda: SlidingLog(40, 4.0)])
def test_an_upgrade_step_by_step_costs_few_429s_and_loses_no_limit(limiter: Callable[[], Limiter]) -> None:
    """Two fleets that both learn took each other's requests for a change of the limit."""

    async def main() -> None:
        limit = limiter()
        old = FleetScene(3, limit)
        new = FleetScene(0, limit, seed=2, redis=old.redis.other_version())
        await old.start()
        for number in range(3):
            old.callers(number, 4, f"old{number}c")
        await asyncio.sleep(60.0)
        since_s, before = old.loop.time(), len(old.counts.served_at_s)
        old.tasks.append(asyncio.ensure_future(_stay_ready(old, new)))
        for number in range(3):
            await new.add().start(1.0)
            new.callers(number, 4, f"new{number}c")
            await asyncio.sleep(20.0)
            assert State.LEADING not in {replica.state for replica in (*old.replicas, *new.replicas)}
            await _stop(old, number)
            await asyncio.sleep(5.0)
        elapsed_s = old.loop.time() - since_s
        served = len(old.counts.served_at_s) - before + len(new.counts.served_at_s)
        assert served >= 0.9 * 10 * elapsed_s
        assert old.counts.refused_since(since_s) + new.counts.refused_since(since_s) <= 40
        assert sorted(replica.state.value for replica in new.replicas) == ["following", "following", "leading"]
        since_s, before = new.loop.time(), len(new.counts.served_at_s)
        await asyncio.sleep(40.0)
        assert not old.tasks[-1].done()
        assert len(new.counts.served_at_s) - before >= 0.97 * 400
        assert new.counts.refused_since(since_s) <= 20
        assert old.counts.errors == new.counts.errors == []
        await new.stop()
        await old.stop()

    run_virtually(main())


def test_an_upgrade_of_all_replicas_at_once_keeps_the_limit() -> None:
    async def main() -> None:
        limit = FixedWindow(40, 4.0)
        old = FleetScene(3, limit)
        await old.start()
        for number in range(3):
            old.callers(number, 4, f"old{number}c")
        await asyncio.sleep(60.0)
        for number in range(3):
            await _stop(old, number)
        await asyncio.sleep(3.0)
        new = FleetScene(3, limit, seed=2, redis=old.redis.other_version())
        await new.start()
        (scope,) = new.replicas[new.leader].gate().scopes
        assert (scope.limit.estimate.window.count, round(scope.limit.estimate.window.period_s)) == (40, 4)
        await new.stop()

    run_virtually(main())


def test_while_two_versions_are_here_a_dead_replica_leaves_its_share_to_the_others() -> None:
    """Also the one that speaks for its version, and also if Redis is away for a while."""

    async def main() -> None:
        limit = FixedWindow(40, 4.0)
        old = FleetScene(2, limit)
        new = FleetScene(0, limit, seed=2, redis=old.redis.other_version())
        await old.start()
        for number in range(2):
            old.callers(number, 4, f"old{number}c")
        await asyncio.sleep(60.0)
        for number in range(2):
            await new.add().start(1.0)
            new.callers(number, 4, f"new{number}c")
        await asyncio.sleep(5.0)
        assert [(r.own.replicas, r.own.others) for r in (*old.replicas, *new.replicas)] == [(2, 2)] * 4
        speaker = next(n for n, replica in enumerate(new.replicas) if replica.state is State.COLLECTING)
        new.kill(speaker)
        await asyncio.sleep(8.0)
        (left,) = (replica for n, replica in enumerate(new.replicas) if n != speaker)
        assert left.state is State.COLLECTING
        assert [(r.own.replicas, r.own.others) for r in old.replicas] == [(2, 1)] * 2
        assert (left.own.replicas, left.own.others) == (1, 2)
        assert left.is_coordinated
        for redis in (old.redis, new.redis):
            redis.stop()
        await asyncio.sleep(3.0)
        assert not left.is_coordinated
        for redis in (old.redis, new.redis):
            redis.come_back()
        await asyncio.sleep(3.0)
        assert (left.own.replicas, left.own.others) == (1, 2)
        assert old.counts.errors == new.counts.errors == []
        await new.stop()
        await old.stop()

    run_virtually(main())


def test_while_two_versions_are_here_a_replica_that_dies_is_no_longer_counted() -> None:
    async def main() -> None:
        old = FleetScene(3, None)
        new = FleetScene(1, None, redis=old.redis.other_version())
        for scene in (old, new):
            await scene.start()
        await asyncio.sleep(3.0)
        replicas = (*old.replicas, *new.replicas)
        assert [(r.own.replicas, r.own.others) for r in replicas] == [(3, 1)] * 3 + [(1, 3)]
        old.kill(next(n for n, replica in enumerate(old.replicas) if replica.state is State.ALONE))
        await asyncio.sleep(6.0)
        living = [replica for n, replica in enumerate(old.replicas) if n not in old.dead]
        assert [(r.own.replicas, r.own.others) for r in (*living, *new.replicas)] == [(2, 1)] * 2 + [(1, 2)]
        for scene in (old, new):
            await scene.stop()

    run_virtually(main())


def test_with_two_versions_each_replica_names_the_cause_and_the_one_that_gathers_can_use_a_part() -> None:
    async def main() -> None:
        limit = FixedWindow(40, 4.0)
        old = FleetScene(2, limit)
        await old.start()
        old.callers(0, 4)
        await asyncio.sleep(30.0)
        new = FleetScene(0, limit, seed=2, redis=old.redis.other_version())
        await new.add().start(1.0)

        def causes() -> list[str]:
            return [[reason for _, n, _, reason in old.changes if n == number][-1] for number in range(2)]

        await asyncio.sleep(5.0)
        assert causes() == [OTHER_VERSION] * 2
        for redis in (old.redis, new.redis):
            redis.stop()
        await asyncio.sleep(1.0)
        assert OTHER_VERSION not in causes()
        for redis in (old.redis, new.redis):
            redis.come_back()
        await asyncio.sleep(5.0)
        assert causes() == [OTHER_VERSION] * 2
        (speaker,) = (replica for replica in old.replicas if replica.state is State.COLLECTING)

        def requests_in_4_s() -> float:
            (row,) = speaker.own.share().static_limits.named.values()
            (scope,) = speaker.gate().scopes
            assert scope.limit.estimate.window.count == row.count
            return 4.0 * row.count / row.period_s

        whole = requests_in_4_s()
        speaker.use_part(2)
        assert requests_in_4_s() <= 0.5 * whole
        await new.stop()
        await old.stop()

    run_virtually(main())


@pytest.mark.system
async def test_over_a_real_redis_replicas_of_two_versions_share_and_are_ready(redis: RedisServer) -> None:
    """A replica that is not ready would hold up the upgrade."""
    limits = StaticLimits((StaticLimit("account", 12, 600.0),))
    gate = GatePolicy(max_in_flight=100, max_waiting=100, static_limits=limits)

    def make(protocol: int) -> Fleet:
        address = RedisAddress.parse(redis.url)
        policy = FleetPolicy(address, "a", required=True, protocol=protocol)
        return Fleet(policy, gate, lambda _: None, Alerts(None), {})

    def granted(fleet: Fleet) -> int:
        """Returns how many of 20 requests need not wait."""
        now_s, count = asyncio.get_running_loop().time(), 0
        for _ in range(20):
            ticket = Ticket("account", now_s + 60.0, "c")
            if fleet.room.try_admit(ticket, now_s):
                fleet.room.settle(ticket, Outcome.SERVED)
                count += 1
        return count

    old, other, new = make(PROTOCOL), make(PROTOCOL), make(PROTOCOL + 1)
    await old.start()
    await other.start()
    assert old.gauges(0.0)["nanonets_proxy_fleet_coordinated"] == 1.0
    await new.start()
    await eventually.until(lambda: old.gauges(0.0)["nanonets_proxy_fleet_coordinated"] == 0.0)
    await eventually.until(lambda: other.gauges(0.0)["nanonets_proxy_fleet_coordinated"] == 0.0)
    await eventually.until(lambda: {f.not_ready_reason() for f in (old, other, new)} == {None})
    sides = [fleet._replica.own for fleet in (old, other, new)]
    await eventually.until(
        lambda: {side.replicas + side.others for side in sides} == {3}
    )  # a beat tells the others
    assert [granted(fleet) for fleet in (old, other, new)] == [4, 4, 4]
    await old.stop()
    await other.stop()
    await eventually.until(lambda: new.gauges(0.0)["nanonets_proxy_fleet_coordinated"] == 1.0)
    assert granted(new) == 8
    await new.stop()


@pytest.mark.parametrize("kept", [b'{"limits": {"version": 2}}', b'{"limits": 1}', b"not JSON", b"{}"])
def test_limits_of_another_release_in_redis_are_ignored_and_logged_once(kept: bytes) -> None:
    """They would come back after an upgrade of all replicas at once. Learning them again costs 429s."""

    async def main() -> None:
        scene = FleetScene(1, None)
        scene.redis.kept["kept"] = kept, scene.loop.time()
        scene.redis.delay_s = 0.045
        await scene.start()
        await asyncio.sleep(5.0)
        assert scene.redis.campaigns > 10, "it takes the lease in vain, again and again"
        scene.redis.delay_s = 0.0
        await asyncio.sleep(2.0)
        assert scene.leader == 0
        await scene.request(0, "caller")
        await scene.stop()

    with capture_logs() as events:
        run_virtually(main())
    assert [event["event"] for event in events] == ["fleet_limits_ignored"]


def test_a_replica_that_waits_for_the_next_leader_decides_once_another_version_is_here() -> None:
    async def main() -> None:
        scene = FleetScene(3, None)
        await scene.start()
        await asyncio.sleep(1.0)
        leader, (replica, _) = scene.leader, (r for r in scene.replicas if r.state is not State.LEADING)
        for each in scene.replicas:
            each.campaign.run = Mock()  # type: ignore[method-assign] # nobody wins
        scene.dead.add(leader)
        scene.replicas[leader].room.close()
        await scene.replicas[leader].stop()
        await asyncio.sleep(0.05)
        assert replica.state is State.JOINING
        position = replica.position
        beat = {
            "t": "beat",
            "replicas": 2,
            "gathers": True,
            "others": 1,
            "told": replica.beliefs.told(scene.loop.time()),
        }
        replica._inbox.deliver(seal("r9", position.epoch + 1, scene.loop.time(), [beat]))
        assert replica.state is State.ALONE
        assert replica.is_coordinated
        assert [reason for *_, reason in scene.changes][-1] == OTHER_VERSION
        await scene.stop()

    run_virtually(main())
