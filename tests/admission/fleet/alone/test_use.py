"""A replica that loses its leader knows what the fleet has used of the limit, besides its own part."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from simulator.limiters import SlidingLog
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

LIMIT = StaticLimit("account", 40, 4.0)


def in_fleet(
    test: Callable[[FleetScene], Awaitable[None]],
    service_s: float = 0.1,
    limit: StaticLimit = LIMIT,
) -> None:
    """Runs a test with three replicas, before a limit that admits exactly what the policy says."""

    async def main() -> None:
        policy = GatePolicy(max_in_flight=256, max_waiting=10_000, static_limits=StaticLimits((limit,)))
        limiter = SlidingLog(int(limit.count), limit.period_s - 0.01)
        scene = FleetScene(3, limiter, policy, service_s=service_s)
        await scene.start()
        await test(scene)
        await scene.stop()

    run_virtually(main())


def followers(scene: FleetScene) -> list[int]:
    return [number for number in range(3) if number != scene.leader]


async def _lose_redis(scene: FleetScene) -> None:
    scene.redis.stop()


async def _lose_the_leader(scene: FleetScene) -> None:
    scene.kill(scene.leader)


@pytest.mark.parametrize("lose", [_lose_redis, _lose_the_leader])
@pytest.mark.parametrize("is_leader", [True, False])
def test_what_another_replica_has_used_is_not_sent_again(
    lose: Callable[[FleetScene], Awaitable[None]], *, is_leader: bool
) -> None:
    async def run(scene: FleetScene) -> None:
        user, *others = [scene.leader, *followers(scene)] if is_leader else [*followers(scene), scene.leader]
        scene.callers(user, 20, "first")
        await asyncio.sleep(9.0)  # the window of 8 to 12 s is used up
        assert scene.counts.refused_at_s == []
        await lose(scene)
        for number in others:
            if number not in scene.dead:
                scene.callers(number, 20, f"r{number}c")
        await asyncio.sleep(12.0)
        assert scene.counts.refused_at_s == []

    in_fleet(run)


@pytest.mark.parametrize("used", [10, 25])
def test_what_is_left_of_the_limit_is_used_by_all(used: int) -> None:
    """One replica has used less than its share, or more. It may send a third of what is left."""

    async def run(scene: FleetScene) -> None:
        user, *_ = followers(scene)
        await asyncio.gather(*(scene.request(user, "caller") for _ in range(used)))
        await asyncio.sleep(0.5)
        scene.redis.stop()
        scene.callers(user, 20)
        await asyncio.sleep(0.3)
        assert len(scene.counts.sent) - used == pytest.approx((40 - used) / 3, abs=1)

    in_fleet(run)


@pytest.mark.parametrize("service_s", [0.1, 9.0])
def test_requests_in_flight_count_once(service_s: float) -> None:
    async def run(scene: FleetScene) -> None:
        user, *_ = followers(scene)
        scene.tasks += [scene.loop.create_task(scene.request(user, "caller")) for _ in range(10)]
        await asyncio.sleep(1.0)
        scene.redis.stop()
        scene.callers(user, 20)
        await asyncio.sleep(0.3)
        assert len(scene.counts.sent) - 10 == pytest.approx(30 / 3, abs=1)

    in_fleet(run, service_s)


def test_no_replica_stands_still_where_thousands_are_admitted_in_a_period() -> None:
    """Callers use 80 % of the limit. All their grants must not count as if they were young."""

    async def run(scene: FleetScene) -> None:
        for number in range(3):
            scene.callers(number, 7, f"r{number}c", pause_s=0.9)
        await asyncio.sleep(90.0)
        since_s = scene.loop.time()
        scene.redis.stop()
        await asyncio.sleep(70.0)
        for replica in range(3):
            sent = [at_s for at_s, number in scene.counts.sent if number == replica and at_s >= since_s]
            assert max(later - at_s for at_s, later in pairwise(sent)) < 5.0

    in_fleet(run, limit=StaticLimit("account", 1500, 60.0))
