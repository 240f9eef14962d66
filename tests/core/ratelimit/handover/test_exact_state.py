"""The gate of a new process decides as the gate of its predecessor would have."""

import copy
import json
import math
from dataclasses import replace
from typing import Any

import pytest

from nanonets_proxy.core.ratelimit.exact_state import MAX_GRANTS, take_exact
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.snapshot import unknown
from nanonets_proxy.core.ratelimit.tickets import Outcome, Reason, Rejection, Ticket, TicketState, Verdicts
from simulator import hints, limiters
from simulator.cases import Case, poisson
from simulator.run import this_gate
from simulator.world import Conditions, Result, World
from support.gate.gate_scene import GateScene

SEED = 7
RESTARTS = 12


class ReplacedGate:
    """A gate that another one replaces from time to time. Both have the requests in flight and those that wait."""

    def __init__(self) -> None:
        self.gate = this_gate()
        self._waiting: dict[Ticket, None] = {}
        self._in_flight: dict[Ticket, None] = {}

    def enqueue(self, ticket: Ticket, now: float) -> Rejection | None:
        rejection = self.gate.enqueue(ticket, now)
        if rejection is None:
            self._waiting[ticket] = None
        return rejection

    def poll(self, now: float) -> Verdicts:
        verdicts = self.gate.poll(now)
        for ticket in verdicts.granted:
            self._waiting.pop(ticket, None)
            self._in_flight[ticket] = None
        for expiry in verdicts.expired:
            self._waiting.pop(expiry.ticket, None)
        return verdicts

    def settle(self, ticket: Ticket, outcome: Outcome, now: float, retry_after_s: float | None = None) -> None:
        self._in_flight.pop(ticket, None)
        self.gate.settle(ticket, outcome, now, retry_after_s)

    def replace(self, now: float) -> None:
        before, self.gate = self.gate, this_gate()
        assert self.gate.scopes.restore_exact(document_of(before), now)
        for ticket in self._in_flight:
            serial, ticket.state = ticket.serial, TicketState.NEW
            self.gate.adopt(ticket, ticket.granted_at_s, now)
            ticket.serial = serial
        for ticket in sorted(self._waiting, key=lambda ticket: ticket.arrival):
            before.withdraw(ticket, now)
            ticket.state = TicketState.NEW
            assert self.gate.enqueue(ticket, now) is None


def document_of(gate: Gate) -> Any:
    return json.loads(json.dumps(take_exact(gate.scopes)))


def simulated(case: Case, restarts: int) -> Result:
    gate = ReplacedGate()
    world = World(gate, case.limiter(SEED), case.hint, case.period_s, case.conditions, SEED)
    case.load(world, case.horizon_s)
    for number in range(restarts):
        at_s = case.horizon_s * (number + 0.37) / restarts
        world.at(at_s, lambda: gate.replace(world.now))
    return world.run(case.horizon_s)


BUSY = Conditions(service_s=(0.5, 1.5))


def case(name: str, limiter: limiters.Limiter, hint: hints.HintStyle = hints.exact, rate: float = 60) -> Case:
    return Case(name, 1, lambda _: copy.deepcopy(limiter), hint, poisson(rate), period_s=2.0, horizon_s=40.0)


