"""A command to Redis that ends after the replica has given it up changes nothing, also if it missed its end."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from nanonets_proxy.admission.fleet.bus.port import Won
from nanonets_proxy.admission.fleet.bus.post import seal
from nanonets_proxy.admission.fleet.campaign import Campaign
from nanonets_proxy.admission.fleet.state import State
from support.gate.fleet_scene import FleetScene
from support.gate.memory_bus import MemoryBus
from support.gate.virtual_loop import run_virtually

T = TypeVar("T")


async def _despite_cancellation(command: Coroutine[Any, Any, T]) -> T:
    """Returns the result also if its task is cancelled, as `asyncio.wait_for` of Python 3.11 may."""
    task = asyncio.ensure_future(command)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
    return task.result()


@pytest.fixture
def _deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no command of the bus hear of its cancellation."""
    for name in ("campaign", "renew"):
        real: Callable[..., Coroutine[Any, Any, Any]] = getattr(MemoryBus, name)

        def command(self: MemoryBus, *args: Any, real: Any = real) -> Awaitable[Any]:
            return _despite_cancellation(real(self, *args))

        monkeypatch.setattr(MemoryBus, name, command)


def in_fleet(replicas: int, test: Callable[[FleetScene], Awaitable[None]]) -> None:
    async def main() -> None:
        scene = FleetScene(replicas, None)
        await test(scene)

    run_virtually(main())


@pytest.mark.parametrize("answer_s", [0.01, 1.0])
@pytest.mark.usefixtures("_deaf")
def test_a_replica_that_stops_takes_no_lease_with_it(answer_s: float) -> None:
    """Otherwise nobody could lead until the lease expires. The stop does not wait for a slow Redis."""

    async def test(scene: FleetScene) -> None:
        replica = scene.replicas[0]
        scene.redis.delay_s = answer_s / 2
        replica.campaign.run(0)
        await asyncio.sleep(0)
        began_s = scene.loop.time()
        await replica.stop()
        assert scene.loop.time() - began_s < 0.3
        await asyncio.sleep(2 * answer_s)
        assert scene.redis.campaigns == 1
        assert scene.redis.lease_epoch > 0
        assert replica.state is State.ALONE
        assert replica.position.lead is None
        assert scene.redis.holder == ""

    in_fleet(1, test)


def test_a_lease_that_came_too_late_is_given_back() -> None:
    """A replica that has heard of a leader meanwhile follows it."""

    async def test(scene: FleetScene) -> None:
        await scene.start()
        await asyncio.sleep(1.0)
        follower = next(r for r in scene.replicas if r.state is State.FOLLOWING)
        scene.redis.holder = ""  # as after a failover that lost the lease
        follower.campaign.run(follower.position.epoch)
        await asyncio.sleep(0.1)
        assert scene.redis.campaigns >= 2
        assert scene.redis.holder != follower.position.name
        assert follower.state is State.FOLLOWING
        await scene.stop()

    in_fleet(2, test)


def test_a_lease_older_than_a_leader_known_meanwhile_is_given_back() -> None:
    """All replicas that know the later leader would ignore this one."""

    async def test(scene: FleetScene) -> None:
        replica = scene.replicas[0]
        replica.campaign.run(0)
        await asyncio.sleep(0)
        replica.position.epoch = 10**12
        await asyncio.sleep(0.01)
        assert scene.redis.lease_epoch > 0
        assert replica.state is State.ALONE
        assert replica.position.epoch == 10**12
        assert scene.redis.holder == ""
        await replica.stop()

    in_fleet(1, test)


@pytest.mark.parametrize("fault", ["lost", "refused", "renewed"])
@pytest.mark.usefixtures("_deaf")
def test_a_renewal_of_a_leader_that_has_ended_changes_nothing(fault: str) -> None:
    """The replica may lead again, or follow another one, when the result of the earlier renewal arrives."""

    async def test(scene: FleetScene) -> None:
        await scene.start()
        await asyncio.sleep(1.0)
        replica = scene.replicas[0]
        lead = replica.position.lead
        assert lead is not None
        await asyncio.sleep(0.1)  # no beat is on its way
        assert not lead.awaits_answer
        lead.beat()
        await asyncio.sleep(0)
        if fault == "lost":
            scene.redis.holder, scene.redis.lease_epoch = "another", lead.epoch + 1
        elif fault == "refused":
            scene.redis.is_read_only = True
        heard: list[object] = []
        valid_until_s = lead.valid_until_s
        lead.end()
        lead.on_end, lead.on_renewed = heard.append, heard.append
        await asyncio.sleep(0.01)
        lead.beat()
        await asyncio.sleep(0.01)
        assert heard == []
        assert lead.valid_until_s == valid_until_s
        assert not lead._renewing
        replica.position.stopped = True

    in_fleet(1, test)


def test_a_replica_that_has_stopped_keeps_its_state_when_redis_goes_away() -> None:
    async def test(scene: FleetScene) -> None:
        await scene.start()
        await asyncio.sleep(1.0)
        changes = len(scene.changes)
        for replica in scene.replicas:
            replica.position.stopped = True
        for bus, replica in zip(scene.buses, scene.replicas, strict=True):
            bus.lose("connection lost")
            replica._on_unheard(replica.position.leader)
            states = [each.state for each in scene.replicas]
            beat = {"t": "beat", "replicas": 2}
            replica._inbox.deliver(seal("another", replica.position.epoch + 1, scene.loop.time(), [beat]))
            assert [each.state for each in scene.replicas] == states
        assert len(scene.changes) == changes
        await scene.stop()

    in_fleet(2, test)


def test_a_campaign_begins_no_attempt_while_it_returns_a_lease() -> None:
    """The replica would hold a lease that it has just given back."""

    async def main() -> None:
        loop, asked, returned = asyncio.get_running_loop(), [], []

        class Slow:
            connected = True

            async def campaign(self, epoch: int) -> Won | None:
                asked.append(epoch)
                await asyncio.sleep(0.01)
                return Won(epoch + 1, b"", 0.0)

            async def resign(self, epoch: int) -> None:
                await asyncio.sleep(0.1)
                returned.append(epoch)

        ignore = (lambda _won: None, lambda _reason: None)
        campaign = Campaign(Slow(), loop, lambda: 0.0, lambda _won, _at_s: False, *ignore)
        campaign.run(1)
        await asyncio.sleep(0.05)
        campaign.run(2)
        await campaign.stop()
        assert (asked, returned) == ([1], [2])

    run_virtually(main())
