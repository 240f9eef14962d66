"""A fleet in virtual time: one gate for all replicas, whatever fails."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.errors import ShuttingDown
from simulator.limiters import Concurrency, FixedWindow, Limiter, SlidingLog, TokenBucket
from support.gate.fleet_scene import FleetScene, jain
from support.gate.virtual_loop import run_virtually

RUN_S = 40.0
LIMITED = GatePolicy(
    max_in_flight=256,
    max_waiting=10_000,
    static_limits=StaticLimits((StaticLimit("account", 40, 4.0),)),
)

Act = Callable[[FleetScene], Awaitable[None]]


def in_fleet(
    replicas: int,
    limiter: Limiter | None,
    test: Act,
    policy: GatePolicy | None = None,
    *,
    whole_seconds: bool = True,
) -> None:
    async def main() -> None:
        scene = FleetScene(replicas, limiter, policy, whole_seconds=whole_seconds)
        await scene.start()
        await test(scene)
        await scene.stop()

    run_virtually(main())


def window() -> FixedWindow:
    return FixedWindow(40, 4.0)


# --- one gate for all ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limiter", "rate"),
    [
        (lambda: FixedWindow(40, 4.0), 10.0),
        (lambda: SlidingLog(40, 4.0), 10.0),
        (lambda: TokenBucket(10, 10.0), 10.0),
        (lambda: Concurrency(2), 15.0),
    ],
)
@pytest.mark.parametrize("replicas", [8])
def test_a_fleet_uses_the_quota_like_one_proxy(limiter: Callable[[], Limiter], rate: float, replicas: int) -> None:
    served: dict[int, int] = {}
    refused: dict[int, int] = {}
    for count in (1, replicas):

        async def run(scene: FleetScene, count: int = count) -> None:
            for number in range(count):
                scene.callers(number, 24 // count, f"r{number}c")
            await asyncio.sleep(RUN_S)
            assert scene.counts.errors == []
            served[count] = len(scene.counts.served_at_s)
            refused[count] = len(scene.counts.refused_at_s)
            if count > 1:
                by_replica = scene.counts.served_by(lambda each: each[0])
                assert jain([by_replica[number] for number in range(count)]) >= 0.95

        in_fleet(count, limiter(), run)
    assert served[replicas] >= 0.95 * served[1]
    assert served[replicas] >= 0.9 * rate * RUN_S
    assert refused[replicas] <= 1.5 * refused[1] + 3


def test_turns_go_by_caller_and_not_by_replica() -> None:
    async def run(scene: FleetScene) -> None:
        scene.callers(0, 100, "many")
        scene.callers(1, 1, "one")
        await asyncio.sleep(2 * RUN_S)
        by_caller = scene.counts.served_by(lambda each: each[1])
        assert len(by_caller) == 101
        assert jain(list(map(float, by_caller.values()))) >= 0.98

    in_fleet(2, window(), run)


def test_a_refusal_anywhere_closes_the_scope_everywhere_within_50_ms() -> None:
    async def run(scene: FleetScene) -> None:
        for number in range(8):
            scene.callers(number, 3, f"r{number}c")
        await asyncio.sleep(20.0)
        for closed_s in scene.counts.refused_at_s:
            # With an exact hint of seconds, nothing is tried before its end.
            late = [number for at_s, number in scene.counts.sent if closed_s + 0.05 < at_s < closed_s + 0.5]
            assert late == []

    in_fleet(8, window(), run, whole_seconds=False)


def test_an_idle_fleet_sends_nothing_but_its_heartbeat() -> None:
    async def run(scene: FleetScene) -> None:
        await asyncio.sleep(10.0)
        before = scene.redis.published
        await asyncio.sleep(10.0)
        assert scene.redis.published - before <= 10 * (4 + 2 * 2) + 2
        assert scene.redis.campaigns < 20

    in_fleet(3, window(), run)


def test_a_static_limit_holds_for_all_together() -> None:
    async def run(scene: FleetScene) -> None:
        for number in range(3):
            scene.callers(number, 10, f"r{number}c")
        await asyncio.sleep(20.0)
        assert scene.counts.refused_at_s == []
        assert len(scene.counts.served_at_s) >= 40 * 5 - 5
        instants = [at_s for at_s, _ in scene.counts.sent]
        assert all(later - at_s > 3.9 for at_s, later in zip(instants, instants[41:], strict=False))

    in_fleet(3, SlidingLog(40, 3.9), run, LIMITED)


@pytest.mark.parametrize("is_reloaded", [False, True])
def test_the_weights_of_callers_hold_in_the_whole_fleet(is_reloaded: bool) -> None:
    """Gates of a fleet know callers by hashes."""
    weighted = replace(LIMITED, lane_weights=(("heavy0", 3),))

    async def run(scene: FleetScene) -> None:
        if is_reloaded:
            for replica in scene.replicas:
                replica.change_policy(weighted)
        for number in range(3):
            for name in ("heavy", "light"):
                for _ in range(20):
                    scene.callers(number, 1, name)
        await asyncio.sleep(RUN_S)
        served = scene.counts.served_by(lambda each: each[1])
        assert served["heavy0"] >= 2.5 * served["light0"]

    in_fleet(3, window(), run, LIMITED if is_reloaded else weighted)


# --- faults ------------------------------------------------------------------------------------------


async def nothing(scene: FleetScene) -> None:
    """The control."""


async def kill_the_leader(scene: FleetScene) -> None:
    scene.kill(scene.leader)


async def kill_a_follower(scene: FleetScene) -> None:
    scene.kill(next(number for number in range(len(scene.replicas)) if number != scene.leader))


async def hang(scene: FleetScene, for_s: float) -> None:
    scene.redis.hangs = True
    await asyncio.sleep(for_s)
    scene.redis.resume()


async def hang_for_5_s(scene: FleetScene) -> None:
    await hang(scene, 5.0)


async def hang_for_3_s(scene: FleetScene) -> None:
    await hang(scene, 3.0)


async def hang_for_a_moment(scene: FleetScene) -> None:
    await hang(scene, 0.3)


async def restart_redis(scene: FleetScene) -> None:
    scene.redis.stop()
    scene.redis.flush_all()
    await asyncio.sleep(4.0)
    scene.redis.come_back()


async def restart_redis_and_reconnect_late(scene: FleetScene) -> None:
    scene.redis.reconnect_s = 0.4
    await restart_redis(scene)


async def wipe(scene: FleetScene) -> None:
    scene.redis.flush_all()


async def read_only_for_5_s(scene: FleetScene) -> None:
    scene.redis.is_read_only = True
    await asyncio.sleep(5.0)
    scene.redis.is_read_only = False


async def add_a_replica(scene: FleetScene) -> None:
    replica = scene.add()
    await replica.start(1.0)
    scene.callers(len(scene.replicas) - 1, 4, "new")


@pytest.mark.parametrize("replicas", [3])
@pytest.mark.parametrize(
    "fault",
    [
        *(nothing, kill_the_leader, kill_a_follower, hang_for_5_s, hang_for_a_moment, restart_redis),
        restart_redis_and_reconnect_late,
        *(wipe, read_only_for_5_s, add_a_replica),
    ],
)
def test_no_caller_fails_and_few_requests_are_refused_whatever_happens(fault: Act, replicas: int) -> None:
    async def run(scene: FleetScene) -> None:
        for number in range(replicas):
            scene.callers(number, 24 // replicas, f"r{number}c")
        await asyncio.sleep(30.0)
        since_s, before = scene.loop.time(), len(scene.counts.served_at_s)
        await fault(scene)
        await asyncio.sleep(since_s + 30.0 - scene.loop.time())
        assert scene.counts.errors == []
        assert scene.counts.refused_since(since_s) <= 20
        assert len(scene.counts.served_at_s) - before >= 0.85 * 300
        alive = [r for number, r in enumerate(scene.replicas) if number not in scene.dead]
        assert sorted(r.state.value for r in alive) == ["following"] * (len(alive) - 1) + ["leading"]
        assert {r.replicas for r in alive} == {len(alive)}

    in_fleet(replicas, window(), run)


async def lose_redis_for_3_s(scene: FleetScene) -> None:
    scene.redis.stop()
    await asyncio.sleep(3.0)
    scene.redis.come_back()


@pytest.mark.parametrize("at_s", [1.3, 2.8, 4.0])
@pytest.mark.parametrize(
    ("fault", "whole_seconds"), [(lose_redis_for_3_s, True), (hang_for_3_s, True), (hang_for_3_s, False)]
)
def test_a_fault_while_the_first_closure_lasts_does_not_spoil_what_is_learned(
    fault: Act, at_s: float, *, whole_seconds: bool
) -> None:
    """The first closure lasts from 0.15 s to 4 s. A new leader then knows only its end."""

    async def run(scene: FleetScene) -> None:
        for number in range(3):
            scene.callers(number, 8, f"r{number}c")
        await asyncio.sleep(at_s)
        since_s = scene.loop.time()
        await fault(scene)
        await asyncio.sleep(27.0)
        assert scene.counts.errors == []
        assert scene.counts.refused_since(since_s) <= 30
        assert scene.counts.refused_since(scene.loop.time() - 10.0) <= 8
        (status,) = scene.replicas[scene.leader].gate().scopes.statuses(scene.loop.time(), 5)
        assert (status.count or 0) / (status.period_s or 1) == pytest.approx(10.0, rel=0.03)

    in_fleet(3, window(), run, whole_seconds=whole_seconds)


def test_a_closure_that_a_dead_leader_told_nobody_is_known_to_the_replica_that_met_it() -> None:
    async def run(scene: FleetScene) -> None:
        await asyncio.sleep(1.0)
        follower = next(number for number in range(2) if number != scene.leader)
        scene.kill(scene.leader)
        await asyncio.sleep(0.01)
        room = scene.replicas[follower].room
        assert scene.replicas[follower].state is State.FOLLOWING
        room.on_refused(room._names.scope("account"), scene.loop.time() + 9.0)
        task = scene.loop.create_task(scene.request(follower, "caller"))
        await asyncio.sleep(8.9)
        assert scene.counts.sent == []
        await asyncio.sleep(0.2)
        assert len(scene.counts.sent) == 1
        await task

    in_fleet(2, None, run)


def test_the_share_of_a_dead_replica_is_in_use_again_within_2_s() -> None:
    """A concurrency limit shows it: the dead replica's requests in flight would hold its places for ever."""

    async def run(scene: FleetScene) -> None:
        for number in range(3):
            scene.callers(number, 4, f"r{number}c")
        await asyncio.sleep(20.0)
        scene.kill(next(number for number in range(3) if number != scene.leader))
        await asyncio.sleep(2.0)
        before = len(scene.counts.served_at_s)
        await asyncio.sleep(5.0)
        assert len(scene.counts.served_at_s) - before >= 5.0 * 3 / 0.14 * 0.8

    policy = GatePolicy(max_in_flight=256, max_waiting=1000)
    in_fleet(3, Concurrency(6), run, policy)


