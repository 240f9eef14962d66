"""A replica that sends anything: a defective one, or a program that has the password of Redis.

No message may let a caller fail, end a task, leave half of a change behind, or stop the fleet for longer than
seconds.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from nanonets_proxy.admission.fleet.beliefs import NAME
from nanonets_proxy.admission.fleet.bus.messages import MAX_REPLICAS
from nanonets_proxy.admission.fleet.bus.port import Won
from nanonets_proxy.admission.fleet.bus.post import seal
from nanonets_proxy.admission.fleet.host import Host
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.fleet.believer import Believer
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.snapshot import ScopeSnapshot, dump
from simulator.limiters import SlidingLog
from support.gate.fleet_messages import BELIEFS, EXAMPLES, UNUSED, changed, example
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

Act = Callable[[FleetScene], Awaitable[None]]
YEAR_S = 365 * 86_400.0


def in_fleet(test: Act, replicas: int = 3, policy: GatePolicy | None = None, limit: int = 0) -> list[Any]:
    """Runs a test in a fleet. No exception may reach the event loop. Returns the log events."""
    faults: list[dict[str, Any]] = []

    async def main() -> None:
        scene = FleetScene(replicas, SlidingLog(limit, 1.0) if limit else None, policy)
        scene.loop.set_exception_handler(lambda _, context: faults.append(context))
        await scene.start()
        await asyncio.sleep(1.0)
        await test(scene)
        await scene.stop()

    with capture_logs() as events:
        run_virtually(main())
    assert faults == []
    return events


def send(
    scene: FleetScene, to: int, message: dict[str, Any], sender: str = "evil", epoch: int | None = None
) -> None:
    """Delivers a message to one replica, over its subscription."""
    position, process = scene.replicas[to].position, scene.processes[to]
    raw = seal(sender, position.epoch if epoch is None else epoch, process.time(), [message])
    scene.buses[to].deliver(raw, scene.loop)


def roles(scene: FleetScene) -> list[str]:
    living = [replica for number, replica in enumerate(scene.replicas) if number not in scene.dead]
    return sorted(replica.state.value for replica in living)


def followers(scene: FleetScene) -> list[int]:
    return [n for n in range(len(scene.replicas)) if n != scene.leader and n not in scene.dead]


def host(scene: FleetScene) -> Host:
    lead = scene.replicas[scene.leader].position.lead
    assert lead is not None
    assert lead.host is not None
    return lead.host


async def is_well(scene: FleetScene) -> None:
    """Asserts that one gate decides, serves the callers of each replica, and has lost no permit."""
    living = [number for number in range(len(scene.replicas)) if number not in scene.dead]
    assert roles(scene) == ["following"] * (len(living) - 1) + ["leading"]
    await asyncio.gather(*(scene.request(number, "last", wait_s=5.0) for number in living))
    assert scene.counts.errors == []
    await asyncio.sleep(1.0)
    leader = scene.replicas[scene.leader]
    assert leader.room.epoch == leader.position.epoch  # its own requests ask the same gate
    gate = leader.gate()
    assert (gate.in_flight, gate.waiting) == (0, 0)
    assert all(scope.limit.in_flight == 0 for scope in gate.scopes)


async def no_lease(epoch: int) -> Won | None:  # noqa: ARG001 - as a bus is asked
    return None


def limit_of(scope: str) -> ScopeSnapshot:
    return ScopeSnapshot(scope, 40.0, 4.0, 40.0, None, 0, 0.0, 0.0)


def named(events: list[Any], sender: str = "evil") -> bool:
    return any(event["event"] == "fleet_message_invalid" and event["sender"] == sender for event in events)


# --- everything at once ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("is_known", [True, False])
def test_no_strange_message_fails_a_caller_or_stops_the_fleet(name: str, *, is_known: bool) -> None:
    """Beats, hellos and goodbyes of this epoch move replicas to and fro, but not for long."""

    async def run(scene: FleetScene) -> None:
        for number in range(3):
            scene.callers(number, 1, f"r{number}c", pause_s=0.05)
        messages = [message for _, message in changed(name)]
        for message in messages[:: max(1, len(messages) // 60)]:
            leader, (follower, _) = scene.leader, followers(scene) if scene.leader >= 0 else (1, 2)
            if leader < 0:
                await asyncio.sleep(2.0)
                leader, (follower, _) = scene.leader, followers(scene)
            send(scene, leader, message, scene.replicas[follower].position.name if is_known else "evil")
            send(scene, follower, message, scene.replicas[leader].position.name if is_known else "evil")
            await asyncio.sleep(0.004)
        await asyncio.sleep(4.0)
        for task in scene.tasks:
            task.cancel()
        await asyncio.gather(*scene.tasks, return_exceptions=True)
        scene.tasks.clear()
        await asyncio.sleep(1.0)
        await is_well(scene)

    in_fleet(run, limit=100)


def test_replicas_take_no_message_of_a_fleet_for_malformed() -> None:
    async def run(scene: FleetScene) -> None:
        for number in range(3):
            scene.callers(number, 30, f"r{number}c")
        await asyncio.sleep(5.0)
        scene.redis.hangs = True
        await asyncio.sleep(1.0)
        scene.redis.resume()
        await asyncio.sleep(3.0)
        await scene.add().start(1.0)
        scene.kill(scene.leader)
        await asyncio.sleep(5.0)
        stopped = scene.leader
        scene.dead.add(stopped)
        scene.replicas[stopped].room.close()
        await scene.replicas[stopped].stop()
        await asyncio.sleep(3.0)

    for policy in (None, GatePolicy(4, 1000), GatePolicy(64, 1000, max_waiting_per_lane=1, max_wait_s=1.0)):
        assert [event for event in in_fleet(run, 3, policy, 20) if event["event"] == "fleet_message_invalid"] == []


# --- epochs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["beat", "beat of two versions", "gathers", "resign"])
@pytest.mark.parametrize("epoch", [2**53 - 1, 2**52, 2 * 86_400_000 + 2_000_000, 3_600_000])
@pytest.mark.parametrize("to", ["all", "leader", "follower"])
def test_an_invented_epoch_stops_a_fleet_for_seconds_only(what: str, epoch: int, to: str) -> None:
    """If all took it over, the next leader's epoch would be too large to be one."""
    sender = "evil"

    async def run(scene: FleetScene) -> None:
        nonlocal sender
        if what == "resign":
            sender = scene.replicas[scene.leader].position.name
        message = {"t": "beat", "replicas": 3, "gathers": True} if what == "gathers" else example(what)
        receivers = {"all": [0, 1, 2], "leader": [scene.leader], "follower": followers(scene)[:1]}[to]
        for number in receivers:
            send(scene, number, message, sender, epoch)
        await asyncio.sleep(6.0)
        await is_well(scene)
        assert {replica.replicas for replica in scene.replicas} == {3}

    events = in_fleet(run)
    if epoch > 86_400_000 + 10_000_000 and to != "leader":
        assert named(events, sender)


