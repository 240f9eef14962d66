"""Messages that arrive late, and processes that stand still. The leader times each event by when it happened."""

import asyncio
import json
import math
import random
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.faults import BUSY, FAULTS, LEARNING_AT_S, Busy, be_busy, run
from nanonets_proxy.admission.fleet.beliefs import NAME
from nanonets_proxy.admission.fleet.bus.post import seal, unseal
from nanonets_proxy.admission.waiting_room import WaitingRoom
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.snapshot import dump
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from simulator.limiters import FixedWindow
from support.gate.fleet_scene import FleetScene
from support.gate.memory_bus import MemoryRedis
from support.gate.replica_loop import ReplicaLoop
from support.gate.virtual_loop import run_virtually

TOLERANCE_S = 0.007
"""Smaller delays are not told (5 ms), and the fastest message took 1 ms."""


@pytest.mark.parametrize(
    ("seed", "underway_s", "clocks_off_s"), [(1, 0.0, 1e5), (3, 0.03, -1e5), (4, 0.1, 7.0), (6, 0.04, 0.0)]
)
def test_the_leader_knows_when_each_request_was_sent(seed: int, underway_s: float, clocks_off_s: float) -> None:
    """Messages take up to 100 ms, and each replica stands still for 60 ms now and then."""

    async def main() -> None:
        redis = MemoryRedis(chance=random.Random(seed), delay_s=0.001)
        scene = FleetScene(3, None, seed=seed, clocks_off_s=clocks_off_s, redis=redis)
        await scene.start()
        for number in range(3):
            scene.callers(number, 3, f"r{number}c")
        await asyncio.sleep(1.0)
        redis.jitter_s = underway_s
        scene.tasks.append(scene.loop.create_task(be_busy(scene, BUSY, scene.random)))
        await asyncio.sleep(3.0)
        leader, until_s = scene.leader, scene.loop.time() - 1.0
        assert leader >= 0
        (scope,) = scene.replicas[leader].gate().scopes
        known_s = [at_s - leader * clocks_off_s for at_s, _ in scope.limit.estimate.window.grants_since(-math.inf)]
        for sent_s, _ in scene.counts.sent:
            if until_s - 1.5 < sent_s < until_s:
                assert any(abs(each_s - sent_s) < TOLERANCE_S for each_s in known_s)
        await scene.stop()

    run_virtually(main())


def test_a_429_that_the_leader_hears_late_does_not_close_the_scope_for_longer() -> None:
    async def main() -> None:
        scene = FleetScene(2, FixedWindow(1, 10.0), whole_seconds=False)
        await scene.start()
        await asyncio.sleep(1.0)
        leader, follower = scene.leader, 1 - scene.leader
        tasks = [scene.loop.create_task(scene.request(follower, f"c{number}")) for number in range(2)]
        await asyncio.sleep(0.015)
        scene.processes[leader].stand_still(0.3)
        await asyncio.sleep(1.0)
        (scope,) = scene.replicas[leader].gate().scopes
        begun_s = scene.counts.sent[0][0]
        assert scene.counts.refused_at_s
        assert begun_s + 9.98 < scope.limit.opens_at_s < begun_s + 10.04
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("seed", [1, 31])
def test_a_busy_fleet_learns_the_true_period(seed: int) -> None:
    """Of windows of 40 in 4 s, it would take some for 5 s long: a grant arrives late, and so does its request."""
    found = run(FAULTS["none"], LEARNING_AT_S[(seed - 1) % 9], seed=seed, busy=BUSY)
    assert found.learned == pytest.approx(10.0)


def test_a_fleet_keeps_the_true_period_once_redis_is_fast_again() -> None:
    found = run(FAULTS["Redis: 20 ms slow for 20 s"], LEARNING_AT_S[4], seed=5)
    assert found.learned == pytest.approx(10.0)


