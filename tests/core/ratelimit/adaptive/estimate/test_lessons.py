"""The lessons of single closures."""

from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.lessons import learn_from
from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy


def estimate_of(count: int, period_s: float, granted_s: list[float]) -> LimitEstimate:
    """Returns an estimate of `count` in `period_s`, all proven, with these grants."""
    estimate = LimitEstimate()
    estimate.set_window(count, period_s)
    estimate.proven = count
    for at_s in granted_s:
        estimate.window.add(at_s)
    return estimate


def closure(kind: GrantKind, at_s: float, hint_s: float) -> Closure:
    return Closure(kind, at_s, hint_s, hinted=True, opens_at_s=at_s + hint_s)


def backoff(kind: GrantKind, at_s: float, length_s: float) -> Closure:
    return Closure(kind, at_s, length_s, hinted=False, opens_at_s=at_s + length_s)


def test_a_period_in_which_no_request_was_admitted_was_too_short() -> None:
    estimate = estimate_of(10, 1.0, [0.0] * 10)
    learn_from(estimate, closure(GrantKind.PROVEN, 1.5, 5.0), 6.5)
    assert (estimate.window.count, estimate.window.period_s) == (10, 6.0)  # hints in whole seconds are rounded up


def test_a_refusal_just_after_a_period_lengthens_the_period_a_little() -> None:
    estimate = estimate_of(10, 10.0, [0.0] * 10)
    learn_from(estimate, closure(GrantKind.PROVEN, 10.05, 0.2), 11.0)
    assert (estimate.window.count, estimate.window.period_s) == (10, 10.25)


def test_a_smaller_quota_than_the_proven_count_leaves_a_reserve() -> None:
    estimate = estimate_of(10, 10.0, [20.0] * 6)
    learn_from(estimate, closure(GrantKind.PROVEN, 20.1, 9.9), 30.0)
    assert (estimate.window.count, estimate.proven, estimate.reserve) == (6, 6, 3)
    gate = Gate(GatePolicy(max_in_flight=1, max_waiting=1), lambda: 0.0)
    assert gate.scopes.reserve() == 0


def test_where_periods_admit_now_more_and_now_fewer_the_count_is_the_most_of_the_latest() -> None:
    estimate = estimate_of(10, 10.0, [])
    counts = []
    for period, admitted in enumerate((7, 9, 6, 8, 6, 6, 6, 6)):
        estimate.window.set(10, 10.0)
        estimate.lower_count(admitted, 10.0 * period)
        counts.append((estimate.window.count, estimate.proven, estimate.quota_varies))
    varying = [(9, 7, True), (9, 6, True), (9, 6, True), (9, 6, True), (8, 6, True), (8, 6, True)]
    assert counts == [(7, 7, False), *varying, (6, 6, False)]


def test_a_varying_quota_is_probed_by_a_larger_count_even_if_the_count_is_small() -> None:
    estimate = estimate_of(3, 10.0, [])
    assert not estimate.prefers_count_probe
    estimate.lower_count(3, 10.0)
    estimate.lower_count(2, 20.0)
    assert estimate.prefers_count_probe
    estimate.restore(estimate.belief)
    assert not estimate.prefers_count_probe


def test_a_refusal_without_a_log_of_grants_teaches_nothing() -> None:
    estimate = estimate_of(10, 10.0, [])
    learn_from(estimate, closure(GrantKind.PROVEN, 1.0, 5.0), 6.0)
    assert (estimate.window.count, estimate.window.period_s, estimate.proven) == (10, 10.0, 10)


def test_only_the_second_refused_recovery_probe_lengthens_the_period() -> None:
    estimate = estimate_of(10, 10.0, [0.0] * 10)
    learn_from(estimate, closure(GrantKind.RECOVERY_PROBE, 10.0, 10.0), 20.0)
    assert (estimate.window.period_s, estimate.proven) == (10.0, 0)
    learn_from(estimate, closure(GrantKind.RECOVERY_PROBE, 20.0, 10.0), 30.0)
    assert estimate.window.period_s == 30.0
    learn_from(estimate, closure(GrantKind.RECOVERY_PROBE, 21.0, 1.0), 30.0)
    assert estimate.window.period_s == 30.0