def test_a_leader_that_stops_hands_over_without_a_429() -> None:
    """As in a restart: a new replica serves the callers of the leader, which has used its part of the limit."""

    async def run(scene: FleetScene) -> None:
        scene.callers(scene.leader, 10, "first")
        scene.callers(1 - scene.leader, 10, "second")
        await asyncio.sleep(21.0)
        old = scene.leader
        await scene.add().start(1.0)
        await asyncio.sleep(0.3)
        since_s = scene.loop.time()
        for task in scene.tasks[:10]:
            task.cancel()
        await asyncio.gather(*scene.tasks[:10], return_exceptions=True)
        scene.callers(2, 10, "first")
        scene.replicas[old].room.close()
        scene.dead.add(old)
        await scene.replicas[old].stop()
        await asyncio.sleep(0.25)
        alive = [replica for number, replica in enumerate(scene.replicas) if number != old]
        assert sorted(replica.state.value for replica in alive) == ["following", "leading"]
        assert [change for change in scene.changes if change[0] > since_s and change[2] is State.ALONE] == []
        await asyncio.sleep(20.0)
        assert scene.counts.refused_since(since_s) == 0
        assert scene.counts.errors == []

    in_fleet(2, SlidingLog(40, 3.9), run, LIMITED)


@pytest.mark.parametrize("is_leader", [True, False])
def test_while_a_replica_drains_a_request_that_need_not_wait_is_served(*, is_leader: bool) -> None:
    """As without a fleet: it may be the first request of a connection that came before the drain."""

    async def run(scene: FleetScene) -> None:
        number = scene.leader if is_leader else 1 - scene.leader
        room = scene.replicas[number].room
        tasks = [scene.loop.create_task(scene.request(number, "caller")) for _ in range(3)]
        await asyncio.sleep(0.01)
        room.close()
        await asyncio.sleep(1.0)
        assert len(scene.counts.served_at_s) == 2
        assert [type(error) for error in scene.counts.errors] == [ShuttingDown]
        await asyncio.sleep(4.0)
        await scene.request(number, "new")
        assert len(scene.counts.served_at_s) == 3
        await asyncio.gather(*(scene.request(number, "new") for _ in range(2)))
        assert len(scene.counts.served_at_s) == 4
        assert [type(error) for error in scene.counts.errors] == [ShuttingDown] * 2
        assert (room.in_flight, room.waiting) == (0, 0)
        gate = scene.replicas[scene.leader].gate()
        assert (gate.in_flight, gate.waiting) == (0, 0)
        await asyncio.gather(*tasks)

    policy = GatePolicy(256, 1000, static_limits=StaticLimits((StaticLimit("account", 2, 4.0),)))
    in_fleet(2, SlidingLog(2, 3.9), run, policy)


