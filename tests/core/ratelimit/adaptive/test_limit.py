"""The grants of one scope's limit: limit probes, period starts, and the end of slow start."""

import math
from functools import partial

import pytest

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.lessons import learn_from
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome


def granted(limit: Limit, now: float) -> int:
    """Grants one request, which must be allowed now. Returns its serial number."""
    limit.advance(now)
    kind = limit.grant_kind(now)
    assert kind is not None
    return limit.grant(kind, now)


class Scene:
    """A limit of 10 requests in 10 s, with an endless queue. `confirmed`: no period start needs confirmation."""

    def __init__(self, *, confirmed: bool = True) -> None:
        self.limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)
        self.limit.state = LimitState.LEARNED
        if confirmed:
            self.limit.estimate.set_known(10, 10.0, 10)
        else:
            self.limit.estimate.set_window(10, 10.0)
            self.limit.estimate.proven = 10
        self.limit.estimate.hints.are_exact = True

    def go(self, now: float) -> list[int]:
        """Grants all that is allowed now. Returns the serial numbers."""
        serials = []
        self.limit.advance(now)
        while (kind := self.limit.grant_kind(now)) is not None:
            serials.append(self.limit.grant(kind, now))
        return serials

    def settle(self, serial: int, outcome: Outcome, now: float, hint_s: float | None = None) -> None:
        if outcome is Outcome.SERVED:
            self.limit.served(serial, now)
        else:
            self.limit.not_served(serial, 0.0, outcome, now, hint_s)


def test_one_refusal_beside_a_limit_probe_counts_as_a_refusal_of_the_probe() -> None:
    scene = Scene()
    *others, proven, probe = scene.go(0.0)
    assert probe == 11
    scene.settle(proven, Outcome.THROTTLED, 0.1, 9.9)
    for serial in (*others, probe):
        scene.settle(serial, Outcome.SERVED, 0.1)
    scene.go(10.0)
    estimate = scene.limit.estimate
    assert (estimate.window.count, estimate.proven, estimate.reserve) == (10, 10, 0)
    assert estimate.window_probes.pause_periods == 2


def test_more_refusals_than_the_limit_probes_lower_the_count() -> None:
    scene = Scene()
    *others, first, second, probe = scene.go(0.0)
    for serial in (probe, first, second):
        scene.settle(serial, Outcome.THROTTLED, 0.1, 9.9)
    for serial in others:
        scene.settle(serial, Outcome.SERVED, 0.1)
    scene.go(10.0)
    estimate = scene.limit.estimate
    assert (estimate.window.count, estimate.window.period_s, estimate.reserve) == (8, 10.0, 2)


def test_a_far_shorter_period_that_the_hint_of_a_count_probe_suggests_must_be_proven() -> None:
    scene = Scene()
    *others, probe = scene.go(0.0)
    for serial in others:
        scene.settle(serial, Outcome.SERVED, 0.1)
    scene.settle(probe, Outcome.THROTTLED, 0.1, 1.0)  # an overload, for example
    (recovery,) = scene.go(1.1)
    scene.settle(recovery, Outcome.SERVED, 1.2)
    window = scene.limit.estimate.window
    assert (window.count, window.period_s) == (10, 1.0)
    assert len(scene.go(2.3)) < 10


def test_a_count_probe_goes_early_in_a_period_or_waits_for_the_next() -> None:
    scene = Scene()
    scene.limit.estimate.window_probes.due_at_s = 9.5
    for serial in scene.go(0.0):
        scene.settle(serial, Outcome.SERVED, 0.1)
    assert scene.go(9.6) == []  # the upstream's period may end sooner than estimated
    assert len(scene.go(10.3)) == 11


def test_a_count_probe_that_cannot_go_early_in_a_period_goes_a_period_after_it_is_due() -> None:
    scene = Scene()
    estimate = scene.limit.estimate
    estimate.set_known(20, 10.0, 20)
    estimate.window_probes.due_at_s = 20.0
    for half_s in range(20):  # one each half second: the oldest request is always about to stop counting
        estimate.window.add(half_s / 2)
    went = {}
    for half_s in range(20, 80):
        went[half_s / 2] = serials = scene.go(half_s / 2)
        for serial in serials:
            scene.settle(serial, Outcome.SERVED, half_s / 2)
    assert next(at_s for at_s, serials in went.items() if len(serials) > 1) == 30.0