def test_a_refusal_at_the_concurrency_limit_lowers_only_that_limit() -> None:
    estimate = estimate_of(100, 10.0, [0.0] * 20)
    estimate.concurrency.limit = 6.0
    learn_from(estimate, Closure(GrantKind.PROVEN, 5.0, 1.0, hinted=True, opens_at_s=6.0, in_flight=5), 6.0)
    assert (estimate.concurrency.limit, estimate.window.count) == (5, 100)


def test_a_refused_probe_far_below_the_concurrency_limit_leaves_the_limit() -> None:
    estimate = estimate_of(100, 10.0, [0.0] * 20)
    estimate.concurrency.limit = 6.0
    learn_from(
        estimate, Closure(GrantKind.CONCURRENCY_PROBE, 5.0, 1.0, hinted=True, opens_at_s=6.0, in_flight=2), 6.0
    )
    assert estimate.concurrency.limit == 6
    assert estimate.concurrency.probes.refusals == 1


def test_the_first_period_is_no_longer_than_the_longest_hint() -> None:
    estimate = LimitEstimate()
    for at_s in (5.0, 7.0, 9.0, 11.0, 12.0):
        estimate.window.add(at_s)
    estimate.hints.note(closure(GrantKind.UNPROVEN, 1.0, 7.3), 8.3, estimate.window)
    learn_from(estimate, closure(GrantKind.UNPROVEN, 12.5, 2.17), 15.0)
    assert (estimate.window.count, estimate.window.period_s) == (3, 7.3)


def test_a_shorter_period_that_no_search_tries_must_hold_for_a_period() -> None:
    estimate = estimate_of(2, 10.0, [0.0, 1.0])
    estimate.period_probe_granted(8.0)
    estimate.shorten_period(8.1)
    assert (estimate.window.period_s, estimate.proven) == (8.0, 0)
    assert estimate.before_raise is not None
    assert estimate.before_raise.period_s == 10.0


def test_after_a_burst_of_which_few_were_accepted_each_accepted_probe_proves_half_the_period() -> None:
    estimate = LimitEstimate()
    estimate.window.add(0.0)
    burst = closure(GrantKind.UNPROVEN, 0.0, 1.0)
    burst.refused = 5
    learn_from(estimate, burst, 1.0)
    assert (estimate.window.count, estimate.window.period_s) == (1, 1.0)
    estimate.period_probe_granted(0.4)
    estimate.shorten_period(0.5)
    assert (estimate.window.period_s, estimate.before_raise) == (0.5, None)


def test_a_burst_just_before_a_refusal_began_a_period_that_admits_fewer() -> None:
    estimate = estimate_of(10, 10.0, [0.0] * 10 + [10.0] * 8)
    learn_from(estimate, closure(GrantKind.PROVEN, 10.05, 9.8), 20.0)
    assert (estimate.window.count, estimate.window.period_s) == (8, 10.0)


def test_without_a_hint_a_pause_shorter_than_the_period_does_not_lengthen_it() -> None:
    """The period admitted 8 of 10 requests, so the tenth newest request is one of the period before."""
    estimate = estimate_of(10, 10.0, [0.0] * 10 + [10.0] * 8)
    learn_from(estimate, backoff(GrantKind.PROVEN, 10.1, 1.0), 11.1)
    learn_from(estimate, backoff(GrantKind.RECOVERY_PROBE, 11.1, 4.0), 15.1)
    learn_from(estimate, backoff(GrantKind.RECOVERY_PROBE, 15.1, 5.0), 20.1)
    assert estimate.window.period_s == 10.0
    learn_from(estimate, backoff(GrantKind.RECOVERY_PROBE, 20.2, 10.0), 30.2)
    assert estimate.window.period_s == 15.0
