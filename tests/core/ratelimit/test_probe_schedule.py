"""Asking for more than was proven: when it tells something, and what its refusal means."""

import math

from nanonets_proxy.core.ratelimit.adaptive.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit, LimitState
from nanonets_proxy.core.ratelimit.adaptive.slow_start import SlowStart
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome


class Attempted:
    """A limit of ten in ten seconds, with someone always waiting. `held`: the period is proven too."""

    def __init__(self, *, held: bool = True) -> None:
        self.limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)
        self.limit.state = LimitState.LEARNED
        if held:
            self.limit.estimate.set_known(10, 10.0, 10)
        else:
            self.limit.estimate.set_window(10, 10.0)
            self.limit.estimate.proven = 10
        self.limit.estimate.hints.are_exact = True

    def go(self, now: float) -> list[int]:
        """Serial numbers of all that may go."""
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


def test_of_an_attempt_and_what_went_with_it_any_may_be_the_one_that_is_refused() -> None:
    scene = Attempted()
    *others, proven, extra = scene.go(0.0)
    assert extra == 11
    scene.settle(proven, Outcome.THROTTLED, 0.1, 9.9)
    for serial in (*others, extra):
        scene.settle(serial, Outcome.SERVED, 0.1)
    scene.go(10.0)
    estimate = scene.limit.estimate
    assert (estimate.window.count, estimate.proven, estimate.reserve, estimate.window_probes.pause_periods) == (
        10,
        10,
        0,
        2,
    )


def test_more_refusals_than_the_attempts_mean_that_what_was_proven_is_not_there() -> None:
    scene = Attempted()
    *others, first, second, extra = scene.go(0.0)
    for serial in (extra, first, second):
        scene.settle(serial, Outcome.THROTTLED, 0.1, 9.9)
    for serial in others:
        scene.settle(serial, Outcome.SERVED, 0.1)
    scene.go(10.0)
    estimate = scene.limit.estimate
    assert (estimate.window.count, estimate.window.period_s, estimate.reserve) == (8, 10.0, 2)


def test_an_extra_goes_early_in_the_period_or_waits_for_the_next() -> None:
    scene = Attempted()
    scene.limit.estimate.window_probes.due_at_s = 9.5
    for serial in scene.go(0.0):
        scene.settle(serial, Outcome.SERVED, 0.1)
    assert scene.go(9.6) == []  # the upstream's period may be over sooner than is known
    assert len(scene.go(10.3)) == 11


def test_where_no_period_is_ever_young_an_extra_goes_once_it_is_overdue_by_a_period() -> None:
    scene = Attempted()
    estimate = scene.limit.estimate
    estimate.set_known(20, 10.0, 20)
    estimate.window_probes.due_at_s = 20.0
    for half_s in range(20):  # one each half second: the oldest is always about to leave
        estimate.window.add(half_s / 2)
    went = {}
    for half_s in range(20, 80):
        went[half_s / 2] = serials = scene.go(half_s / 2)
        for serial in serials:
            scene.settle(serial, Outcome.SERVED, half_s / 2)
    assert next(at_s for at_s, serials in went.items() if len(serials) > 1) == 30.0


def test_a_refusal_at_the_end_of_a_known_period_does_not_lower_the_cap() -> None:
    scene = Attempted()
    estimate = scene.limit.estimate
    for _ in range(10):
        estimate.window.add(0.0)
    estimate.learn_from(Closure(GrantKind.COUNT_PROBE, 1.0, 9.0, hinted=True, in_flight=0), 10.0)
    for _ in range(10):
        estimate.window.add(10.0)
    estimate.learn_from(Closure(GrantKind.COUNT_PROBE, 12.0, 8.0, hinted=True, in_flight=10), 20.0)
    assert (estimate.hints.are_exact, estimate.concurrency_limit) == (True, math.inf)


