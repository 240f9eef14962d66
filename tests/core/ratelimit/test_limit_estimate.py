"""Single lessons of a closure, and the bounds of what is kept."""

import math

import pytest

from nanonets_proxy.core.ratelimit.adaptive.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.sliding_window import SlidingWindow
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy


def estimate_of(count: int, period_s: float, granted_s: list[float]) -> LimitEstimate:
    """`count` in `period_s`, all proven, with these grants."""
    estimate = LimitEstimate()
    estimate.set_window(count, period_s)
    estimate.proven = count
    for at_s in granted_s:
        estimate.window.add(at_s)
    return estimate


def closure(kind: GrantKind, at_s: float, hint_s: float) -> Closure:
    return Closure(kind, at_s, hint_s, hinted=True, in_flight=0)


def test_a_period_of_our_own_that_admits_nothing_was_too_short() -> None:
    estimate = estimate_of(10, 1.0, [0.0] * 10)
    estimate.learn_from(closure(GrantKind.PROVEN, 1.5, 5.0), 6.5)
    assert (estimate.window.count, estimate.window.period_s) == (10, 6.5)


def test_a_refusal_just_after_the_period_makes_it_that_little_longer() -> None:
    estimate = estimate_of(10, 10.0, [0.0] * 10)
    estimate.learn_from(closure(GrantKind.PROVEN, 10.05, 0.2), 11.0)
    assert (estimate.window.count, estimate.window.period_s) == (10, 10.25)


def test_less_than_was_proven_leaves_a_reserve_that_goes_one_by_one() -> None:
    estimate = estimate_of(10, 10.0, [20.0] * 6)
    estimate.learn_from(closure(GrantKind.PROVEN, 20.1, 9.9), 30.0)
    assert (estimate.window.count, estimate.proven, estimate.reserve) == (6, 6, 3)
    gate = Gate(GatePolicy(max_in_flight=1, max_waiting=1), lambda: 0.0)
    assert gate.reserve() == 0


def test_without_a_log_a_refusal_teaches_nothing() -> None:
    estimate = estimate_of(10, 10.0, [])
    estimate.learn_from(closure(GrantKind.PROVEN, 1.0, 5.0), 6.0)
    assert (estimate.window.count, estimate.window.period_s, estimate.proven) == (10, 10.0, 10)


def test_only_a_second_refused_probe_makes_the_period_longer() -> None:
    estimate = estimate_of(10, 10.0, [0.0] * 10)
    estimate.learn_from(closure(GrantKind.RECOVERY_PROBE, 10.0, 10.0), 20.0)
    assert (estimate.window.period_s, estimate.proven) == (10.0, 0)
    estimate.learn_from(closure(GrantKind.RECOVERY_PROBE, 20.0, 10.0), 30.0)
    assert estimate.window.period_s == 30.0
    estimate.learn_from(closure(GrantKind.RECOVERY_PROBE, 21.0, 1.0), 30.0)
    assert estimate.window.period_s == 30.0


def test_a_refusal_at_the_cap_lowers_the_cap_alone() -> None:
    estimate = estimate_of(100, 10.0, [0.0] * 20)
    estimate.concurrency_limit = 6.0
    estimate.learn_from(Closure(GrantKind.PROVEN, 5.0, 1.0, hinted=True, in_flight=5), 6.0)
    assert (estimate.concurrency_limit, estimate.window.count) == (5, 100)


def test_a_window_keeps_a_bounded_log() -> None:
    window = SlidingWindow()
    for number in range(20_000):
        window.add(float(number))
    assert len(window._recent) + len(window._older) <= 2 * 8192
    assert window.granted_since(-math.inf) <= 2 * 8192
    kept = window.granted_since(-math.inf)
    window.remove(5000.0)  # long out of the window
    window.remove(5000.0)
    window.remove(1.0)  # and long forgotten
    assert window.granted_since(-math.inf) == kept - 1
    assert window.nth_newest_s(1) == 19_999


def test_of_two_granted_at_once_one_is_taken_back() -> None:
    window = SlidingWindow()
    window.set(10, 10.0)
    assert [window.add(at_s) for at_s in (1.0, 2.0, 2.0, 3.0)] == [1, 2, 3, 4]
    window.remove(2.0)
    assert window.used(3.0) == 3
    assert (window.oldest_s, window.newest_s) == (1.0, 3.0)
    assert window.granted_since(2.0) == 2


def test_a_weight_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="weight must be at least 1"):
        GatePolicy(max_in_flight=1, max_waiting=1, lane_weights=(("a", 0),))
