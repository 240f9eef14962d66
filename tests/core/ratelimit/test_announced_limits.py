"""Limits that the upstream announces before a refusal, and other changes of a limit from outside."""

import math

from nanonets_proxy.core.ratelimit.adaptive.forecast import predicted_wait_s
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.hints.rate_limit_fields import Advice
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket
from support.gate.gate_scene import GateScene


def make_limit(static_limit: StaticLimit | None = None) -> Limit:
    return Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0, static_limit)


def grant_all(limit: Limit, now: float, most: int = 1000) -> int:
    granted = 0
    while granted < most and (kind := limit.grant_kind(now)) is not None:
        limit.served(limit.grant(kind, now), now)
        granted += 1
    return granted


def test_a_used_up_quota_needs_no_refusal() -> None:
    scene = GateScene()
    scene.gate.enqueue(ticket := Ticket("account", math.inf), scene.now)
    (permit,) = scene.gate.poll(scene.now).granted
    scene.gate.note_advice(permit, Advice(0, 5.0, None), scene.now)
    scene.gate.settle(permit, Outcome.SERVED, scene.now)
    assert permit is ticket
    scene.ask(3)
    assert scene.go() == 0
    assert scene.wake_at_s == scene.now + 5
    scene.now += 5
    assert scene.go() == 3


def test_what_remains_of_a_quota_is_granted() -> None:
    limit = make_limit()
    serial = limit.grant(limit.grant_kind(0.0), 0.0)
    limit.note_advice(serial, Advice(7, 5.0, None), 0.0)
    limit.served(serial, 0.1)
    assert grant_all(limit, 0.2) == 7
    assert limit.changes_at_s(0.2) == 5.0
    assert grant_all(limit, 5.0) > 7


def test_what_remains_counts_in_units_from_the_announcing_request_on() -> None:
    limit = make_limit()
    for cost in (3, 8, 2):
        limit.grant(GrantKind.PROVEN, 0.0, cost)
    limit.note_advice(1, Advice(15, 5.0, None), 0.1)  # of which 10 units are granted already
    assert limit.grant_kind(0.2, 6) is None
    assert limit.changes_at_s(0.2, 6) == 5.1
    assert limit.grant_kind(0.2, 5) is not None


def test_a_policy_is_a_limit_that_needs_no_learning() -> None:
    limit = make_limit()
    limit.note_advice(grant_all(limit, 0.0, 1), Advice(None, 0.0, StaticLimit("account", 20, 10.0)), 0.0)
    assert limit.state is LimitState.LEARNED
    assert grant_all(limit, 0.1) == 19
    assert predicted_wait_s(limit, 1, 0.1) > 9
    assert grant_all(limit, 10.3) == 20
    limit.note_advice(40, Advice(None, 0.0, StaticLimit("account", 5, 10.0)), 10.3)
    limit.note_advice(40, Advice(None, 0.0, StaticLimit("account", 5, 10.0)), 10.3)
    assert grant_all(limit, 20.6) == 5


def test_no_refusal_makes_the_period_of_a_policy_shorter() -> None:
    limit = make_limit()
    limit.note_advice(grant_all(limit, 0.0, 1), Advice(None, 0.0, StaticLimit("account", 5, 10.0)), 0.0)
    limit.estimate.set_window(5, 2.0)
    assert limit.estimate.window.period_s == 10.0
    limit.note_advice(1, Advice(None, 0.0, StaticLimit("account", 4, 2.0)), 0.1)
    assert limit.estimate.window.period_s == 2.0


def test_a_policy_does_not_raise_a_static_limit() -> None:
    limit = make_limit(StaticLimit("account", 3, 10.0))
    limit.note_advice(0, Advice(None, 0.0, StaticLimit("account", 20, 10.0)), 0.0)
    assert grant_all(limit, 0.0) == 3


def test_the_forecast_knows_how_long_a_quota_is_used_up() -> None:
    limit = make_limit(StaticLimit("account", 100, 10.0))
    limit.note_advice(grant_all(limit, 0.0, 1), Advice(0, 60.0, None), 0.0)
    assert predicted_wait_s(limit, 1, 0.0) == 60.0


def test_an_announced_quota_and_a_closure_hold_the_scope_until_the_later_end() -> None:
    limit = make_limit()
    limit.note_advice(grant_all(limit, 0.0, 1), Advice(0, 5.0, None), 0.0)
    limit.close(3.0)
    assert grant_all(limit, 4.0) == 0
    limit.close(8.0)
    assert grant_all(limit, 7.0) == 0
    assert grant_all(limit, 8.0) > 0


def test_a_lesson_can_be_undone() -> None:
    limit = make_limit()
    before = limit.estimate.belief
    served = [limit.grant(limit.grant_kind(0.0), 0.0) for _ in range(5)]
    for serial in served[1:]:
        limit.served(serial, 0.1)
    limit.not_served(served[0], 0.0, Outcome.THROTTLED, 0.1, 10.0)
    grant_all(limit, 10.2, 1)
    assert limit.estimate.belief.count == 4
    assert limit.state is LimitState.LEARNED
    limit.restore(before)
    assert limit.estimate.belief == before
    assert limit.state is LimitState.OPEN
    known = make_limit(StaticLimit("account", 20, 10.0)).estimate.belief
    limit.restore(known)
    assert (limit.state, limit.estimate.belief) == (LimitState.LEARNED, known)
    limit.close(20.0)
    limit.restore(before)
    assert limit.state is LimitState.CLOSED


def test_a_sleep_of_the_machine_counts_as_time_of_the_upstream() -> None:
    scene = GateScene("account 5/hour")
    scene.ask(10)
    assert scene.go() == 5
    scene.now += 60
    scene.gate.note_sleep(3600)
    assert scene.go() == 5
    scene = GateScene()
    scene.ask(2)
    permits = scene.gate.poll(scene.now).granted
    scene.gate.settle(permits[0], Outcome.SERVED, scene.now)
    scene.gate.settle(permits[1], Outcome.THROTTLED, scene.now, 6 * 3600.0)
    scene.ask(1)
    assert scene.go() == 0
    scene.now += 60
    scene.gate.note_sleep(6 * 3600.0)
    assert scene.go() == 1


def test_an_announced_limit_of_a_forgotten_scope_is_ignored() -> None:
    scene = GateScene()
    scene.gate.note_advice(Ticket("gone", math.inf), Advice(0, 5.0, None), scene.now)
    assert not scene.gate.needs_poll


def test_an_announced_limit_that_rises_applies_when_the_lower_one_is_announced_no_more() -> None:
    limit = make_limit()

    def announce(count: int, now: float) -> float:
        limit.note_advice(0, Advice(None, 0.0, StaticLimit("account", count, 60.0)), now)
        return limit.estimate.window.count

    assert announce(10, 0.0) == 10
    assert announce(40, 1.0) == 10  # perhaps another endpoint's
    assert announce(10, 30.0) == 10
    assert announce(40, 89.0) == 10
    assert announce(40, 90.0) == 40
    assert announce(5, 91.0) == 5  # a stricter one applies at once