@pytest.mark.parametrize("when", [0, 1])
def test_a_replica_that_stood_still_reads_its_messages_before_it_uses_its_share(when: int) -> None:
    """Its request beside those of the leader would be refused, and teach 5 s instead of 4 s."""
    found = run(FAULTS["follower: SIGSTOP for 20 s"], LEARNING_AT_S[when], seed=when + 1)
    assert found.learned == pytest.approx(10.0)
    assert found.refused <= 9


def test_a_grant_that_is_a_second_old_is_not_used() -> None:
    """The leader may count it as used since the grant, and the next period may have begun."""

    async def main() -> None:
        scene = FleetScene(2, None)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = 1 - scene.leader
        task = scene.loop.create_task(scene.request(follower, "c"))
        await asyncio.sleep(0.0005)  # its question is on its way
        scene.processes[follower].stand_still(5.0)
        began_s = scene.loop.time()
        await asyncio.sleep(6.0)
        assert task.done()
        (scope,) = scene.replicas[scene.leader].gate().scopes
        # The first grant counts as used, since the leader took the follower for dead.
        assert len(scope.limit.estimate.window.grants_since(began_s + 4.9)) == 1
        await scene.stop()

    run_virtually(main())


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_late_messages_change_nothing_of_what_is_learned(seed: int) -> None:
    """Each replica stands still for up to 300 ms. The leader learns what one proxy on its own learns."""
    fleet = run(FAULTS["none"], 1.0, seed=seed, busy=Busy(0.8, 0.06, most_s=0.3), after_s=20.0)
    alone = run(FAULTS["none"], 1.0, seed=seed, replicas=1, after_s=20.0)
    assert fleet.learned == pytest.approx(alone.learned, rel=0.05)


def test_a_process_that_stood_still_reads_a_429_before_it_takes_the_request_for_accepted() -> None:
    async def main() -> None:
        process = ReplicaLoop(asyncio.get_running_loop())
        gate = Gate(GatePolicy(max_in_flight=10, max_waiting=10, initial_unconfirmed=1), lambda: 0.0)
        room = WaitingRoom(gate, cast("asyncio.AbstractEventLoop", process))
        first, second = (Ticket("a", 5000.0, lane) for lane in ("a", "b"))
        assert room.enter(first, process.time()) is None
        future = room.enter(second, process.time())
        await asyncio.sleep(0.01)
        process.stand_still(1.0)
        await asyncio.sleep(0.9)
        process.deliver(room.settle, first, Outcome.THROTTLED, 10.0)
        await asyncio.sleep(1.0)
        assert future is not None
        assert not future.done()
        future.cancel()

    run_virtually(main())


def test_no_request_waits_for_a_machine_that_was_suspended() -> None:
    """Its clock is 10 s behind now, so its messages seem to come 10 s late."""

    async def main() -> None:
        scene = FleetScene(3, None)
        await scene.start()
        await asyncio.sleep(1.0)
        suspended = scene.leader
        scene.processes[suspended].suspend(10.0)
        await asyncio.sleep(10.1)
        second = scene.leader
        assert second != suspended
        await scene.request(suspended, "c", wait_s=0.5)
        (third,) = {0, 1, 2} - {suspended, second}
        await asyncio.sleep(1.0)
        scene.processes[third].stand_still(1.2)  # it does not ask for the lease
        scene.kill(second)
        await asyncio.sleep(3.0)
        assert scene.leader == suspended
        published = scene.redis.published
        await scene.request(third, "c", wait_s=0.5)
        assert scene.counts.errors == []
        assert max(scene.counts.waits_s) < 0.01
        assert scene.redis.published < published + 20
        await scene.stop()

    run_virtually(main())


