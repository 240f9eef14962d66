"""Requests, moves and lost messages in any order, many of them in one turn of the event loop, in virtual time."""

import asyncio
from dataclasses import dataclass, replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanonets_proxy.admission.fleet.state import State
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import PAGES, StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket, TicketState
from nanonets_proxy.errors import ProxyError
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

LIMITS = StaticLimits((StaticLimit("account", 12, 1.0, PAGES),))
POLICY = GatePolicy(max_in_flight=4, max_waiting=60, lane_weights=(("c1", 2),), static_limits=LIMITS)
WAITS_S = (100.0, 100.0, 1.0, 0.3, 0.0)
OUTCOMES = (Outcome.SERVED, Outcome.SERVED, Outcome.UNUSED, Outcome.FAILED, Outcome.THROTTLED)
EXPIRING_FIRST = [("enter", 0, 0.0), ("enter", 1, 0.0), ("settle", 24, 0.0)]
"""The first ticket in the queue expires at the leader, and the next one costs less."""
MESSAGES = ("ask", "grant", "wait", "end", "leave", "hello", "welcome", "alive", "cost", "granted")

steps = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("enter", "enter", "enter", "settle", "settle", "leave", "pause", "resume", "cost"),
                *("lose", "reconnect", "stall", "forget", "resign", "reload", "drop"),
            )
        ),
        st.integers(0, 99),
        st.sampled_from((0.0, 0.0, 0.0, 0.0004, 0.011, 0.06, 0.3)),
    ),
    min_size=5,
    max_size=60,
)


@dataclass(eq=False)
class Request:
    number: int
    ticket: Ticket
    future: "asyncio.Future[None] | None" = None
    resuming: "asyncio.Task[None] | None" = None

    @property
    def has_permit(self) -> bool:
        return self.ticket.state in (TicketState.ADMITTED, TicketState.PAUSED)