def test_a_refusal_at_the_end_of_a_known_period_does_not_lower_the_concurrency_limit() -> None:
    scene = Scene()
    estimate = scene.limit.estimate
    for _ in range(10):
        estimate.window.add(0.0)
    learn_from(estimate, Closure(GrantKind.COUNT_PROBE, 1.0, 9.0, hinted=True, opens_at_s=10.0), 10.0)
    for _ in range(10):
        estimate.window.add(10.0)
    learn_from(
        estimate, Closure(GrantKind.COUNT_PROBE, 12.0, 8.0, hinted=True, opens_at_s=20.0, in_flight=10), 20.0
    )
    assert (estimate.hints.are_exact, estimate.concurrency.limit) == (True, math.inf)


def test_an_unconfirmed_period_begins_with_one_request() -> None:
    scene = Scene(confirmed=False)
    scene.limit.estimate.window_probes.due_at_s = math.inf
    for start in range(6):
        now = 10.1 * start
        first = scene.go(now)
        # Our clock does not time the first period. After two confirmed starts, no start needs a confirmation.
        assert len(first) == (1 if 1 <= start <= 2 else 10)
        for serial in first:
            scene.settle(serial, Outcome.SERVED, now)
        for serial in scene.go(now):
            scene.settle(serial, Outcome.SERVED, now)


def test_a_period_that_is_too_short_costs_one_refusal_at_its_start() -> None:
    scene = Scene(confirmed=False)
    scene.limit.estimate.window_probes.due_at_s = math.inf
    for serial in scene.go(0.0):
        scene.settle(serial, Outcome.SERVED, 0.1)
    (first,) = scene.go(10.1)
    scene.limit.not_served(first, 10.1, Outcome.THROTTLED, 10.2, 3.0)
    assert scene.go(10.3) == []
    scene.go(13.3)
    estimate = scene.limit.estimate
    assert (estimate.window.count, estimate.proven) == (10, 10)
    assert estimate.window.period_s == 13.0


def test_the_periods_of_a_known_limit_need_no_confirmation() -> None:
    scene = Scene()
    scene.limit.estimate.window_probes.due_at_s = math.inf
    for now in (0.0, 10.1):
        granted = scene.go(now)
        assert len(granted) == 10
        for serial in granted:
            scene.settle(serial, Outcome.SERVED, now)


def test_the_next_probe_comes_soon_if_the_quota_varies() -> None:
    scene = Scene()
    estimate = scene.limit.estimate
    estimate.window_probes.pause_periods = 8.0
    estimate.window_probes.refusals = 1  # so that each accepted probe raises the count by one
    for _ in range(11):  # the first ten are proven, then three count probes are accepted
        for serial in scene.go(0.0):
            scene.settle(serial, Outcome.SERVED, 0.1)
        if estimate.window.count == 13:
            estimate.window_probes.due_at_s = math.inf
    *proven, unproven = scene.go(10.1)
    assert len(proven) == 11  # ten proven requests, and two unproven ones
    scene.limit.not_served(unproven, 10.1, Outcome.THROTTLED, 10.2, 9.9)
    for serial in proven:
        scene.settle(serial, Outcome.SERVED, 10.2)
    scene.go(20.2)
    assert estimate.window.count == 11  # the requests that were admitted
    assert estimate.window_probes.pause_periods == 4


@pytest.mark.parametrize(("period_s", "at_once"), [(10.0, 1), (0.5, 3)])
def test_unproven_requests_of_a_varying_quota_go_one_by_one_if_there_is_time(period_s: float, at_once: int) -> None:
    scene = Scene()
    estimate = scene.limit.estimate
    estimate.set_known(10, period_s, 7)
    estimate.note_admitted(10, 7)
    estimate.refusal_delay_s = 0.1
    scene.limit.slow_start.restart(5)
    assert len(scene.go(0.0)) == 7 + at_once


def test_without_a_hint_a_varying_quota_opens_when_its_oldest_request_leaves_the_window() -> None:
    scene = Scene()
    estimate = scene.limit.estimate
    estimate.note_admitted(10, 7)
    estimate.window_probes.delay(math.inf)
    first, *_ = scene.go(0.0)
    scene.limit.served(first, 0.1)
    refused = granted_later = scene.limit.estimate.window.granted
    scene.settle(refused, Outcome.THROTTLED, 0.1)
    assert granted_later == 10
    assert scene.limit.opens_at_s == 10.0