def test_a_leader_ignores_a_resignation_in_its_own_name() -> None:
    async def run(scene: FleetScene) -> None:
        changes = len(scene.changes)
        send(scene, scene.leader, example("resign"), scene.replicas[scene.leader].position.name)
        await asyncio.sleep(1.0)
        assert len(scene.changes) == changes

    in_fleet(run)


def test_while_somebody_invents_epochs_each_request_is_served_and_afterwards_one_leads() -> None:
    async def run(scene: FleetScene) -> None:
        for number in range(3):
            scene.callers(number, 2, f"r{number}c", pause_s=0.05)
        for n in range(100):
            for number in range(3):
                send(scene, number, example("beat"), f"evil{n}", 2**53 - 1 - n % 3)
            await asyncio.sleep(0.1)
        assert scene.counts.errors == []
        served = len(scene.counts.served_at_s)
        assert served > 100
        await asyncio.sleep(5.0)
        for task in scene.tasks:
            task.cancel()
        await asyncio.gather(*scene.tasks, return_exceptions=True)
        scene.tasks.clear()
        await is_well(scene)

    in_fleet(run)


@pytest.mark.parametrize("epoch", [2**53, 2**63, 10**20])
def test_a_lease_with_an_invented_epoch_is_void(epoch: int) -> None:
    async def run(scene: FleetScene) -> None:
        redis = scene.redis
        redis.holder, redis.lease_epoch, redis.lease_until_s = "evil", epoch, math.inf
        await asyncio.sleep(4.0)
        await is_well(scene)

    in_fleet(run)


