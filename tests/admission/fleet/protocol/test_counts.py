"""What counts at the next leader, in virtual time."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from unittest.mock import Mock

import pytest

from nanonets_proxy.admission.fleet.bequest import give, take
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import PAGES, StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from simulator.limiters import FixedWindow, Limiter
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually


def in_fleet(
    replicas: int,
    limiter: Limiter | None,
    test: Callable[[FleetScene], Awaitable[None]],
    policy: GatePolicy | None = None,
    *,
    service_s: float = 0.1,
) -> None:
    async def main() -> None:
        scene = FleetScene(replicas, limiter, policy, service_s=service_s)
        await scene.start()
        await asyncio.sleep(1.0)
        await test(scene)
        await scene.stop()

    run_virtually(main())


def counted(scene: FleetScene, number: int | None = None) -> float:
    """Returns how many units count at a gate, that of the leader by default."""
    gate = scene.replicas[scene.leader if number is None else number].gate()
    return sum(scope.limit.estimate.window.granted_since(0.0) for scope in gate.scopes)


@pytest.mark.parametrize("is_killed", [True, False])
@pytest.mark.parametrize("takes_part", [True, False])
def test_a_new_replica_knows_what_its_leader_has_granted_to_itself(*, is_killed: bool, takes_part: bool) -> None:
    """As in an upgrade step by step: the newcomer leads as soon as the earlier leader ends."""

    async def run(scene: FleetScene) -> None:
        leader = scene.leader
        await asyncio.gather(*(scene.request(leader, f"c{n}") for n in range(5)))
        tasks = [scene.loop.create_task(scene.request(leader, f"d{n}")) for n in range(2)]
        await asyncio.sleep(0.015)  # the leader has not told of the latest grants yet
        newcomer = scene.add()
        await newcomer.start(1.0)
        await asyncio.sleep(0.1)
        if takes_part:
            await asyncio.gather(*(scene.request(1, f"c{n}") for n in range(3)))
        if is_killed:
            scene.kill(leader)
        else:
            await asyncio.gather(*tasks)
            scene.dead.add(leader)
            scene.replicas[leader].room.close()
            await scene.replicas[leader].stop()
        await asyncio.sleep(3.0)
        assert newcomer.state is State.LEADING
        assert counted(scene) == 7 + 3 * takes_part
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    in_fleet(1, None, run, service_s=0.2)


@pytest.mark.parametrize(("is_refused", "count"), [(True, 2), (False, 6)])
@pytest.mark.parametrize("lost", ["welcome", "hello"])
def test_a_request_counts_once_if_the_welcome_or_the_hello_is_lost(
    lost: str, count: int, *, is_refused: bool
) -> None:
    """If the leader has heard the hello, it takes over the requests in flight. They end before the next hello."""

    async def run(scene: FleetScene) -> None:
        number = 1 - scene.leader
        bus, follower = scene.buses[number], scene.replicas[number]
        if is_refused:  # the limit is used up
            await asyncio.gather(*(scene.request(number, f"c{n}") for n in range(2)))
        bus.is_cut = True
        bus.lose("connection lost")
        told = 0

        def passes(data: bytes) -> bool:
            nonlocal told
            is_told = b'"t":"%s"' % lost.encode() in data
            told += is_told
            return not is_told or told > 1

        scene.buses[number if lost == "welcome" else scene.leader].passes = passes
        tickets = [Ticket("account", scene.loop.time() + 100.0, f"c{n}") for n in range(6)]
        granted = [ticket for ticket in tickets if follower.room.try_admit(ticket, scene.loop.time())]
        bus.is_cut = False
        while not told:  # noqa: ASYNC110 - virtual time makes an Event needless
            await asyncio.sleep(0.001)
        for ticket in granted:  # the hello names them
            outcome = Outcome.THROTTLED if is_refused else Outcome.SERVED
            follower.room.settle(ticket, outcome, 30.0 if is_refused else None)
        await asyncio.sleep(1.5)
        assert told == 2
        assert follower.state is State.FOLLOWING
        assert counted(scene) == count
        assert scene.replicas[scene.leader].gate().in_flight == 0

    in_fleet(2, FixedWindow(2, 60.0) if is_refused else None, run)


@pytest.mark.parametrize("who", ["alone", "leader", "follower"])
@pytest.mark.parametrize("when", ["in use", "served", "returned"])
def test_the_true_cost_of_a_request_counts_also_if_it_is_known_late(who: str, when: str) -> None:
    """The pages of an upload are counted while its response is underway, or after it."""
    limits = StaticLimits((StaticLimit("account", 100, 60.0, PAGES),))

    async def run(scene: FleetScene) -> None:
        number = 1 - scene.leader if who == "follower" else scene.leader
        decides = scene.leader
        if who == "alone":
            scene.redis.stop()
            await asyncio.sleep(0.1)
        room, loop = scene.replicas[number].room, scene.loop
        ticket = Ticket("account", loop.time() + 100.0, "c", cost=5)
        if (future := room.enter(ticket, loop.time())) is not None:
            await future
        if when == "in use":
            room.correct_cost(ticket, 20)
        room.settle(ticket, Outcome.UNUSED if when == "returned" else Outcome.SERVED)
        await asyncio.sleep(0.1)
        if when != "in use":
            room.correct_cost(ticket, 20)
        if when == "returned":
            if (future := room.enter(ticket, loop.time())) is not None:
                await future
            room.settle(ticket, Outcome.SERVED)
        await asyncio.sleep(0.1)
        assert counted(scene, decides) == 20
        if who == "follower":
            scene.kill(decides)
            await asyncio.sleep(3.0)
            assert counted(scene, number) == 20

    in_fleet(2, None, run, GatePolicy(256, 1000, static_limits=limits))


def test_all_know_of_a_closure_that_becomes_longer() -> None:
    """If the leader dies, nobody tries before its end."""

    async def run(scene: FleetScene) -> None:
        leader, number = scene.leader, 1 - scene.leader
        room, loop = scene.replicas[leader].room, scene.loop
        tickets = [Ticket("account", loop.time() + 100.0, "c") for _ in range(2)]
        assert all(room.try_admit(ticket, loop.time()) for ticket in tickets)
        room.settle(tickets[0], Outcome.THROTTLED, 2.0)
        await asyncio.sleep(0.3)
        room.settle(tickets[1], Outcome.THROTTLED, 8.0)
        closed_s = loop.time()
        await asyncio.sleep(0.3)
        scene.kill(leader)
        task = loop.create_task(scene.request(number, "late"))
        await asyncio.sleep(7.5)
        assert scene.counts.sent == []
        await task
        assert scene.counts.sent[0][0] > closed_s + 7.9

    in_fleet(2, None, run)


@pytest.mark.parametrize(("who", "heir_leads"), [("leader", True), ("leader", False), ("follower", True)])
def test_what_a_process_tells_the_one_that_replaces_it_counts_once(who: str, *, heir_leads: bool) -> None:
    """The leader knows it, or has told it itself."""

    async def run(scene: FleetScene) -> None:
        leader = scene.leader
        number = leader if who == "leader" else 1 - leader
        await asyncio.gather(*(scene.request(number, f"c{n}") for n in range(5)))
        old, heir, loop = scene.replicas[number], scene.add(), scene.loop
        task = loop.create_task(scene.request(number, "last"))
        await asyncio.sleep(0.05)
        take(heir, json.loads(json.dumps(give(old, loop.time()))), loop.time())
        await heir.start(1.0)
        await task
        await asyncio.sleep(0.2)
        assert counted(scene, leader) == 6
        waits = scene.replicas[1 - number] if heir_leads else heir
        waits.campaign.run = Mock()  # type: ignore[method-assign] # the other one wins
        scene.dead.add(number)
        old.room.close()
        await old.stop()
        await asyncio.sleep(0.2)
        if who == "follower":
            assert counted(scene) == 6
            scene.kill(leader)
        await asyncio.sleep(3.0)
        assert scene.replicas[2].position.state is (State.LEADING if heir_leads else State.FOLLOWING)
        assert counted(scene) == 6

    in_fleet(2, None, run)


@pytest.mark.parametrize("is_older", [True, False])
def test_a_process_that_replaces_another_knows_how_long_ago_its_leader_was_heard(*, is_older: bool) -> None:
    """Otherwise, its old beliefs would count before those of a smaller fleet that has led since then."""

    async def run(scene: FleetScene) -> None:
        old, heir, loop = scene.replicas[1 - scene.leader], scene.add(), scene.loop
        scene.redis.stop()
        await asyncio.sleep(100.0)
        document = json.loads(json.dumps(give(old, loop.time())))
        if is_older:  # an earlier version tells neither the time nor the replicas of that leader
            del document["hello"]["beliefs"][3:]
        await asyncio.sleep(1.0)
        take(heir, document, loop.time())
        of = heir.beliefs.of
        assert (of.epoch, of.replicas) == (old.beliefs.of.epoch, 2)
        assert loop.time() - of.heard_at_s == pytest.approx(1.0 if is_older else 101.0, abs=0.3)

    in_fleet(2, None, run)


@pytest.mark.parametrize("is_counted", [True, False])
def test_a_request_that_a_replica_granted_itself_counts_from_then(*, is_counted: bool) -> None:
    """Its leader, which was too slow, granted it later. With the leader's grant, it was not sent before that."""

    async def run(scene: FleetScene) -> None:
        lead = scene.replicas[scene.leader].position.lead
        assert lead is not None
        assert lead.host is not None
        host, loop = lead.host, scene.processes[scene.leader]
        host._answer = Mock()  # otherwise the leader forgets a member whose messages reach nobody
        began_s = loop.time()
        hello = {"from": "x", "places": 1, "scopes": {}, "held": [], "refused": [], "logged": []}
        ask = {"t": "ask", "n": 7, "scope": "s", "lane": "l", "kind": "k", "wait": 9.0, "urgency": 3, "cost": 1}
        host.hello(hello | {"sent_at_s": began_s}, began_s)
        await asyncio.sleep(0.2)
        granted_s = loop.time()
        host.handle(ask | {"from": "x", "sent_at_s": granted_s}, granted_s)
        assert host.members["x"].claims[7].is_granted
        await asyncio.sleep(0.1)
        held = [[7, "s", "l", 9.0, 1, 0.3, is_counted]]
        host.hello(hello | {"sent_at_s": loop.time(), "held": held}, loop.time())
        limit = host.home.gate.scopes.by_name["s"].limit
        sent_s = granted_s if is_counted else began_s
        assert [at_s for at_s, _ in limit.estimate.window.grants_since(0.0)] == [pytest.approx(sent_s)]
        assert limit.in_flight == 1
        host.forget("x")
        assert limit.in_flight == 0

    in_fleet(1, None, run)