def test_a_request_whose_grant_was_lost_counts_from_when_it_was_sent() -> None:
    async def main() -> None:
        scene = FleetScene(2, None, GatePolicy(max_in_flight=10, max_waiting=10, initial_unconfirmed=1))
        await scene.start()
        await asyncio.sleep(1.0)
        follower, lost_at_s = 1 - scene.leader, []

        def passes(data: bytes) -> bool:
            is_lost = b'"grant"' in data and not lost_at_s
            if is_lost:
                lost_at_s.append(scene.loop.time())
            return not is_lost

        scene.buses[follower].passes = passes
        first = scene.loop.create_task(scene.request(scene.leader, "a"))
        await scene.request(follower, "b")  # it waits for the first
        await first
        sent_s, number = scene.counts.sent[-1]
        assert number == follower
        assert sent_s > lost_at_s[0] + 0.3
        (scope,) = scene.replicas[scene.leader].gate().scopes
        known_s = max(at_s for at_s, _ in scope.limit.estimate.window.grants_since(-math.inf))
        assert known_s == pytest.approx(sent_s, abs=TOLERANCE_S)
        await scene.stop()

    run_virtually(main())


def test_no_request_counts_as_sent_before_its_grant() -> None:
    """While Redis is slow, a member whose clock stood still for a moment seems to have sent it earlier."""

    async def main() -> None:
        scene = FleetScene(2, None, service_s=5.0)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = 1 - scene.leader
        scene.processes[follower].suspend(0.2)
        scene.redis.jitter_s = 0.03
        await asyncio.sleep(0.5)
        began_s = scene.loop.time()
        tasks = [scene.loop.create_task(scene.request(follower, f"c{number}")) for number in range(5)]
        await asyncio.sleep(0.5)
        (scope,) = scene.replicas[scene.leader].gate().scopes
        assert len(scope.limit.estimate.window.grants_since(began_s)) == 5
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("at", ["NaN", "-inf", None, "x", 1e400])
def test_an_envelope_without_a_time_is_malformed(at: object) -> None:
    data = b'{"from": "a", "epoch": 1, "at": %s, "is": []}' % json.dumps(at).encode()
    with pytest.raises((ValueError, TypeError)):
        unseal(data)


def test_a_hello_that_comes_late_tells_when_its_requests_were_sent() -> None:
    async def main() -> None:
        scene = FleetScene(2, None)
        await scene.start()
        await asyncio.sleep(1.0)
        lead, now_s = scene.replicas[scene.leader].position.lead, scene.processes[scene.leader].time()
        assert lead is not None
        assert lead.host is not None
        scopes, held = {"s": [[[1.0, 1, 1]], 3.0]}, [[7, "s", "lane", 9.0, 1, 0.25, False]]
        hello = {
            "from": "x",
            "sent_at_s": now_s - 0.5,
            "places": 1,
            "scopes": scopes,
            "held": held,
            "refused": [],
            "logged": [],
        }
        lead.host.hello(hello, now_s)
        limit = lead.host.home.gate.scopes.by_name["s"].limit
        assert [at_s for at_s, _ in limit.estimate.window.grants_since(-math.inf)] == [now_s - 1.5, now_s - 0.75]
        assert limit.opens_at_s == now_s + 2.5
        assert lead.host.members["x"].claims[7].granted_at_s == now_s - 0.75
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("what", ["granted", "resign", "beat"])
def test_what_a_leader_tells_is_as_old_as_its_message(what: str) -> None:
    async def main() -> None:
        scene = FleetScene(2, None, clocks_off_s=1e4)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = 1 - scene.leader
        leader, replica = scene.replicas[scene.leader].position, scene.replicas[follower]
        message = {"t": what, "log": [["s", 1.0, 1]], "replicas": 1, "beliefs": dump([], NAME, 0.0)}
        late = seal(leader.name, leader.epoch, scene.processes[scene.leader].time() - 0.2, [message])
        scene.buses[follower].deliver(late, scene.loop)
        await asyncio.sleep(0.001)
        now_s, beliefs = scene.processes[follower].time(), replica.beliefs
        if what == "beat":
            assert beliefs.at_s == pytest.approx(now_s - 0.2, abs=TOLERANCE_S)
        else:
            ((age_s, _, _),) = beliefs.leader_log.ages(now_s, -1, {})["s"]
            assert age_s == pytest.approx(1.2, abs=TOLERANCE_S)
        await scene.stop()

    run_virtually(main())