def test_beliefs_of_an_invented_epoch_are_not_the_latest() -> None:
    async def run(scene: FleetScene) -> None:
        leader, (first, second) = scene.leader, followers(scene)
        beliefs = scene.replicas[first].beliefs
        beliefs.of = Believer(2**53 - 1, 3, beliefs.of.heard_at_s)
        beliefs.snapshots = [limit_of("-.wrong")]
        scene.replicas[second].beliefs.snapshots = [limit_of("-.right")]
        beliefs.at_s -= 100.0
        scene.buses[first].campaign = no_lease  # type: ignore[method-assign] # so that the other one leads
        scene.kill(leader)
        await asyncio.sleep(3.0)
        assert scene.leader == second
        assert [scope.name for scope in scene.replicas[scene.leader].gate().scopes] == ["-.right"]

    in_fleet(run)


# --- half of a change --------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["places", "scopes", "held", "refused"])
def test_a_malformed_hello_does_not_keep_a_leader_from_its_start(field: str) -> None:
    async def run(scene: FleetScene) -> None:
        scene.kill(scene.leader)
        while all(replica.state is not State.COLLECTING for replica in scene.replicas):  # noqa: ASYNC110 - virtual
            await asyncio.sleep(0.001)
        collecting = next(n for n, replica in enumerate(scene.replicas) if replica.state is State.COLLECTING)
        send(scene, collecting, example("here"))
        while scene.replicas[collecting].position.lead.gathers:  # type: ignore[union-attr] # noqa: ASYNC110
            await asyncio.sleep(0.001)
        send(scene, collecting, example("hello") | {field: -1})
        await asyncio.sleep(3.0)
        await is_well(scene)

    assert named(in_fleet(run))


def test_a_defect_at_its_start_ends_a_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    hello, faults = Host.hello, []

    def fail_once(self: Host, message: dict[str, Any], now_s: float) -> None:
        if not faults:
            faults.append(message)
            raise ZeroDivisionError("a defect")
        hello(self, message, now_s)

    async def run(scene: FleetScene) -> None:
        scene.loop.set_exception_handler(lambda _, context: faults.append(context))
        monkeypatch.setattr(Host, "hello", fail_once)
        scene.kill(scene.leader)
        await asyncio.sleep(5.0)
        assert faults
        await is_well(scene)

    in_fleet(run)


def test_a_malformed_hello_of_a_member_leaks_no_permit() -> None:
    async def run(scene: FleetScene) -> None:
        follower = followers(scene)[0]
        task = scene.loop.create_task(scene.request(follower, "c"))
        await asyncio.sleep(0.05)
        name = scene.replicas[follower].position.name
        assert host(scene).members[name].claims
        send(scene, scene.leader, example("hello") | {"places": -1}, name)
        await task
        await asyncio.sleep(2.0)
        await is_well(scene)

    in_fleet(run)


@pytest.mark.parametrize("change", [{"how": "unknown"}, {"hint": []}, {"how": "throttled", "hint": "nan"}])
def test_a_malformed_end_leaks_no_permit(change: dict[str, Any]) -> None:
    async def run(scene: FleetScene) -> None:
        follower = followers(scene)[0]
        task = scene.loop.create_task(scene.request(follower, "c"))
        await asyncio.sleep(0.05)
        name = scene.replicas[follower].position.name
        (number,) = host(scene).members[name].claims
        send(scene, scene.leader, {"t": "end", "n": number, "how": "served"} | change, name)
        await task
        await asyncio.sleep(2.0)
        await is_well(scene)

    in_fleet(run)


@pytest.mark.parametrize("change", [{"reason": "unknown"}, {"retry": "inf"}, {"retry": 1e300}, {"position": []}])
def test_a_malformed_refusal_ends_no_request(change: dict[str, Any]) -> None:
    policy = GatePolicy(16, 1000, static_limits=StaticLimits((StaticLimit("account", 1, 0.5),)))

    async def run(scene: FleetScene) -> None:
        follower = followers(scene)[0]
        tasks = [scene.loop.create_task(scene.request(follower, f"c{n}")) for n in range(2)]
        await asyncio.sleep(0.05)
        number = max(host(scene).members[scene.replicas[follower].position.name].claims)
        message = {"t": "refuse", "n": number, "reason": "queue_full", "retry": 1.0} | change
        send(scene, follower, message, scene.replicas[scene.leader].position.name)
        send(scene, follower, {"t": "ask", "n": number}, scene.replicas[scene.leader].position.name)
        send(scene, follower, example("ask") | {"n": number}, scene.replicas[scene.leader].position.name)
        await asyncio.gather(*tasks)
        assert scene.counts.errors == []
        assert max(scene.counts.waits_s) < 1.0

    in_fleet(run, policy=policy)