def test_a_period_that_has_not_held_yet_begins_with_one_request() -> None:
    scene = Attempted(held=False)
    scene.limit.estimate.window_probes.due_at_s = math.inf
    for start in range(6):
        now = 10.1 * start
        first = scene.go(now)
        # The very first begins nothing by our clock; four starts are felt for, then the period is taken as proven.
        assert len(first) == (1 if 1 <= start <= 4 else 10)
        for serial in first:
            scene.settle(serial, Outcome.SERVED, now)
        for serial in scene.go(now):
            scene.settle(serial, Outcome.SERVED, now)


def test_one_refusal_tells_that_a_period_is_too_short_for_all_that_would_have_followed() -> None:
    scene = Attempted(held=False)
    scene.limit.estimate.window_probes.due_at_s = math.inf
    for serial in scene.go(0.0):
        scene.settle(serial, Outcome.SERVED, 0.1)
    (first,) = scene.go(10.1)
    scene.limit.not_served(first, 10.1, Outcome.THROTTLED, 10.2, 3.0)
    assert scene.go(10.3) == []
    scene.go(13.3)
    estimate = scene.limit.estimate
    assert (estimate.window.count, estimate.proven) == (10, 10)
    assert math.isclose(estimate.window.period_s, 13.1)


def test_a_limit_that_was_given_needs_no_feeling() -> None:
    scene = Attempted()
    scene.limit.estimate.window_probes.due_at_s = math.inf
    for now in (0.0, 10.1):
        granted = scene.go(now)
        assert len(granted) == 10
        for serial in granted:
            scene.settle(serial, Outcome.SERVED, now)


def test_where_the_quota_varies_more_is_asked_for_again_soon() -> None:
    scene = Attempted()
    estimate = scene.limit.estimate
    estimate.window_probes.pause_periods = 8.0
    for _ in range(11):  # the first ten are proven, three more pass in turn
        for serial in scene.go(0.0):
            scene.settle(serial, Outcome.SERVED, 0.1)
        if estimate.window.count == 13:
            estimate.window_probes.due_at_s = math.inf
    *proven, unproven = scene.go(10.1)
    assert len(proven) == 10
    scene.limit.not_served(unproven, 10.1, Outcome.THROTTLED, 10.2, 9.9)
    for serial in proven:
        scene.settle(serial, Outcome.SERVED, 10.2)
    scene.go(20.2)
    assert estimate.window.count == 10
    assert estimate.window_probes.pause_periods == 4


def test_quick_answers_narrow_a_cold_trial_and_slow_ones_widen_it() -> None:
    quick, slow = SlowStart(10), SlowStart(10)
    for serial in range(20):
        for slow_start, after_s in ((quick, 0.01), (slow, 2.0)):
            slow_start.unconfirmed[serial] = 0.0
            slow_start.accepted(serial, after_s)
    assert 5 < quick.max_unconfirmed < 5.5
    assert slow.max_unconfirmed == 15


def test_an_upstream_that_goes_on_answering_quickly_is_let_have_all_soon() -> None:
    slow_start = SlowStart(10)
    for serial in range(5_000):
        slow_start.unconfirmed[serial] = 0.0
        slow_start.accepted(serial, 0.001)
    assert slow_start.max_unconfirmed > 100


def test_no_one_is_on_trial_any_more_where_a_trial_has_more_room_than_there_are_places() -> None:
    limit = Limit(GatePolicy(max_in_flight=20, max_waiting=1), lambda: 0.0)
    kinds = []
    for number in range(1000):
        kind = limit.grant_kind(number * 0.01)
        assert kind is not None
        kinds.append(kind)
        limit.served(limit.grant(kind, number * 0.01), number * 0.01 + 0.002)
    assert kinds == sorted(kinds, key=[GrantKind.UNPROVEN, GrantKind.PROVEN].index)
    assert 700 < kinds.count(GrantKind.UNPROVEN) < 800


def test_once_something_is_known_each_that_passes_makes_room_for_one_and_a_half() -> None:
    slow_start = SlowStart(10)
    slow_start.restart(1)
    slow_start.unconfirmed[1] = 0.0
    slow_start.accepted(1, 0.01)
    assert slow_start.max_unconfirmed == 1.5
