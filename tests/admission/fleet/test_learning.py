"""Faults while a limit is being learned, in virtual time. Callers never fail, and few requests are refused."""

import asyncio

import pytest

from fleet.faults import FAULTS, LEARNING_AT_S, run
from nanonets_proxy.admission.fleet.homes.claim import REPORT_LOST_S, OwnClaim
from nanonets_proxy.admission.fleet.homes.remote_home import Message, RemoteHome
from nanonets_proxy.admission.fleet.places import Places
from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Ticket, TicketState
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually


@pytest.mark.parametrize(
    ("fault", "when"),
    [
        ("leader: SIGKILL", 4),
        ("follower: SIGSTOP for 20 s", 2),
        ("Redis: hangs for 0.3 s", 3),
        ("Redis: hangs for 3 s", 1),
        ("Redis: away for 3 s, then empty", 1),
        ("Redis: away for 30 s, then empty", 2),
        ("Redis: read-only for 5 s", 1),
        ("Redis: 20 ms slow for 20 s", 0),
    ],
)
def test_a_fault_while_the_limit_is_being_learned_costs_few_429s(fault: str, when: int) -> None:
    """Without a fault, a fleet draws up to 9 429s in these 40 s."""
    found = run(FAULTS[fault], LEARNING_AT_S[when])
    assert found.refused <= 20
    assert found.errors == 0


def test_a_leader_tells_its_own_grants_at_once() -> None:
    """If it dies before its next beat, the next leader must not grant them again."""

    async def main() -> None:
        scene = FleetScene(2, None, service_s=5.0)
        await scene.start()
        await asyncio.sleep(1.0)
        leader = scene.leader
        tasks = [scene.loop.create_task(scene.request(leader, f"c{number}")) for number in range(5)]
        await asyncio.sleep(0.03)
        scene.kill(leader)
        await asyncio.sleep(3.0)
        other = scene.replicas[1 - leader]
        assert other.state is State.LEADING
        (scope,) = other.gate().scopes
        assert scope.limit.estimate.window.granted_since(0.0) == 5
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await scene.stop()

    run_virtually(main())


def test_a_follower_reports_a_request_that_has_no_response_for_long() -> None:
    """Slow start at the leader goes on by that, although the requests take minutes."""

    async def main() -> None:
        scene = FleetScene(2, None, service_s=60.0)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = 1 - scene.leader
        scene.callers(follower, 150, "c")
        await asyncio.sleep(0.03)
        assert len(scene.counts.sent) == 64
        await asyncio.sleep(1.0)
        assert len(scene.counts.sent) == 150
        await scene.stop()

    run_virtually(main())


def test_permits_that_a_follower_cannot_use_yet_do_not_hold_up_the_other_replicas() -> None:
    """A follower gets permits beyond its own places. Their requests may wait there for minutes."""

    async def main() -> None:
        policy = GatePolicy(max_in_flight=10, max_waiting=1000, initial_unconfirmed=4)
        scene = FleetScene(3, None, policy, service_s=300.0)
        await scene.start()
        await asyncio.sleep(1.0)
        leader = scene.leader
        scene.callers((leader + 1) % 3, 25, "busy")
        await asyncio.sleep(1.0)
        scene.callers(leader, 1, "other")
        scene.callers((leader + 2) % 3, 1, "third")
        await asyncio.sleep(3.0)
        assert {replica for _, replica in scene.counts.sent} == {0, 1, 2}
        await scene.stop()

    run_virtually(main())


@pytest.mark.parametrize("placed_s", [0.02, 0.055, 0.065, 0.125])
def test_a_request_that_waited_for_a_place_is_reported_only_after_its_own_time(placed_s: float) -> None:
    """Not at the follower's next look: its 429 could not have come by then."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        messages: list[tuple[float, Message]] = []
        home = RemoteHome(1, lambda message: messages.append((loop.time(), message)), loop)
        home.join()
        places = Places(1, loop)
        ticket = Ticket("a", 300.0)
        ticket.state = TicketState.WAITING
        claim = OwnClaim(1, ticket, ("s", "l", "k"), lambda claim, _: take(claim), lambda _: None)

        def take(claim: OwnClaim) -> None:
            claim.is_granted, claim.granted_at_s = True, loop.time()
            places.take(claim)

        places.taken = 1
        home.enter(claim, loop.time())
        home.answer({"t": "grant", "n": 1, "report_in": 0.05})
        began_s = loop.time()
        await asyncio.sleep(placed_s)
        places.taken = 0
        places.fill()
        await asyncio.sleep(5.0)
        (report,) = [at_s - began_s for at_s, message in messages if message["t"] == "unanswered"]
        assert placed_s + 0.05 <= report <= placed_s + 0.12

    run_virtually(main())


def test_a_follower_stops_to_look_for_a_place_once_the_leader_no_longer_waits() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        home = RemoteHome(1, lambda _: None, loop)
        looks: list[float] = []

        class Claim(OwnClaim):
            @property
            def placed_at_s(self) -> float | None:
                looks.append(loop.time())
                return None

        claim = Claim(1, Ticket("a", 300.0), ("s", "l", "k"), lambda *_: None, lambda _: None)
        claim.is_granted, claim.granted_at_s, claim.report_in_s = True, loop.time(), 0.05
        home.adopt(claim, loop.time())
        began_s = loop.time()
        await asyncio.sleep(10.0)
        assert len(looks) > 1
        assert looks[-1] <= began_s + REPORT_LOST_S + 0.1

    run_virtually(main())


def test_a_lost_report_holds_up_nobody_for_long() -> None:
    async def main() -> None:
        policy = GatePolicy(max_in_flight=100, max_waiting=1000, initial_unconfirmed=1)
        scene = FleetScene(2, None, policy, service_s=300.0)
        await scene.start()
        await asyncio.sleep(1.0)
        follower = 1 - scene.leader
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RemoteHome, "_report", lambda *_: None)
            scene.callers(follower, 1, "first")
            await asyncio.sleep(0.5)
        scene.callers(scene.leader, 1, "second")
        await asyncio.sleep(2.0)
        assert len(scene.counts.sent) == 2
        await scene.stop()

    run_virtually(main())
