"""What waits while a replica changes its state, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import Mock

import pytest

from nanonets_proxy.admission.fleet.bus.post import seal
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState
from nanonets_proxy.errors import RateLimited
from support.gate.fleet_scene import FleetScene
from support.gate.memory_bus import MemoryRedis
from support.gate.virtual_loop import run_virtually


def limited(count: int, period_s: float) -> GatePolicy:
    return GatePolicy(256, 1000, static_limits=StaticLimits((StaticLimit("account", count, period_s),)))


def in_fleet(
    replicas: int, test: Callable[[FleetScene], Awaitable[None]], policy: GatePolicy | None = None
) -> None:
    async def main() -> None:
        scene = FleetScene(replicas, None, policy)
        await scene.start()
        await asyncio.sleep(1.0)
        await test(scene)
        await scene.stop()

    run_virtually(main())


async def end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_request_that_is_refused_just_before_a_move_leaves_nothing_at_the_next_gate() -> None:
    """Its refusal reaches the request in the next turn of the loop. Until then, it is among the claims."""

    async def run(scene: FleetScene) -> None:
        number = 1 - scene.leader
        leader, follower = scene.replicas[scene.leader].position, scene.replicas[number]
        await scene.request(number, "first")
        task = scene.loop.create_task(scene.request(number, "second"))
        await asyncio.sleep(0.1)
        (waiting,) = follower.position.remote.waiting() if follower.position.remote else ()
        refuse = {"t": "refuse", "n": waiting, "reason": "deadline_passed", "retry": 1.0}
        follower._inbox.deliver(seal(leader.name, leader.epoch, scene.processes[scene.leader].time(), [refuse]))
        scene.buses[number].is_cut = True
        scene.buses[number].lose("connection lost")
        assert follower.state is State.ALONE
        await asyncio.sleep(6.0)  # the share would have room again
        assert len(scene.counts.errors) == 1
        assert (follower.gate().waiting, follower.gate().in_flight, follower.room.waiting) == (0, 0, 0)
        await end(task)

    in_fleet(2, run, limited(1, 2.0))


@pytest.mark.parametrize("seed", range(8))
def test_a_replica_that_waited_for_the_lease_keeps_it(seed: int) -> None:
    """Each state has its own patience. The leader's end is no silence of Redis, which takes 8 ms here."""

    async def main() -> None:
        redis = MemoryRedis(delay_s=0.004)
        scene = FleetScene(3, None, seed=seed, redis=redis)
        await scene.start()
        await asyncio.sleep(1.0)
        since_s, old = scene.loop.time(), scene.leader
        scene.dead.add(old)
        scene.replicas[old].room.close()
        await scene.replicas[old].stop()
        await asyncio.sleep(1.0)
        changes = [(state, reason) for at_s, _, state, reason in scene.changes if at_s > since_s]
        assert sorted(state.value for state, _ in changes) == ["following", "leading"], changes
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("what", ["ask", "lost"])
def test_a_lost_question_is_asked_again_also_while_other_answers_come(what: str) -> None:
    async def run(scene: FleetScene) -> None:
        number = 1 - scene.leader
        scene.callers(number, 12, "busy", pause_s=0.02)
        await asyncio.sleep(1.0)
        losses = 0

        def passes(data: bytes) -> bool:
            nonlocal losses
            is_lost = b'"t":"ask"' in data and losses == 0
            is_lost = is_lost or (what == "lost" and b'"t":"lost"' in data and losses == 1)
            losses += is_lost
            return not is_lost

        for bus in scene.buses:
            bus.passes = passes
        began_s = scene.loop.time()
        await asyncio.gather(*(scene.request(number, f"c{n}") for n in range(4)))
        assert losses == 1 + (what == "lost")
        assert scene.loop.time() - began_s < 0.2 + 0.75 * losses
        assert scene.counts.errors == []

    in_fleet(2, run)


def test_a_request_that_may_not_wait_is_decided_on_by_the_next_gate() -> None:
    """`Prefer: wait=0`: the leader dies before it answers. No caller gets an error because of a change."""

    async def run(scene: FleetScene) -> None:
        number = 1 - scene.leader
        scene.kill(scene.leader)
        await scene.request(number, "caller", wait_s=0.0)
        assert scene.counts.errors == []
        assert scene.replicas[number].state is State.ALONE
        await asyncio.sleep(2.5)
        await asyncio.gather(*(scene.request(number, f"c{n}", wait_s=0.0) for n in range(2)))
        assert len(scene.counts.errors) == 1  # the limit is used up

    in_fleet(2, run, limited(2, 60.0))