def test_slow_start_ends_once_it_allows_more_than_max_in_flight() -> None:
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=1), lambda: 0.0)
    kinds = []
    for number in range(200):
        kind = limit.grant_kind(number * 0.01)
        assert kind is not None
        kinds.append(kind)
        limit.served(limit.grant(kind, number * 0.01), number * 0.01 + 0.002)
    assert kinds == sorted(kinds, key=[GrantKind.UNPROVEN, GrantKind.PROVEN].index)
    assert 30 < kinds.count(GrantKind.UNPROVEN) < 80


def test_a_closure_with_a_refuted_hint_lasts_until_the_end_of_the_latest_such_hint() -> None:
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)

    def refused_at(serial: int, granted_at_s: float) -> None:
        limit.not_served(serial, granted_at_s, Outcome.THROTTLED, granted_at_s + 0.1, 30.0)

    grant = partial(granted, limit)
    refused_at(grant(0.0), 0.0)
    refused_at(grant(30.1), 30.1)  # after the end of the hint, so the hint is refuted
    assert limit.estimate.hints.is_refuted(30.0)
    assert limit.opens_at_s >= 60.2
    limit.served(grant(60.2), 60.3)
    assert limit.state is LimitState.OPEN  # such hints tell no period
    first, second = grant(60.4), grant(60.4)
    refused_at(first, 60.4)
    limit.not_served(second, 60.4, Outcome.THROTTLED, 61.0, 30.0)
    assert limit.opens_at_s == 91.0


@pytest.mark.parametrize(("hint_s", "refuted"), [(2.0, True), (1.0, False)])
def test_a_longer_hint_than_a_second_in_the_last_second_of_the_same_hint_is_refuted(
    hint_s: float, refuted: bool
) -> None:
    """A true hint in whole seconds says 1 s there."""
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)
    limit.state = LimitState.LEARNED
    limit.estimate.set_known(10, 10.0, 10)

    grant = partial(granted, limit)
    for _ in range(10):
        limit.served(grant(0.0), 0.1)
    limit.estimate.window.retire_before(0.1)
    granted_s = 10.1 - hint_s
    limit.not_served(grant(granted_s), granted_s, Outcome.THROTTLED, granted_s + 0.1, hint_s)
    granted_s = limit.opens_at_s
    assert limit.timer.hinted_end_s - 1 < granted_s < limit.timer.hinted_end_s
    limit.not_served(grant(granted_s), granted_s, Outcome.THROTTLED, granted_s + 0.1, hint_s)
    assert limit.estimate.hints.is_refuted(hint_s) == refuted


def test_repeated_hints_of_an_overload_replace_no_limit_that_other_refusals_taught() -> None:
    """The second such hint refutes the first one. That says nothing about a limit learned without such hints."""
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)
    limit.state = LimitState.LEARNED
    limit.estimate.set_known(60, 60.0, 60)

    grant = partial(granted, limit)
    for number in range(50):
        limit.served(grant(number / 50), number / 50 + 0.1)
    for granted_s in (1.2, 2.4):
        limit.not_served(grant(granted_s), granted_s, Outcome.THROTTLED, granted_s + 0.1, 1.0)
    assert limit.estimate.hints.is_refuted(1.0)
    granted_s = limit.opens_at_s
    limit.served(grant(granted_s), granted_s + 0.1)
    window = limit.estimate.window
    assert window.period_s == 60.0
    assert window.count >= 50


def test_a_proven_limit_is_replaced_by_no_faster_one_after_an_odd_refusal() -> None:
    """The first refusals came without hints, so the limit was uncertain until it was proven."""
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)

    grant = partial(granted, limit)

    def refuse(now: float) -> None:
        limit.not_served(grant(now), now, Outcome.THROTTLED, now + 0.1, None)
        limit.served(grant(limit.opens_at_s), limit.opens_at_s + 0.1)

    for number in range(20):
        limit.served(grant(number / 5), number / 5 + 0.1)
    refuse(4.0)
    limit.estimate.set_known(60, 60.0, 60)
    for number in range(50):
        limit.served(grant(1000 + number / 50), 1000.1 + number / 50)
    refuse(1001.1)
    assert (limit.estimate.window.count, limit.estimate.window.period_s) == (50, 60.0)