# --- numbers -----------------------------------------------------------------------------------------


def test_a_number_that_cannot_be_sent_back_takes_no_answer_from_others() -> None:
    async def run(scene: FleetScene) -> None:
        follower = followers(scene)[0]
        task = scene.loop.create_task(scene.request(follower, "c"))
        for _ in range(20):
            raw = orjson.dumps({"t": "ask"} | EXAMPLES["ask"] | {"n": 1e300})
            envelope = b'{"from":"%s","epoch":%d,"at":1.0,"is":[%s]}' % (
                scene.replicas[followers(scene)[1]].position.name.encode(),
                scene.replicas[0].position.epoch,
                raw,
            )
            scene.buses[scene.leader].deliver(envelope, scene.loop)
            await asyncio.sleep(0.0001)
        await task
        assert max(scene.counts.waits_s) < 0.01

    in_fleet(run)


@pytest.mark.parametrize(
    "message",
    [
        {"t": "beat", "replicas": 10**15},
        {"t": "beat", "replicas": 3, "gathers": True, "others": -3, "told": [0, 0.0, BELIEFS]},
        {"t": "beat", "replicas": 10**15, "gathers": True, "others": 1, "told": [0, 0.0, BELIEFS]},
    ],
)
def test_a_number_of_replicas_that_no_fleet_has_is_malformed(message: dict[str, Any]) -> None:
    async def run(scene: FleetScene) -> None:
        await asyncio.gather(*(scene.request(number, "c") for number in range(3)))
        follower = followers(scene)[0]
        send(scene, follower, message, scene.replicas[scene.leader].position.name)
        await asyncio.sleep(0.01)
        assert scene.replicas[follower].replicas == 3
        scene.redis.stop()
        await scene.request(follower, "c", wait_s=1.0)
        assert scene.counts.errors == []
        scene.redis.come_back()
        await asyncio.sleep(3.0)
        await is_well(scene)

    in_fleet(run)


@pytest.mark.parametrize("how", ["advice", "advice of a count", "setting", "held for years"])
def test_no_limit_makes_beats_that_others_cannot_read(how: str) -> None:
    """If they could not, nobody would know the limits once the leader dies."""
    leaders: list[str] = []
    setting = StaticLimits((StaticLimit("account", 1000, YEAR_S),)) if how == "setting" else StaticLimits()

    async def run(scene: FleetScene) -> None:
        follower = followers(scene)[0]
        name, leader = scene.replicas[follower].position.name, scene.leader
        leaders.append(scene.replicas[leader].position.name)
        send(scene, leader, example("hello") | {"held": [[UNUSED, "-.b", "l", 9.0, 1, 1e8, False]]}, name)
        if how == "advice of a count":
            send(scene, leader, example("advice") | {"advice": [None, 0.0, [10**9, 1.0, "requests"]]}, name)
        elif how == "advice":
            send(scene, leader, example("advice") | {"advice": [None, 0.0, [1000, 1e8, "requests"]]}, name)
        else:
            send(scene, leader, example("end") | {"hint": 1.0, "quota": False}, name)
        await asyncio.gather(*(scene.request(number, "c") for number in range(3)))
        await asyncio.sleep(1.0)
        scene.kill(leader)
        await asyncio.sleep(3.0)
        await scene.add().start(2.0)
        assert roles(scene) == ["following"] * 2 + ["leading"]

    events = in_fleet(run, policy=GatePolicy(64, 1000, static_limits=setting))
    assert not any(named(events, leader) for leader in leaders)


def test_no_message_holds_a_scope_for_years() -> None:
    async def run(scene: FleetScene) -> None:
        follower = followers(scene)[0]
        name = scene.replicas[follower].position.name
        task = scene.loop.create_task(scene.request(follower, "c"))
        await asyncio.sleep(0.05)
        (number,) = host(scene).members[name].claims
        for advice in ([-(10**9), 1e8, None], [0, 1e8, None], [None, 0.0, [1, 0.0, "requests"]], ["", 1.0, None]):
            send(scene, scene.leader, {"t": "advice", "n": number, "advice": advice}, name)
        await task
        await is_well(scene)

    in_fleet(run)


