"""A replica that shuts down treats its callers as a proxy without a fleet does."""

import asyncio
import random
import signal
import time

import pytest

from fleet.redis_server import RedisServer
from nanonets_proxy.admission.admission import Admission
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState
from nanonets_proxy.errors import ProxyError
from support.commands.fleet_proxies import coordinated, fleet, until
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually


async def ends(room: Admission, outcomes: list[tuple[Outcome, float | None]], service_s: float) -> str:
    """Returns how a request ends whose attempts end so, one after the other."""
    loop = asyncio.get_running_loop()
    ticket = Ticket("account", loop.time() + 100.0, "caller", kind="/x")
    try:
        for outcome, hint_s in outcomes:
            is_admitted = ticket.state is TicketState.NEW and room.try_admit(ticket, loop.time())
            if not is_admitted and (future := room.enter(ticket, loop.time())) is not None:
                await future
            await asyncio.sleep(service_s)
            room.settle(ticket, outcome, hint_s)
    except ProxyError as error:
        return error.code
    return outcomes[-1][0].value


@pytest.mark.parametrize("who", ["embedded", "leader", "follower", "alone"])
def test_each_request_ends_as_at_a_gate_without_a_fleet(who: str) -> None:
    policy = GatePolicy(8, 1000, static_limits=StaticLimits((StaticLimit("account", 3, 4.0),)))

    async def main() -> list[str]:
        scene = FleetScene(2 if who == "follower" else 1, None, policy)
        await scene.start()
        await asyncio.sleep(1.0)
        number = next((n for n, r in enumerate(scene.replicas) if r.state is State.FOLLOWING), 0)
        room: Admission = scene.replicas[number].room
        if who == "alone":
            scene.redis.stop()
            await asyncio.sleep(0.1)
        elif who == "embedded":
            room = WaitingRoom(Gate(policy, random.Random(1).random), scene.loop)
        served, refused = [(Outcome.SERVED, None)], [(Outcome.THROTTLED, 2.0), (Outcome.SERVED, None)]
        before = [asyncio.create_task(ends(room, each, 0.5)) for each in (served, served, refused, served, served)]
        await asyncio.sleep(0.2)
        room.close()
        after = [asyncio.create_task(ends(room, served, 0.5))]
        await asyncio.sleep(6.0)  # the limit has room again: a request that need not wait is served
        after.append(asyncio.create_task(ends(room, served, 0.5)))
        found: list[str] = await asyncio.gather(*before, *after)
        await scene.stop()
        return found

    stopped = "shutting_down"
    expected = ["served", "served", stopped, stopped, stopped, stopped, "served"]
    assert run_virtually(main()) == expected


@pytest.mark.system
@pytest.mark.parametrize("hangs", [True, False])
def test_sigterm_ends_a_replica_soon_also_while_redis_hangs(redis: RedisServer, *, hangs: bool) -> None:
    with fleet(redis, 2) as proxies:
        until(lambda: coordinated(proxies))
        if hangs:
            redis.signal(signal.SIGSTOP)
        try:
            for proxy in proxies:
                began_s = time.monotonic()
                assert proxy.end() == 0
                assert time.monotonic() - began_s < 20  # a few seconds; a busy machine needs more
        finally:
            redis.signal(signal.SIGCONT)
