"""What a replica tells the others of closures, in virtual time: it must never close a scope that is open again."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from unittest.mock import Mock

import pytest

from nanonets_proxy.admission.fleet.bequest import give, take
from nanonets_proxy.admission.fleet.homes.maker import HomeMaker
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.news import News
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.errors import ProxyError
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

DAY_S = 86_400.0
POLICY = GatePolicy(256, 1000, max_wait_s=270.0)


async def send(
    scene: FleetScene, number: int, outcome: Outcome, hint_s: float | None = None, *, quota_used_up: bool = False
) -> None:
    """Sends one request of a replica, which waits at most 30 s. Raises the error of the proxy."""
    room = scene.replicas[number].room
    ticket = Ticket("account", scene.loop.time() + 30.0, "caller", kind="/x")
    if not room.try_admit(ticket, scene.loop.time()):
        future = room.enter(ticket, scene.loop.time())
        if future is not None:
            await future
    await asyncio.sleep(0.02)
    room.settle(ticket, outcome, hint_s, quota_used_up=quota_used_up)


async def first_served_s(scene: FleetScene, number: int, most_s: float) -> float:
    """Returns after how long a replica has a request served, if one comes each 10 s."""
    began_s = scene.loop.time()
    while scene.loop.time() - began_s < most_s:
        try:
            await send(scene, number, Outcome.SERVED)
        except ProxyError:
            await asyncio.sleep(10.0)
        else:
            return scene.loop.time() - began_s
    return most_s


def in_fleet(test: Callable[[FleetScene], Awaitable[None]], policy: GatePolicy = POLICY) -> None:
    async def main() -> None:
        scene = FleetScene(2, None, policy)
        await scene.start()
        await asyncio.sleep(1.0)
        await test(scene)
        await scene.stop()

    run_virtually(main())


def follower_of(scene: FleetScene) -> int:
    return next(n for n, replica in enumerate(scene.replicas) if replica.state is State.FOLLOWING)


@pytest.mark.parametrize("is_leader", [True, False])
@pytest.mark.parametrize("fault", ["leader dies", "leader stops", "redis is away"])
def test_a_used_up_quota_is_tested_again_within_minutes_after_a_change_of_leader(
    fault: str, *, is_leader: bool
) -> None:
    """As without a fleet: the hint of a day may be wrong, or the quota was raised."""

    async def run(scene: FleetScene) -> None:
        leader, follower = scene.leader, follower_of(scene)
        await send(scene, leader if is_leader else follower, Outcome.THROTTLED, DAY_S, quota_used_up=True)
        if fault == "leader dies":
            scene.kill(leader)
        elif fault == "leader stops":
            scene.dead.add(leader)
            scene.replicas[leader].room.close()
            await scene.replicas[leader].stop()
        else:
            scene.redis.stop()
            await asyncio.sleep(5.0)
            scene.redis.come_back()
        await asyncio.sleep(3.0)
        assert await first_served_s(scene, follower, 300.0) < 100.0

    in_fleet(run)


def test_a_quota_that_was_used_up_without_redis_is_tested_again_once_redis_is_back() -> None:
    async def run(scene: FleetScene) -> None:
        scene.redis.stop()
        await asyncio.sleep(1.0)
        assert {replica.state for replica in scene.replicas} == {State.ALONE}
        for number in range(2):
            await send(scene, number, Outcome.THROTTLED, DAY_S, quota_used_up=True)
        scene.redis.come_back()
        await asyncio.sleep(3.0)
        assert await first_served_s(scene, follower_of(scene), 300.0) < 100.0

    in_fleet(run)


def test_a_closure_that_ended_early_without_redis_does_not_come_back_with_redis() -> None:
    async def run(scene: FleetScene) -> None:
        scene.redis.stop()
        await asyncio.sleep(1.0)
        for number in range(2):
            await send(scene, number, Outcome.THROTTLED, 200.0, quota_used_up=True)
        for number in range(2):
            assert await first_served_s(scene, number, 300.0) < 100.0
        scene.redis.come_back()
        await asyncio.sleep(3.0)
        assert await first_served_s(scene, follower_of(scene), 300.0) < 1.0

    in_fleet(run)


def test_a_leader_that_is_deposed_does_not_close_again_what_it_has_opened() -> None:
    async def run(scene: FleetScene) -> None:
        leader, follower = scene.leader, follower_of(scene)
        await send(scene, leader, Outcome.THROTTLED, 200.0, quota_used_up=True)
        assert await first_served_s(scene, leader, 300.0) < 100.0
        scene.buses[leader].is_cut = True
        await asyncio.sleep(5.0)
        assert scene.replicas[follower].state is State.LEADING
        scene.buses[leader].is_cut = False
        await asyncio.sleep(3.0)
        assert scene.replicas[leader].state is State.FOLLOWING
        assert await first_served_s(scene, follower, 300.0) < 1.0

    in_fleet(run)


def test_a_gate_that_was_replaced_reports_no_more_news() -> None:
    """It knows only the requests from before, so its lessons would be wrong ones in the log and in alarms."""

    async def main() -> None:
        loop, news = asyncio.get_running_loop(), list[News]()
        home = HomeMaker(loop, lambda: 0.0, news.append, lambda: 0.0).of(Gate(POLICY, lambda: 0.0))
        ticket = Ticket("account", loop.time() + 30.0)
        assert home.room.try_admit(ticket, loop.time())
        home.room.settle(ticket, Outcome.THROTTLED, 4.0)
        home.close()
        await asyncio.sleep(10.0)
        assert news == []

    run_virtually(main())


def test_a_grant_that_is_told_again_frees_no_permit_in_use() -> None:
    """A follower whose process stood still tells that it waits, before it reads the grant."""

    async def run(scene: FleetScene) -> None:
        leader, follower = scene.leader, follower_of(scene)
        scene.service_s = 2.0
        scene.tasks += [scene.loop.create_task(scene.request(follower, f"c{number}")) for number in range(2)]
        await asyncio.sleep(0.8)
        bus, unread = scene.buses[follower], list[bytes]()
        read, bus._on_message = bus._on_message, unread.append
        assert read is not None
        await asyncio.sleep(0.9)
        assert sum(b'"t":"grant"' in data for data in unread) == 2
        bus._on_message = read
        for data in unread:
            read(data)
        await asyncio.sleep(0.1)
        assert scene.replicas[follower].room.in_flight == 2
        assert scene.replicas[leader].gate().in_flight == 2

    in_fleet(run, GatePolicy(256, 1000, static_limits=StaticLimits((StaticLimit("account", 1, 1.0),))))


@pytest.mark.parametrize("away_s", [5.0, 40.0])
def test_a_process_that_replaces_another_one_keeps_to_the_rest_of_a_closure(away_s: float) -> None:
    """Redis is away meanwhile, so only the earlier process can tell of it."""

    async def run(scene: FleetScene) -> None:
        scene.redis.stop()
        await asyncio.sleep(1.0)
        await send(scene, 0, Outcome.THROTTLED, 30.0)
        document, heir = json.loads(json.dumps(give(scene.replicas[0], scene.loop.time()))), scene.add()
        await asyncio.sleep(away_s)
        take(heir, document, scene.loop.time())
        await heir.start(0.0)
        assert await first_served_s(scene, 2, 60.0) == pytest.approx(max(0.0, 30.0 - away_s), abs=0.5)

    in_fleet(run)


def test_requests_of_the_earlier_process_close_no_scope_at_the_new_one() -> None:
    async def run(scene: FleetScene) -> None:
        await send(scene, 0, Outcome.SERVED)
        document, heir = give(scene.replicas[0], scene.loop.time()), scene.add()
        await asyncio.sleep(1.0)
        take(heir, document, scene.loop.time())
        tickets = [Ticket("account", scene.loop.time() + 30.0, "caller") for _ in range(3)]
        assert all(heir.room.try_admit(ticket, scene.loop.time()) for ticket in tickets)

    in_fleet(run)


@pytest.mark.parametrize("leads", [True, False])
def test_a_refusal_while_a_replica_gathers_the_others_closes_the_scope(*, leads: bool) -> None:
    """The leader has resigned, so neither a leader nor a gate of this replica decides on the request."""

    async def main() -> None:
        scene = FleetScene(3, None, POLICY)
        await scene.start()
        await asyncio.sleep(1.0)
        leader, (first, second) = scene.leader, (n for n in range(3) if n != scene.leader)
        scene.replicas[second].campaign.run = Mock()  # type: ignore[method-assign] # the first one wins
        replica, loop = scene.replicas[first], scene.loop
        ticket = Ticket("account", loop.time() + 30.0, "caller")
        future = replica.room.enter(ticket, loop.time())
        assert future is not None
        await future
        scene.buses[second].is_cut = True  # so that the first one waits for it
        scene.dead.add(leader)
        scene.replicas[leader].room.close()
        await scene.replicas[leader].stop()
        await asyncio.sleep(0.3)
        assert replica.state is State.COLLECTING
        replica.room.settle(ticket, Outcome.THROTTLED, 20.0)
        refused_s = loop.time()
        if not leads:
            scene.redis.stop()
        await asyncio.sleep(1.0)
        assert replica.state is (State.LEADING if leads else State.ALONE)
        await first_served_s(scene, first, 60.0)
        assert loop.time() - refused_s == pytest.approx(20.0, abs=0.5)
        await scene.stop()

    run_virtually(main())


def test_a_replica_whose_hello_is_lost_still_knows_its_closures() -> None:
    async def run(scene: FleetScene) -> None:
        number = follower_of(scene)
        bus, replica = scene.buses[number], scene.replicas[number]
        bus.is_cut = True
        bus.lose("connection lost")
        await send(scene, number, Outcome.THROTTLED, 20.0)
        refused_s = scene.loop.time()
        scene.buses[scene.leader].passes = lambda data: b'"t":"hello"' not in data
        bus.is_cut = False
        await asyncio.sleep(1.0)
        bus.is_cut = True
        bus.lose("connection lost")
        assert [state for _, n, state, _ in scene.changes if n == number].count(State.FOLLOWING) == 1
        assert replica.state is State.ALONE
        await first_served_s(scene, number, 60.0)
        assert scene.loop.time() - refused_s == pytest.approx(20.0, abs=0.5)

    in_fleet(run)