CASES = [
    case("sliding log", limiters.SlidingLog(60, 2.0)),
    case("whole seconds", limiters.FixedWindow(60, 2.0), hints.whole_seconds),
    case("no hints", limiters.FixedWindow(60, 2.0), hints.none),
    case("token bucket", limiters.TokenBucket(20, 10.0), rate=30),
    case("interval", limiters.TokenBucket(1, 10.0), rate=20),
    case("no limit", limiters.NoLimit()),
    replace(case("concurrency", limiters.Concurrency(5), rate=5), conditions=BUSY),
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_restarts_change_neither_refusals_nor_grants(case: Case) -> None:
    undisturbed, restarted = simulated(case, 0), simulated(case, RESTARTS)
    assert restarted.refused_at_s == undisturbed.refused_at_s
    assert granted_at_s(restarted) == granted_at_s(undisturbed)
    assert restarted.rejected == 0


def granted_at_s(result: Result) -> list[float]:
    return sorted(round(arrived_s + wait_s, 9) for _, arrived_s, wait_s in result.waits)


def refused_scene(*static_limits: str) -> GateScene:
    """Returns a gate that refused the last of 5 requests, which closes it for 20 s."""
    scene = GateScene(*static_limits)
    scene.ask(4)
    assert scene.go() == 4
    scene.ask(1)
    (permit,) = scene.gate.poll(scene.now).granted
    scene.gate.settle(permit, Outcome.THROTTLED, scene.now, 20.0)
    return scene


def test_a_closure_teaches_the_new_gate_what_it_would_have_taught_the_old_one() -> None:
    before, after = refused_scene(), GateScene()
    assert after.gate.scopes.restore_exact(document_of(before.gate), after.now)
    for scene in (before, after):
        scene.now += 20
        scene.ask(10)
        scene.go()
    assert before.gate.scopes.snapshots(before.now)[0].count == 4
    assert after.gate.scopes.snapshots(after.now) == before.gate.scopes.snapshots(before.now)


def test_a_quota_that_is_used_up_for_long_stays_so() -> None:
    before = GateScene()
    for _ in range(2):  # the first refusal may concern its own request alone
        ticket = Ticket("account", math.inf)
        assert before.gate.try_admit(ticket, before.now)
        before.gate.settle(ticket, Outcome.THROTTLED, before.now, quota_used_up=True)
    before.gate.poll(before.now)
    after = GateScene()
    assert after.gate.scopes.restore_exact(document_of(before.gate), after.now)
    rejection = after.gate.enqueue(Ticket("account", math.inf), after.now)
    assert rejection is not None
    assert rejection.reason is Reason.QUOTA_USED_UP
    after.now += 60
    probe = Ticket("account", math.inf)
    assert after.gate.try_admit(probe, after.now)
    after.gate.settle(probe, Outcome.THROTTLED, after.now, quota_used_up=True)
    after.gate.poll(after.now)
    assert after.gate.news.take() == []  # the old process has reported the quota


def test_a_limit_of_changed_settings_replaces_the_one_of_the_old_process() -> None:
    before = GateScene("account 10/minute")
    before.ask(2)
    assert before.go() == 2
    after = GateScene("account 5/minute")
    assert after.gate.scopes.restore_exact(document_of(before.gate), after.now)
    after.ask(10)
    assert after.go() == 3, "the requests of the old process count"


def broken(document: Any, how: str) -> Any:
    limit = document["account"]["limit"]
    match how:
        case "field missing":
            del limit["opens_at_s"]
        case "field unknown":
            limit["announced_quota"]["new"] = 1
        case "value of an enumeration unknown":
            limit["state"] = {"LimitState": "half-open"}
        case "class unknown":
            limit["timer"]["closure"] = {"Closing": {}}
        case "fields of a class differ":
            limit["timer"]["closure"] = {"Closure": {"kind": 1}}
        case "not a part":
            limit["grants"] = 5
        case "not a scope":
            document["account"] = []
    return document


@pytest.mark.parametrize(
    "how",
    [
        *("field missing", "field unknown", "value of an enumeration unknown", "class unknown"),
        *("fields of a class differ", "not a part", "not a scope"),
    ],
)
def test_a_document_of_another_release_changes_nothing(how: str) -> None:
    before, after = refused_scene(), GateScene()
    assert not after.gate.scopes.restore_exact(broken(document_of(before.gate), how), after.now)
    assert list(after.gate.scopes) == []
    after.gate.scopes.restore(before.gate.scopes.snapshots(before.now), after.now, 0.0)
    assert after.gate.scopes.closed(after.now) == {"account": after.now + 20}


def test_snapshots_leave_exact_scopes_alone_and_restore_the_others() -> None:
    before, after = refused_scene(), GateScene()
    snapshots = [*before.gate.scopes.snapshots(before.now), unknown("other", 5.0)]
    assert after.gate.scopes.restore_exact(document_of(before.gate), after.now)
    after.gate.scopes.restore(snapshots, after.now, 15.0)
    assert after.gate.scopes.closed(after.now) == {"account": after.now + 20}
    after.gate.scopes.restore([unknown("third", 5.0)], after.now, 0.0)
    assert after.gate.scopes.closed(after.now) == {"account": after.now + 20, "third": after.now + 5}


def test_the_document_has_the_scopes_with_the_latest_grants() -> None:
    gate = Gate(GatePolicy(max_in_flight=100, max_waiting=10), lambda: 0.0)
    each = MAX_GRANTS // 4
    for number in range(6):
        for count in range(each):
            ticket = Ticket(f"scope {number}", math.inf)
            now = 1000.0 + number + count / each
            assert gate.try_admit(ticket, now)
            gate.settle(ticket, Outcome.SERVED, now)
    assert list(take_exact(gate.scopes)) == ["scope 5", "scope 4", "scope 3", "scope 2"]
