"""Messages that are lost in one direction for as long as the fleet lives: no caller may wait for them."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import orjson
import pytest

from nanonets_proxy.admission.fleet.bus.port import BusError
from nanonets_proxy.admission.fleet.bus.post import seal
from nanonets_proxy.admission.fleet.homes.remote_home import UNANSWERED
from nanonets_proxy.admission.fleet.lead import Lead
from nanonets_proxy.admission.fleet.position import Position
from nanonets_proxy.admission.fleet.state import State
from simulator.limiters import FixedWindow, SlidingLog
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

Act = Callable[[FleetScene], Awaitable[None]]
RUN_S = 20.0


def in_fleet(test: Act, replicas: int = 3, callers: int = 24) -> None:
    """Runs a test in a fleet that knows its limit."""

    async def main() -> None:
        scene = FleetScene(replicas, FixedWindow(40, 4.0))
        await scene.start()
        for number in range(replicas):
            scene.callers(number, callers // replicas, f"r{number}c")
        await asyncio.sleep(24.0)
        scene.counts.clear()
        scene.changes.clear()
        await test(scene)
        await scene.stop()

    run_virtually(main())


def lose(scene: FleetScene, to: int, *, of: int, but: tuple[str, ...] = ()) -> None:
    """Loses the messages of one replica to another, but not those of some kinds."""
    sender = scene.replicas[of].position.name

    def passes(data: bytes) -> bool:
        envelope = orjson.loads(data)
        return envelope["from"] != sender or all(message["t"] in but for message in envelope["is"])

    scene.buses[to].passes = passes


def deafen(scene: FleetScene, number: int) -> None:
    """Loses all messages to a replica, also its own ones."""
    scene.buses[number].passes = lambda _: False


async def states(scene: FleetScene, for_s: float) -> list[Counter[State]]:
    """Returns how often each replica was seen in each state."""
    found = [Counter[State]() for _ in scene.replicas]
    for _ in range(round(for_s / 0.01)):
        await asyncio.sleep(0.01)
        for replica, seen in zip(scene.replicas, found, strict=True):
            seen[replica.state] += 1
    return found


def roles(scene: FleetScene) -> list[str]:
    return sorted(replica.state.value for number, replica in enumerate(scene.replicas) if number not in scene.dead)


def served(scene: FleetScene) -> list[int]:
    by_replica = scene.counts.served_by(lambda key: key[0])
    return [by_replica[number] for number in range(len(scene.replicas))]


# --- a leader that hears nothing ------------------------------------------------------------------


def test_a_leader_that_hears_nothing_lets_another_replica_lead_within_2_s() -> None:
    async def run(scene: FleetScene) -> None:
        deaf = scene.leader
        deafen(scene, deaf)
        await asyncio.sleep(2.0)
        assert scene.leader not in (deaf, -1)
        found = await states(scene, RUN_S)
        assert found[deaf].keys() <= {State.ALONE, State.COLLECTING}
        assert {reason for _, number, _, reason in scene.changes if number == deaf} == {
            "this replica hears nothing from Redis, not even its own beats"
        }
        assert scene.counts.errors == []
        assert min(served(scene)) > 0

    in_fleet(run)


def test_a_replica_that_hears_nothing_keeps_no_other_from_the_lead() -> None:
    async def run(scene: FleetScene) -> None:
        deaf = (scene.leader + 1) % 3
        deafen(scene, deaf)
        scene.kill(scene.leader)
        await asyncio.sleep(3.0)
        assert scene.leader not in (deaf, -1)
        found = await states(scene, RUN_S)
        assert found[scene.leader].keys() == {State.LEADING}
        assert found[deaf].keys() <= {State.ALONE, State.COLLECTING}

    in_fleet(run)


def test_a_single_replica_that_hears_nothing_decides_alone() -> None:
    async def run(scene: FleetScene) -> None:
        deafen(scene, 0)
        await states(scene, RUN_S)
        assert scene.replicas[0].state is not State.LEADING
        assert served(scene)[0] > 0.9 * RUN_S * 10

    in_fleet(run, 1, 8)


def test_a_replica_with_a_defect_that_keeps_it_from_its_lead_lets_another_lead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opens = Position._open

    async def run(scene: FleetScene) -> None:
        scene.loop.set_exception_handler(lambda *_: None)
        defective = scene.replicas[(scene.leader + 1) % 3].position

        def fail(self: Position, lead: Lead) -> None:
            if self is defective:
                raise ZeroDivisionError("a defect")
            opens(self, lead)

        monkeypatch.setattr(Position, "_open", fail)
        scene.kill(scene.leader)
        for bus in scene.buses:
            if bus.name != defective.name:
                bus.connects_at_s = scene.loop.time() + 2.0  # so that the defective one tries first
        await asyncio.sleep(6.0)
        assert scene.leader >= 0
        assert roles(scene) == ["following", "leading"]

    in_fleet(run)


def test_a_leader_that_may_not_tell_its_beats_lets_another_replica_lead() -> None:
    """It still holds the lease, so it would win it again and again."""

    async def run(scene: FleetScene) -> None:
        unfit = scene.leader

        async def refuse(*_: object) -> int:
            raise BusError("NOPERM this user has no permissions to run the 'publish' command")

        scene.buses[unfit].renew = refuse  # type: ignore[method-assign, assignment]
        await asyncio.sleep(3.0)
        assert scene.leader not in (unfit, -1)
        found = await states(scene, RUN_S)
        assert found[scene.leader].keys() == {State.LEADING}
        assert scene.counts.errors == []

    in_fleet(run)


# --- a leader that seems to live ------------------------------------------------------------------


def test_requests_that_wait_leave_a_leader_that_does_not_answer_any_more() -> None:
    """The requests have been told to wait, so none of them is a question."""

    async def run(scene: FleetScene) -> None:
        followers = [number for number in range(3) if number != scene.leader]
        for number in followers:
            lose(scene, number, of=scene.leader, but=("beat", "granted"))
        found = await states(scene, RUN_S)
        for number in followers:
            assert found[number][State.FOLLOWING] < 2.0 * 100
            assert served(scene)[number] > 0

    in_fleet(run)


def test_requests_that_wait_leave_a_leader_that_does_not_hear_them_any_more() -> None:
    async def run(scene: FleetScene) -> None:
        follower = (scene.leader + 1) % 3
        scene.limiter = SlidingLog(1, 30.0)
        await asyncio.sleep(5.0)
        lose(scene, scene.leader, of=follower)
        found = await states(scene, RUN_S)
        assert found[follower][State.FOLLOWING] < 2.0 * 100

    in_fleet(run)


def test_a_follower_that_no_welcome_reaches_uses_its_share() -> None:
    """It hears the beats. With each of them, it could say hello, and its requests would wait for the welcome."""

    async def run(scene: FleetScene) -> None:
        follower = (scene.leader + 1) % 3
        lose(scene, follower, of=scene.leader, but=("beat", "granted"))
        found = await states(scene, 60.0)
        assert found[follower][State.ALONE] > 0.9 * 60.0 * 100
        assert served(scene)[follower] > 60
        assert {reason for at_s, number, _, reason in scene.changes if number == follower} == {
            "no answer from Redis or from the leader",
            "the leader does not answer this replica",
        }
        assert len(scene.changes) < 20

    in_fleet(run)


def test_a_follower_that_is_welcome_and_gets_no_answer_uses_its_share() -> None:
    async def run(scene: FleetScene) -> None:
        follower = (scene.leader + 1) % 3
        lose(scene, follower, of=scene.leader, but=("beat", "granted", "welcome"))
        found = await states(scene, 60.0)
        assert found[follower][State.ALONE] > 0.9 * 60.0 * 100
        assert served(scene)[follower] > 60

    in_fleet(run)


def test_a_follower_joins_once_the_leader_welcomes_it_again() -> None:
    async def run(scene: FleetScene) -> None:
        follower = (scene.leader + 1) % 3
        lose(scene, follower, of=scene.leader, but=("beat", "granted"))
        await asyncio.sleep(60.0)
        scene.buses[follower].passes = lambda _: True
        await asyncio.sleep(8.5)
        assert scene.replicas[follower].state is State.FOLLOWING

    in_fleet(run)


def test_a_follower_joins_another_leader_at_once() -> None:
    async def run(scene: FleetScene) -> None:
        follower = (scene.leader + 1) % 3
        lose(scene, follower, of=scene.leader, but=("beat", "granted"))
        await asyncio.sleep(60.0)
        scene.kill(scene.leader)
        await asyncio.sleep(2.0)
        assert roles(scene) == ["following", "leading"]

    in_fleet(run)


def test_a_program_that_only_beats_moves_no_replica_again_and_again() -> None:
    """It has the password of Redis, and invents a later epoch each time."""

    async def run(scene: FleetScene) -> None:
        async def beat() -> None:
            while True:
                await asyncio.sleep(0.25)
                epoch = max(replica.position.epoch for replica in scene.replicas) + 1
                raw = seal("evil", epoch, 0.0, [{"t": "beat", "replicas": 3}])
                for bus in scene.buses:
                    bus.deliver(raw, scene.loop)

        scene.tasks.append(scene.loop.create_task(beat()))
        await asyncio.sleep(20.0)
        scene.changes.clear()
        await asyncio.sleep(RUN_S)
        assert len(scene.changes) < 50
        assert scene.counts.errors == []

    in_fleet(run)


def test_a_follower_stays_with_a_leader_whose_limit_is_used_up() -> None:
    async def run(scene: FleetScene) -> None:
        scene.limiter = SlidingLog(1, 30.0)
        await asyncio.sleep(RUN_S)
        assert scene.changes == []

    in_fleet(run)


def test_requests_that_wait_do_not_leave_a_leader_that_stands_still_for_less_than_a_second() -> None:
    """If it stands still for longer, its beats are missing too."""

    async def run(scene: FleetScene) -> None:
        scene.limiter = SlidingLog(1, 30.0)
        for _ in range(20):
            scene.processes[scene.leader].stand_still(0.9)
            await asyncio.sleep(3.01)
        assert UNANSWERED not in {reason for _, _, _, reason in scene.changes}

    in_fleet(run)