@pytest.mark.parametrize("was_refused", [True, False])
def test_a_request_that_a_replica_granted_itself_leaves_the_queue_of_its_leader(*, was_refused: bool) -> None:
    """The replica was alone, and the leader did not hear that the request no longer waits."""

    async def run(scene: FleetScene) -> None:
        lead = scene.replicas[scene.leader].position.lead
        assert lead is not None
        assert lead.host is not None
        host, now_s = lead.host, scene.processes[scene.leader].time()
        host._answer = Mock()  # otherwise the leader forgets a member whose messages reach nobody
        hello = {
            "from": "x",
            "sent_at_s": now_s,
            "places": 1,
            "scopes": {},
            "held": [],
            "refused": [],
            "logged": [],
        }
        ask = {"t": "ask", "scope": "s", "lane": "l", "kind": "k", "wait": 9.0, "urgency": 3, "cost": 1}
        host.hello(hello, now_s)
        numbers = range(100)
        for number in numbers:
            host.handle(ask | {"from": "x", "n": number, "sent_at_s": now_s}, now_s)
        assert host.home.gate.waiting > 0
        held = [[number, "s", "l", 9.0, 1, 0.3, False] for number in reversed(numbers)]
        host.hello(hello | ({"refused": [*numbers]} if was_refused else {"held": held}), now_s)
        assert (host.home.gate.waiting, host.home.gate.in_flight) == (0, 0 if was_refused else 100)

    in_fleet(1, None, run)