@pytest.mark.parametrize("who", ["leader", "follower", "alone"])
def test_a_full_queue_refuses_no_request_that_comes_back_after_a_429(who: str) -> None:
    policy = GatePolicy(8, 1, static_limits=StaticLimits((StaticLimit("account", 1, 4.0),)))

    async def run(scene: FleetScene) -> None:
        number = 1 - scene.leader if who == "follower" else scene.leader
        room, loop = scene.replicas[number].room, scene.loop
        if who == "alone":
            scene.redis.stop()
            await asyncio.sleep(0.1)
        first, second, third = (Ticket("account", loop.time() + 100.0, "c") for _ in range(3))
        if (future := room.enter(first, loop.time())) is not None:
            await future
        waits = room.enter(second, loop.time())
        await asyncio.sleep(0.1)
        with pytest.raises(RateLimited):
            room.enter(third, loop.time())
        room.settle(first, Outcome.THROTTLED, 1.0)
        again = room.enter(first, loop.time())
        assert waits is not None
        assert again is not None
        await again
        room.settle(first, Outcome.SERVED)
        await waits
        room.settle(second, Outcome.SERVED)

    in_fleet(2, run, policy)


def test_a_timer_of_a_late_leader_grants_nothing() -> None:
    """Its process has stood still, and no message of the next leader has been read yet."""

    async def run(scene: FleetScene) -> None:
        number = scene.leader
        replica, loop = scene.replicas[number], scene.loop
        await scene.request(number, "first")
        ticket = Ticket("account", loop.time() + 100.0, "second")
        future = replica.room.enter(ticket, loop.time())
        assert future is not None
        scene.replicas[number].position.beater.stop()
        scene.redis.hangs = True  # no answer and no message
        replica.position.silence.stop()
        await asyncio.sleep(2.5)
        assert loop.time() > replica.room.valid_until_s or replica.state is not State.LEADING
        assert replica.state is State.JOINING
        assert ticket.state is TicketState.WAITING
        scene.redis.resume()
        replica.position.beater.start()
        await future
        replica.room.settle(ticket, Outcome.SERVED)

    in_fleet(1, run, limited(1, 2.0))


def test_a_replica_says_one_hello_however_often_it_is_asked_who_it_is() -> None:
    """Each late message of a replica that the leader has forgotten is answered so."""

    async def run(scene: FleetScene) -> None:
        number = 1 - scene.leader
        tasks = [scene.loop.create_task(scene.request(number, f"c{n}")) for n in range(20)]
        await asyncio.sleep(0.02)
        lead = scene.replicas[scene.leader].position.lead
        assert lead is not None
        assert lead.host is not None
        lead.host.forget(scene.replicas[number].position.name)
        hellos = 0
        scene.processes[number].stand_still(0.3)  # then it settles all of them in one turn

        def passes(data: bytes) -> bool:
            nonlocal hellos
            hellos += data.count(b'"t":"hello"')
            return True

        scene.buses[scene.leader].passes = passes
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.5)
        assert hellos == 1
        assert scene.counts.errors == []
        gate = scene.replicas[scene.leader].gate()
        assert (gate.in_flight, gate.waiting) == (0, 0)

    in_fleet(2, run)


def test_an_error_in_a_beat_does_not_end_the_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(scene: FleetScene) -> None:
        leader, errors, changes = scene.replicas[scene.leader], [], len(scene.changes)
        scene.loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
        with monkeypatch.context() as patch:
            patch.setattr(leader.room, "expire", Mock(side_effect=ZeroDivisionError))
            await asyncio.sleep(2.0)
        assert {type(error) for error in errors} == {ZeroDivisionError}
        await asyncio.sleep(3.0)
        assert len(scene.changes) == changes
        assert sorted(replica.state.value for replica in scene.replicas) == ["following", "leading"]

    in_fleet(2, run)


def test_a_replica_that_joins_a_new_leader_in_vain_keeps_its_share() -> None:
    """That leader has not heard of the others yet. If all believed it, they would use several limits together."""

    async def run(scene: FleetScene) -> None:
        number, epoch = (scene.leader + 1) % 5, scene.replicas[scene.leader].position.epoch
        replica, bus = scene.replicas[number], scene.buses[number]
        bus.passes = lambda data: b'"from":"new"' in data
        replica.campaign.run = Mock()  # type: ignore[method-assign] # it would be a leader with a later epoch
        await asyncio.sleep(3.0)
        assert (replica.state, replica.replicas) == (State.ALONE, 5)
        bus.deliver(seal("new", epoch + 1, scene.loop.time(), [{"t": "beat", "replicas": 1}]), scene.loop)
        await asyncio.sleep(0.1)
        assert scene.changes[-1][1:] == (number, State.ALONE, "the leader is gone")
        assert replica.replicas == 5

    in_fleet(5, run)
