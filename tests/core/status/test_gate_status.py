"""The status of the gate: scopes, lanes, and when the next permit comes."""

import math
import sys

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from nanonets_proxy.core.status.document import GateStatus, LaneEntry
from nanonets_proxy.core.status.gate_status import gate_status


class Scene:
    """A gate whose scopes the test fills."""

    def __init__(
        self, *static_limits: str, max_in_flight: int = 100, weights: dict[str, int] | None = None
    ) -> None:
        limits = StaticLimits(tuple(map(StaticLimit.parse, static_limits)))
        policy = GatePolicy(
            max_in_flight=max_in_flight,
            max_waiting=20_000,
            static_limits=limits,
            lane_weights=tuple((weights or {}).items()),
        )
        self.gate = Gate(policy, lambda: 0.0)
        self.now = 1000.0

    def ask(self, lane: str, count: int = 1, scope: str = "account") -> list[Ticket]:
        """Returns the tickets that the gate admits."""
        tickets = [Ticket(scope, math.inf, lane) for _ in range(count)]
        for ticket in tickets:
            assert self.gate.enqueue(ticket, self.now) is None
        return list(self.gate.poll(self.now).granted)

    def status(self, most: int = 20) -> GateStatus:
        return gate_status(self.gate, 20_000, most, self.now)


def test_a_new_gate_has_nothing_to_show() -> None:
    assert Scene().status() == GateStatus(0, 0, 20_000, 0, 100, None, (), 0, (), 0)


def test_a_closed_scope_shows_its_cooldown_and_its_lanes() -> None:
    scene = Scene()
    (permit,) = scene.ask("a")
    scene.gate.settle(permit, Outcome.THROTTLED, scene.now, 23.0)
    scene.gate.poll(scene.now)
    scene.ask("b", 3)
    scene.ask("c")
    status = scene.status()
    (scope,) = status.scopes
    assert (scope.name, scope.state, scope.waiting) == ("account", "closed", 4)
    assert 23.0 <= scope.opens_in_s <= 24.0
    assert status.next_permit_in_s == scope.opens_in_s
    assert (status.waiting, status.waiting_callers, status.lanes_total) == (4, 2, 2)
    assert [(lane.caller, lane.waiting) for lane in status.lanes] == [("b", 3), ("c", 1)]


def test_a_closure_that_is_over_shows_as_probing_before_the_next_poll() -> None:
    scene = Scene()
    (permit,) = scene.ask("a")
    scene.gate.settle(permit, Outcome.THROTTLED, scene.now, 5.0)
    scene.ask("b")
    scene.now += 60.0
    (scope,) = scene.status().scopes
    assert (scope.state, scope.opens_in_s) == ("probing", 0.0)
    assert scene.status().next_permit_in_s == 0.0


def test_a_known_limit_forecasts_the_end_of_each_lane() -> None:
    scene = Scene("account 10/minute")
    scene.ask("a", 20)
    scene.ask("b", 5)
    (scope,) = scene.status().scopes
    assert (scope.state, scope.count, scope.period_s, scope.concurrency) == ("learned", 10.0, 60.0, None)
    # The first ten went at once; b's five go within the next ten, and a's last ten after them.
    assert [(lane.caller, lane.waiting) for lane in scene.status().lanes] == [("a", 10), ("b", 5)]
    ends = [lane.ends_in_s or 0 for lane in scene.status().lanes]
    assert 60.0 <= ends[1] < 70.0
    assert 120.0 <= ends[0] < 130.0
    assert scene.status().next_permit_in_s is not None


def test_an_unknown_limit_has_no_forecast() -> None:
    scene = Scene()
    (permit,) = scene.ask("a")
    scene.gate.settle(permit, Outcome.THROTTLED, scene.now, None)
    scene.ask("a")
    (lane,) = scene.status().lanes
    assert lane == LaneEntry("a", "account", 1, None)


def test_without_a_free_place_no_instant_is_known() -> None:
    scene = Scene("account 1000/minute", max_in_flight=2)
    scene.ask("a", 3)
    status = scene.status()
    assert (status.in_flight, status.waiting, status.next_permit_in_s) == (2, 1, None)


def test_the_lists_are_bounded_and_their_totals_are_not() -> None:
    scene = Scene("account 1/minute", "b 1/minute", "c 1/minute")
    for name in ("account", "b", "c"):
        for caller in range(5):
            scene.ask(f"caller{caller}", 2, name)
    status = scene.status(most=2)
    assert (len(status.scopes), status.scopes_total) == (2, 3)
    assert (len(status.lanes), status.lanes_total, status.waiting_callers) == (2, 15, 5)


def test_the_last_position_of_a_lane_counts_the_turns_of_the_others() -> None:
    scene = Scene("account 1/hour", weights={"a": 2})
    scene.ask("a")
    scene.ask("a", 5)
    scene.ask("b", 10)
    scene.ask("c", 1)
    queue = next(iter(scene.gate.scopes)).queue
    assert queue.last_position("a") == 5 + 3 + 1  # three turns of two
    assert queue.last_position("b") == 10 + 5 + 1
    assert queue.last_position("c") == 1 + 2 + 1


def test_the_last_position_among_many_lanes_is_at_most_the_end_of_the_queue() -> None:
    scene = Scene("account 1/hour")
    for caller in range(101):
        scene.ask(f"caller{caller}")
    scene.ask("caller50", 99)
    queue = next(iter(scene.gate.scopes)).queue
    assert queue.waiting == 199
    assert queue.last_position("caller50") == 199
    assert queue.last_position("caller7") == 100


def test_a_reading_changes_nothing() -> None:
    seen, unseen = Scene("account 10/minute"), Scene("account 10/minute")
    granted: dict[Scene, list[str]] = {seen: [], unseen: []}
    for scene in (seen, unseen):
        scene.ask("a", 30)
        scene.ask("b", 30)
        for _ in range(50):
            scene.now += 7.0
            if scene is seen:
                scene.status()
            for permit in scene.gate.poll(scene.now).granted:
                granted[scene].append(permit.lane)
                scene.gate.settle(permit, Outcome.SERVED, scene.now)
    assert granted[seen] == granted[unseen] != []


def test_ten_thousand_waiting_callers_cost_no_call_each() -> None:
    """Calls are counted, since time depends on the machine: 1 ms for the whole document."""
    scene = Scene("account 1/hour")
    for caller in range(10_001):
        scene.gate.enqueue(Ticket("account", math.inf, f"caller{caller}"), scene.now)
    scene.gate.poll(scene.now)
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        status = scene.status()
    finally:
        sys.setprofile(None)
    assert (status.waiting, status.waiting_callers, len(status.lanes)) == (10_000, 10_000, 20)
    assert len(calls) < 1000
