"""What a follower and its leader make of each other's messages about one request, in virtual time."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from nanonets_proxy.admission.fleet.bus.post import unseal
from nanonets_proxy.admission.fleet.homes.claim import OwnClaim
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.scopes.static_limits import MAX_PERIOD_S, PAGES, StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason, Ticket
from nanonets_proxy.errors import LargerThanLimit, ProxyError
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually


def in_fleet(test: Callable[[FleetScene, int], Awaitable[None]], *limits: StaticLimit) -> None:
    """Runs a test in a fleet of two, with the number of its follower."""

    async def main() -> None:
        scene = FleetScene(2, None, GatePolicy(256, 1000, static_limits=StaticLimits(limits)))
        await scene.start()
        await asyncio.sleep(1.0)
        await test(scene, 1 - scene.leader)
        await scene.stop()

    run_virtually(main())


async def entered(scene: FleetScene, number: int, *, wait_s: float = 100.0, cost: float = 1) -> Ticket:
    """Returns the ticket of a request with a permit. Raises its rejection."""
    room, now_s = scene.replicas[number].room, scene.loop.time()
    ticket = Ticket("account", now_s + wait_s, "c", cost=cost)
    if (future := room.enter(ticket, now_s)) is not None:
        await future
    return ticket


async def rejection(scene: FleetScene, number: int, *, wait_s: float = 100.0, cost: float = 1) -> ProxyError:
    with pytest.raises(ProxyError) as found:
        await entered(scene, number, wait_s=wait_s, cost=cost)
    return found.value


def test_a_request_with_more_pages_than_the_limit_gets_the_same_error_at_a_follower() -> None:
    async def test(scene: FleetScene, follower: int) -> None:
        for number in (scene.leader, follower):
            assert isinstance(await rejection(scene, number, cost=20), LargerThanLimit)
        assert scene.replicas[follower].state is State.FOLLOWING  # the leader has answered

    in_fleet(test, StaticLimit("account", 10, 1.0, PAGES))


@pytest.mark.parametrize("period_s", [60.0, MAX_PERIOD_S])
def test_a_rejection_has_the_same_reason_and_place_at_a_follower(period_s: float) -> None:
    """Its `Retry-After` has the bound of the message."""

    async def test(scene: FleetScene, follower: int) -> None:
        await entered(scene, follower)
        tasks = [scene.loop.create_task(entered(scene, follower, wait_s=4 * period_s)) for _ in range(2)]
        await asyncio.sleep(0.1)
        for number, most_s in ((scene.leader, math.inf), (follower, MAX_PERIOD_S)):
            error = await rejection(scene, number, wait_s=period_s)
            assert error.details == {"reason": Reason.CANNOT_BE_IN_TIME.value, "position": 3}
            assert error.retry_after_s == pytest.approx(min(3 * period_s, most_s), rel=0.1)
        for task in tasks:
            task.cancel()

    in_fleet(test, StaticLimit("account", 1, period_s))


@pytest.mark.parametrize("limit", [None, StaticLimit("account", 5, 10.0)])
def test_what_a_response_announces_to_a_follower_applies_at_the_leader(limit: StaticLimit | None) -> None:
    async def test(scene: FleetScene, follower: int) -> None:
        ticket, room = await entered(scene, follower), scene.replicas[follower].room
        room.note_advice(ticket, Advice(0, 5.0, limit))
        room.settle(ticket, Outcome.SERVED)
        since_s = scene.loop.time()
        await asyncio.sleep(0.01)
        await entered(scene, scene.leader)
        assert scene.loop.time() - since_s == pytest.approx(5.0, abs=0.1)
        (scope,) = scene.replicas[scene.leader].gate().scopes
        assert scope.limit.estimate.window.count == (math.inf if limit is None else 5)

    in_fleet(test)


def test_a_request_that_is_asked_for_again_while_it_waits_gets_no_permit_of_its_own() -> None:
    """Two messages `lost` may cross its question."""

    async def test(scene: FleetScene, follower: int) -> None:
        room, now_s = scene.replicas[follower].room, scene.loop.time()
        await entered(scene, follower)
        ticket = Ticket("account", now_s + 100.0, "c")
        future = room.enter(ticket, now_s)
        await asyncio.sleep(0.01)
        remote, claim = scene.replicas[follower].position.remote, ticket.claim
        assert remote is not None
        assert isinstance(claim, OwnClaim)
        remote.enter(claim, scene.loop.time())
        await asyncio.sleep(0.01)
        assert future is not None
        assert not future.done()
        await future
        assert scene.loop.time() - now_s == pytest.approx(60.0, abs=0.1)

    in_fleet(test, StaticLimit("account", 1, 60.0))


def test_a_request_of_a_follower_costs_three_messages() -> None:
    async def test(scene: FleetScene, follower: int) -> None:
        kinds: list[str] = []

        def passes(data: bytes) -> bool:
            kinds.extend(message["t"] for message in unseal(data).messages)
            return True

        for bus in scene.buses:
            bus.passes = passes
        await scene.request(follower, "c")
        await asyncio.sleep(0.01)
        assert [kind for kind in kinds if kind not in ("beat", "alive")] == ["ask", "grant", "end"]

    in_fleet(test, StaticLimit("account", 100, 1.0))


def test_a_busy_follower_of_a_slow_redis_stays_with_its_leader() -> None:
    """It has a question open at each moment, and each answer tells that the leader is there."""

    async def test(scene: FleetScene, follower: int) -> None:
        scene.redis.delay_s = 0.012
        scene.service_s = 0.0
        scene.callers(follower, 30, pause_s=0.01)
        changes = len(scene.changes)
        await asyncio.sleep(5.0)
        assert len(scene.changes) == changes

    in_fleet(test, StaticLimit("account", 10_000, 1.0))


def test_a_leader_that_is_busy_with_its_own_requests_has_not_answered_a_follower() -> None:
    async def test(scene: FleetScene, follower: int) -> None:
        scene.callers(scene.leader, 4, pause_s=0.01)
        await asyncio.sleep(0.1)
        scene.buses[scene.leader].passes = lambda data: b'"t":"ask"' not in data and b'"t":"alive"' not in data
        since_s = scene.loop.time()
        await scene.request(follower, "c")
        assert scene.loop.time() - since_s < 0.6

    in_fleet(test, StaticLimit("account", 10_000, 1.0))


def test_a_replica_that_hears_a_leader_knows_of_two_replicas() -> None:
    """Also if its hello is lost, and the leader does not know of it."""

    async def main() -> None:
        scene = FleetScene(1, None)
        await scene.start()
        await asyncio.sleep(1.0)
        scene.buses[0].passes = lambda data: b'"t":"hello"' not in data
        newcomer = scene.add()
        await newcomer.start(1.0)
        assert newcomer.state is not State.FOLLOWING
        assert newcomer.replicas == 2
        await scene.stop()

    run_virtually(main())