class Play:
    """Requests at the replicas of a scene."""

    def __init__(self, scene: FleetScene) -> None:
        self.scene = scene
        self.requests: list[Request] = []
        self.dropped: str | None = None
        for bus in scene.buses:
            bus.passes = self._passes

    def _passes(self, data: bytes) -> bool:
        if self.dropped is None or b'"t":"%s"' % self.dropped.encode() not in data:
            return True
        self.dropped = None
        return False

    def enter(self, request: Request) -> None:
        room, now_s, ticket = self.scene.replicas[request.number].room, self.scene.loop.time(), request.ticket
        try:
            if ticket.state is TicketState.RETURNED or not room.try_admit(ticket, now_s):
                request.future = room.enter(ticket, now_s)
        except ProxyError:
            self.requests.remove(request)

    def sort_out(self) -> None:
        """Forgets the requests that were rejected."""
        for request in list(self.requests):
            future = request.future
            if future is not None and future.done() and not future.cancelled() and future.exception() is not None:
                self.requests.remove(request)

    def runs(self, number: int) -> bool:
        """Returns whether the process of a replica does not stand still."""
        return self.scene.processes[number].runs

    def step(self, what: str, which: int) -> None:
        self.sort_out()
        scene, number = self.scene, which % 3
        here = [request for request in self.requests if self.runs(request.number)]
        granted = [request for request in here if request.has_permit]
        waiting = [request for request in here if request.ticket.state is TicketState.WAITING]
        bus, replica = scene.buses[number], scene.replicas[number]
        match what:
            case "enter" if self.runs(number):
                cost = 1 + which % 4
                deadline_s = scene.loop.time() + WAITS_S[which % len(WAITS_S)]
                request = Request(number, Ticket("account", deadline_s, f"c{which % 5}", cost=cost))
                self.requests.append(request)
                self.enter(request)
            case "settle" if granted:
                self.settle(granted[which % len(granted)], OUTCOMES[which % len(OUTCOMES)])
            case "leave" if waiting:
                self.leave(waiting[which % len(waiting)])
            case "pause" if granted:
                request = granted[which % len(granted)]
                scene.replicas[request.number].room.pause(request.ticket, lambda: None)
            case "resume" if granted:
                request = granted[which % len(granted)]
                if request.resuming is None or request.resuming.done():
                    room = scene.replicas[request.number].room
                    request.resuming = scene.loop.create_task(room.resume(request.ticket))
            case "cost" if granted:
                request = granted[which % len(granted)]
                scene.replicas[request.number].room.correct_cost(request.ticket, 1 + which % 6)
            case "lose" if self.runs(number) and not bus.is_cut:
                bus.is_cut = True
                bus.lose("connection lost")
            case "reconnect":
                bus.is_cut = False
            case "stall":
                scene.processes[number].stand_still(0.02 * (which % 30))
            case "forget" if self.runs(number) and (lead := replica.position.lead) and lead.host is not None:
                for member in list(lead.host.members):
                    lead.host.forget(member)
            case "resign" if self.runs(number) and replica.state is State.LEADING:
                replica.position.go_alone("a test")
            case "reload" if self.runs(number):
                replica.change_policy(replace(POLICY, max_in_flight=1 + which % 6))
            case "drop":
                self.dropped = MESSAGES[which % len(MESSAGES)]

    def settle(self, request: Request, outcome: Outcome) -> None:
        if request.resuming is not None:
            request.resuming.cancel()
            request.resuming = None
        room = self.scene.replicas[request.number].room
        room.settle(request.ticket, outcome, 0.2 if outcome is Outcome.THROTTLED else None)
        if outcome is Outcome.SERVED:
            self.requests.remove(request)
        else:
            self.enter(request)

    def leave(self, request: Request) -> None:
        if request.future is not None:
            request.future.cancel()
        self.scene.replicas[request.number].room.leave(request.ticket)
        self.requests.remove(request)


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(0, 2**16))
@example([("enter", 47, 0.0), ("lose", 14, 0.0), ("settle", 43, 0.0), *EXPIRING_FIRST], 0)
@example([("enter", n, 0.0) for n in range(30)] + [("lose", 1, 0.3), ("enter", 1, 0.0), ("reconnect", 1, 0.3)], 1)
def test_no_permit_is_lost_and_nobody_waits_for_ever(plan: list[tuple[str, int, float]], seed: int) -> None:
    async def main() -> None:
        scene = FleetScene(3, None, POLICY, seed=seed)
        await scene.start()
        await asyncio.sleep(1.0)
        play = Play(scene)
        for what, which, pause_s in plan:
            play.step(what, which)
            if pause_s:
                await asyncio.sleep(pause_s)
        play.dropped = None
        for bus in scene.buses:
            bus.is_cut = False

        # From now on, each request is served soon, and those that may wait all end.
        for _ in range(400):
            await asyncio.sleep(0.05)
            play.sort_out()
            for request in [request for request in play.requests if request.has_permit]:
                play.settle(request, Outcome.SERVED)
        assert [request for request in play.requests if request.ticket.state is TicketState.WAITING] == []
        await asyncio.sleep(2.0)
        assert sorted(replica.state.value for replica in scene.replicas) == ["following", "following", "leading"]
        for replica in scene.replicas:
            assert (replica.room.in_flight, replica.room.waiting, len(replica.room._claims)) == (0, 0, 0)
        gate = scene.replicas[scene.leader].gate()
        assert (gate.in_flight, gate.waiting) == (0, 0)
        assert all(scope.limit.in_flight == 0 for scope in gate.scopes)
        lead = scene.replicas[scene.leader].position.lead
        assert lead is not None
        assert lead.host is not None
        assert [member.claims for member in lead.host.members.values()] == [{}, {}]
        assert gate.policy.max_in_flight == sum(replica.own.policy.max_in_flight for replica in scene.replicas)
        await scene.stop()

    run_virtually(main())