def test_while_redis_is_away_all_replicas_together_keep_to_the_limit() -> None:
    async def run(scene: FleetScene) -> None:
        for number in range(4):
            scene.callers(number, 10, f"r{number}c")
        await asyncio.sleep(20.0)
        scene.redis.stop()
        assert {replica.state for replica in scene.replicas} == {State.ALONE}
        away_s = scene.loop.time()
        await asyncio.sleep(30.0)
        sent = [at_s for at_s, _ in scene.counts.sent if at_s > away_s]
        assert all(later - at_s > 3.9 for at_s, later in zip(sent, sent[41:], strict=False))
        by_replica = [sum(n == number for at_s, n in scene.counts.sent if at_s > away_s) for number in range(4)]
        assert jain(list(map(float, by_replica))) >= 0.95
        # What the leader granted after its last beat is known only to the replica that got it.
        assert scene.counts.refused_since(away_s) <= 1

    in_fleet(4, SlidingLog(40, 3.9), run, LIMITED)


def test_a_limit_smaller_than_the_fleet_still_gives_each_replica_its_turn() -> None:
    async def run(scene: FleetScene) -> None:
        for number in range(4):
            scene.callers(number, 1, f"r{number}c")
        await asyncio.sleep(20.0)
        scene.redis.stop()
        away_s = scene.loop.time()
        await asyncio.sleep(20.0)
        assert {number for at_s, number in scene.counts.sent if at_s > away_s} == {0, 1, 2, 3}

    policy = GatePolicy(256, 1000, static_limits=StaticLimits((StaticLimit("account", 2, 2.0),)))
    in_fleet(4, SlidingLog(2, 2.0), run, policy)