def test_no_hello_closes_a_scope_for_more_than_an_hour() -> None:
    async def run(scene: FleetScene) -> None:
        position = scene.replicas[followers(scene)[0]].position
        hello = position.hello(position.epoch) | {"scopes": {"-.b": [[], YEAR_S]}}
        send(scene, scene.leader, hello, position.name)
        await asyncio.sleep(0.1)
        now_s = scene.loop.time()
        assert scene.replicas[scene.leader].gate().scopes.closures(now_s)["-.b"] <= now_s + 3600.0

    in_fleet(run)


def test_a_scope_whose_name_is_a_pattern_is_not_the_limit_of_all_scopes() -> None:
    async def run(scene: FleetScene) -> None:
        follower = followers(scene)[0]
        beliefs = orjson.loads(orjson.dumps(BELIEFS))
        beliefs["scopes"][0] |= {"scope": "*", "count": 1, "period_s": 1e6}
        beat = {"t": "beat", "replicas": 3, "beliefs": beliefs}
        send(scene, follower, beat, scene.replicas[scene.leader].position.name)
        await asyncio.sleep(0.01)
        scene.redis.stop()
        for _ in range(5):
            await scene.request(follower, "c", wait_s=1.0)
        assert scene.counts.errors == []

    in_fleet(run)


# --- growth ------------------------------------------------------------------------------------------


def test_a_defective_replica_leaves_room_in_the_queue_to_the_callers_of_others() -> None:
    policy = GatePolicy(8, 50, static_limits=StaticLimits((StaticLimit("account", 10, 1.0),)))

    async def run(scene: FleetScene) -> None:
        follower = followers(scene)[0]
        name = scene.replicas[follower].position.name
        scope = scene.replicas[0].room._names.scope("account")
        for n in range(500):
            ask = example("ask") | {"n": UNUSED + n, "lane": f"l{n}", "scope": scope, "wait": 100.0}
            send(scene, scene.leader, ask, name)
        await asyncio.sleep(0.005)
        assert len(host(scene).members[name].claims) < 80
        tasks = [
            scene.loop.create_task(scene.request(number, f"c{n}"))
            for n in range(40)
            for number in range(3)
            if number != follower
        ]
        await asyncio.sleep(0.1)
        assert scene.counts.errors == []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    in_fleet(run, policy=policy)


@contextmanager
def heard(scene: FleetScene) -> Iterator[None]:
    """Lets all names seem to be connected, as if their owners were."""
    originals = [bus._on_unheard for bus in scene.buses]
    for bus in scene.buses:
        bus._on_unheard = lambda _: None
    yield
    for bus, original in zip(scene.buses, originals, strict=True):
        bus._on_unheard = original


def test_a_leader_knows_at_most_as_many_replicas_as_a_fleet_can_have() -> None:
    async def run(scene: FleetScene) -> None:
        knows_nothing = [0, 0.0, dump((), NAME, 0.0), 1, 0.0]
        with heard(scene):
            for n in range(MAX_REPLICAS + 200):
                hello = example("hello") | {"held": [], "beliefs": knows_nothing}
                send(scene, scene.leader, hello, f"evil{n}")
            await asyncio.sleep(0.1)
            known = host(scene)
            assert len(known.members) == MAX_REPLICAS - 1
        await asyncio.sleep(5.0)
        await is_well(scene)
        assert {replica.replicas for replica in scene.replicas} == {3}

    in_fleet(run)


def test_a_leader_that_gathers_hears_at_most_as_many_replicas_as_a_fleet_can_have() -> None:
    async def run(scene: FleetScene) -> None:
        scene.kill(scene.leader)
        while all(replica.state is not State.COLLECTING for replica in scene.replicas):  # noqa: ASYNC110 - virtual
            await asyncio.sleep(0.001)
        collecting = next(n for n, replica in enumerate(scene.replicas) if replica.state is State.COLLECTING)
        lead = scene.replicas[collecting].position.lead
        assert lead is not None
        lead._awaited = 10**6  # it goes on gathering
        for n in range(MAX_REPLICAS + 200):
            send(scene, collecting, example("here"), f"evil{n}")
            send(scene, collecting, example("hello"), f"evil{n}")
        await asyncio.sleep(0.01)
        assert len(lead._here) < MAX_REPLICAS
        assert len(lead._hellos) == 0
        lead.replicas = 2

    in_fleet(run)