def test_a_leader_tells_the_process_that_replaces_it_the_limit_that_it_has_learned() -> None:
    """If Redis is away then, nobody else tells it."""

    async def run(scene: FleetScene) -> None:
        leader = scene.leader
        scene.callers(leader, 4)
        await asyncio.sleep(20.0)
        document, heir = give(scene.replicas[leader], scene.loop.time()), scene.add()
        take(heir, json.loads(json.dumps(document)), scene.loop.time())
        assert [snapshot.count for snapshot in heir.beliefs.snapshots] == [20]

    in_fleet(2, FixedWindow(20, 2.0), run)


def test_a_leader_remembers_its_grants_for_the_period_that_it_has_learned_since() -> None:
    """The next leader must know of them."""
    limits = StaticLimits((StaticLimit("account", 5, 300.0),))

    async def run(scene: FleetScene) -> None:
        leader = scene.replicas[scene.leader]
        await asyncio.gather(*(scene.request(scene.leader, f"c{n}") for n in range(5)))
        await asyncio.sleep(250.0)
        assert len(leader.own.granted()) == 5

    in_fleet(2, None, run, GatePolicy(256, 1000, static_limits=limits))


def test_the_grants_of_a_replica_close_no_scope_at_its_leader() -> None:
    async def run(scene: FleetScene) -> None:
        number = 1 - scene.leader
        scene.buses[number].is_cut = True
        scene.buses[number].lose("connection lost")
        await scene.request(number, "c")
        scene.buses[number].is_cut = False
        await asyncio.sleep(1.0)
        assert counted(scene) == 1
        (scope,) = scene.replicas[scene.leader].gate().scopes
        assert scope.limit.opens_at_s == -math.inf

    in_fleet(2, None, run)


def test_grants_that_no_longer_count_take_no_memory() -> None:
    async def run(scene: FleetScene) -> None:
        await asyncio.gather(*(scene.request(number, "c") for number in range(2)))
        await asyncio.sleep(300.0)
        assert [replica.room.log._grants for replica in scene.replicas] == [{}, {}]

    in_fleet(2, None, run)