def test_a_hanging_redis_delays_a_request_by_about_50_ms_at_most() -> None:
    async def run(scene: FleetScene) -> None:
        for number in range(3):
            scene.callers(number, 1, f"r{number}c", pause_s=0.01)
        await asyncio.sleep(5.0)
        scene.counts.waits_s.clear()
        await hang_for_5_s(scene)
        await asyncio.sleep(2.0)
        waits = sorted(scene.counts.waits_s)
        assert waits[-1] <= 0.3  # and the renewed fleet collects its replicas
        assert waits[int(0.95 * len(waits))] <= 0.005

    in_fleet(3, None, run)


def test_a_leader_that_was_stopped_does_not_decide_when_it_goes_on() -> None:
    async def run(scene: FleetScene) -> None:
        await asyncio.sleep(1.0)
        leader = scene.replicas[scene.leader]
        assert leader.room.valid_until_s < math.inf
        # SIGSTOP: the clock goes on, and the process first handles a request when it goes on.
        leader.room.valid_until_s = scene.loop.time() - 0.001
        task = scene.loop.create_task(scene.request(scene.replicas.index(leader), "caller"))
        await asyncio.sleep(0)
        assert leader.state is State.JOINING
        assert scene.counts.sent == []
        await task

    in_fleet(2, None, run)


@pytest.mark.parametrize("together", [False, True])
def test_a_fleet_that_starts_again_as_a_whole_remembers_its_limits(*, together: bool) -> None:
    """Replicas that start together tell each other that they know nothing."""

    async def run(scene: FleetScene) -> None:
        for number in range(2):
            scene.callers(number, 12, f"r{number}c")
        await asyncio.sleep(30.0)
        for number in range(2):
            scene.kill(number)
        await asyncio.sleep(2.0)
        starts = [scene.add().start(1.0) for _ in range(2)]
        if together:
            await asyncio.gather(*starts)
        for start in () if together else starts:
            await start
        await asyncio.sleep(0.1)
        statuses = [replica.gate().scopes.statuses(scene.loop.time(), 5) for replica in scene.replicas[2:]]
        assert [(status.count, status.period_s) for (status,) in statuses] == [(40, 4.0)] * 2

    in_fleet(2, window(), run)


@pytest.mark.parametrize(("what", "nth"), [("grant", 2), ("end", 1), ("leave", 1), ("wait", 1)])
def test_a_lost_message_is_made_up_for_within_a_second(what: str, nth: int) -> None:
    """Of several requests at a limit of two, so that each message is sent. The second grant ends a wait."""

    async def run(scene: FleetScene) -> None:
        follower = next(number for number in range(2) if number != scene.leader)
        matching: list[bytes] = []

        def passes(data: bytes) -> bool:
            is_match = b'"t":"%s"' % what.encode() in data
            if is_match:
                matching.append(data)
            return not is_match or len(matching) != nth

        for bus in scene.buses:
            bus.passes = passes
        tasks = [scene.loop.create_task(scene.request(follower, f"c{number}")) for number in range(6)]
        await asyncio.sleep(0.15)
        tasks.pop().cancel()
        await asyncio.sleep(1.5)
        assert len(matching) >= nth
        assert len(scene.counts.served_at_s) == 5
        assert scene.counts.errors == []
        gate = scene.replicas[scene.leader].gate()
        assert (gate.in_flight, gate.waiting) == (0, 0)
        assert (scene.replicas[follower].room.in_flight, scene.replicas[follower].room.waiting) == (0, 0)
        await asyncio.gather(*tasks)

    policy = GatePolicy(256, 1000, static_limits=StaticLimits((StaticLimit("account", 2, 0.2),)))
    in_fleet(2, SlidingLog(2, 0.19), run, policy)


def test_a_malformed_message_changes_nothing() -> None:
    async def run(scene: FleetScene) -> None:
        await asyncio.sleep(1.0)
        leader = scene.replicas[scene.leader]
        epoch = leader.room.epoch
        for data in (
            b"",
            b"[]",
            b'{"from":"x"}',
            b'{"from":"x","epoch":%d,"is":[1]}' % epoch,
            b'{"from":"x","epoch":%d,"is":[{"t":"hello"}]}' % epoch,
            b'{"from":"x","epoch":%d,"is":[{"t":"hello","places":-1,"scopes":{},"held":[]}]}' % epoch,
            b'{"from":"r1","epoch":%d,"is":[{"t":"ask","n":1}]}' % epoch,
            b'{"from":"r1","epoch":%d,"is":[{"t":"what"}]}' % epoch,
            b'{"from":"x","epoch":%d,"is":[{"t":"beat"}]}' % (epoch + 1),
        ):
            for bus in scene.buses:
                bus.deliver(data, scene.loop)
        await asyncio.sleep(1.0)
        await asyncio.gather(*(scene.request(number, "caller") for number in range(3)))
        assert scene.counts.errors == []

    in_fleet(3, None, run)


# --- readiness ---------------------------------------------------------------------------------------


async def _terminate(scene: FleetScene) -> None:
    leader, number = scene.replicas[scene.leader], scene.leader
    scene.dead.add(number)
    leader.room.close()
    await leader.stop()


async def _kill(scene: FleetScene) -> None:
    scene.kill(scene.leader)


@pytest.mark.parametrize("fault", [_terminate, _kill])
@pytest.mark.parametrize("seed", range(4))
def test_a_change_of_the_leader_ends_before_replicas_are_unready(fault: Act, seed: int) -> None:
    """All of them would be unready at the same moment, so a load balancer would have no replica left."""

    async def main() -> None:
        scene = FleetScene(3, window(), LIMITED, seed=seed)
        await scene.start()
        await asyncio.sleep(2.0)
        assert [replica.uncoordinated_for_s for replica in scene.replicas] == [0.0] * 3
        await fault(scene)
        longest_s = 0.0
        for _ in range(500):
            await asyncio.sleep(0.01)
            living = [replica for n, replica in enumerate(scene.replicas) if n not in scene.dead]
            longest_s = max([longest_s, *(replica.uncoordinated_for_s for replica in living)])
        assert 0.0 < longest_s < 2.5
        assert all(replica.is_coordinated for replica in living)
        scene.redis.stop()
        await asyncio.sleep(5.0)
        assert all(4.5 < replica.uncoordinated_for_s < 5.5 for replica in living)
        await scene.stop()

    run_virtually(main())


def test_a_replica_without_redis_has_never_been_coordinated() -> None:
    async def main() -> None:
        scene = FleetScene(1, None)
        scene.redis.stop()
        await scene.start()
        assert scene.replicas[0].uncoordinated_for_s == math.inf
        await scene.stop()

    run_virtually(main())
