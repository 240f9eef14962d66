"""The lessons of single closures."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.adaptive.estimate.belief import Belief
from nanonets_proxy.core.ratelimit.adaptive.estimate.closure import Closure
from nanonets_proxy.core.ratelimit.adaptive.estimate.hint_history import HintHistory
from nanonets_proxy.core.ratelimit.adaptive.estimate.lessons import learn_from
from nanonets_proxy.core.ratelimit.adaptive.estimate.limit_estimate import LimitEstimate
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow
from nanonets_proxy.core.ratelimit.adaptive.grant_kind import GrantKind
from nanonets_proxy.core.ratelimit.adaptive.limit import Limit
from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.tickets import Outcome


def estimate_of(count: int, period_s: float, granted_s: list[float]) -> LimitEstimate:
    """Returns an estimate of `count` in `period_s`, all proven, with these grants."""
    estimate = LimitEstimate()
    estimate.set_window(count, period_s)
    estimate.proven = count
    for at_s in granted_s:
        estimate.window.add(at_s)
    return estimate


def closure(kind: GrantKind, at_s: float, hint_s: float, *, names_period: bool = False) -> Closure:
    return Closure(kind, at_s, hint_s, hinted=True, opens_at_s=at_s + hint_s, names_period=names_period)


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
    for period, admitted in enumerate((7, 9, 6, 8, *(6,) * 8)):
        estimate.window.set(10, 10.0)
        estimate.lower_count(admitted, 10.0 * period)
        counts.append((estimate.window.count, estimate.proven, estimate.quota_varies))
    assert counts == [(7, 7, False), (9, 7, True), *[(9, 6, True)] * 7, *[(8, 6, True)] * 2, (6, 6, False)]


@pytest.mark.parametrize(("burst", "varies"), [(20, False), (5, True)])
def test_a_large_first_burst_is_no_sign_of_a_varying_quota(burst: int, varies: bool) -> None:
    """A token bucket admits its whole size at once, and afterwards only as many as its rate allows."""
    estimate = LimitEstimate()
    estimate.learn_window(burst, 10.0, backoff(GrantKind.UNPROVEN, 0.1, 1.0), 1.1)
    for at_s in (10.0, 20.0):
        estimate.lower_count(3, at_s)
    assert (estimate.window.count, estimate.proven) == (burst if varies else 3, 3)
    assert estimate.quota_varies == varies


def test_a_varying_quota_is_probed_by_a_larger_count_even_if_the_count_is_small() -> None:
    estimate = estimate_of(3, 10.0, [])
    assert not estimate.prefers_count_probe
    estimate.lower_count(3, 10.0)
    steady = estimate.belief
    estimate.lower_count(2, 20.0)
    assert estimate.prefers_count_probe
    estimate.restore(estimate.belief)
    assert estimate.prefers_count_probe  # the quota still varies
    estimate.restore(steady)
    assert not estimate.prefers_count_probe


@pytest.mark.parametrize(("period_s", "varies"), [(1.0, False), (2.2, False), (10.0, True)])
def test_one_request_more_in_a_short_period_is_no_varying_quota(period_s: float, varies: bool) -> None:
    estimate = estimate_of(3, period_s, [])
    estimate.note_admitted(3, 2)
    assert estimate.quota_varies == varies


@pytest.mark.parametrize(("refused_cost", "varies"), [(2, True), (3, False)])
def test_the_pages_that_a_large_request_leaves_are_no_varying_quota(refused_cost: int, varies: bool) -> None:
    estimate = estimate_of(20, 10.0, [])
    estimate.window.refused_cost = refused_cost
    estimate.note_admitted(20, 18)
    assert estimate.quota_varies == varies


def test_a_varying_quota_is_probed_in_each_period_until_it_varies_no_longer() -> None:
    estimate = estimate_of(10, 10.0, [])
    estimate.note_admitted(9, 10)
    for period in range(1, 10):
        began_at_s = 10.0 * period
        for _ in range(10):
            estimate.window.add(began_at_s)
        learn_from(estimate, closure(GrantKind.COUNT_PROBE, began_at_s + 1, 9.0), began_at_s + 10)
        assert estimate.window_probes.due(began_at_s + 10) == (period < 7)
    assert not estimate.quota_varies


@pytest.mark.parametrize(("hint_s", "prefers_count"), [(5.0, True), (0.0, False)], ids=["refuted", "none"])
def test_after_a_refuted_hint_the_next_probe_asks_for_a_larger_count(hint_s: float, prefers_count: bool) -> None:
    """A refused late probe closes the scope for as long as such a hint says, so it may cost the next period."""
    estimate = estimate_of(10, 5.0, [0.0] * 10)
    for _ in range(2):
        estimate.hints.compare(hint_s, after_previous=True)
        learn_from(estimate, backoff(GrantKind.PERIOD_PROBE, 4.0, 5.0), 9.0)
    assert estimate.prefers_count_probe == prefers_count


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


def test_a_recovery_probe_that_was_refused_before_the_end_of_a_hint_lengthens_no_period() -> None:
    """The upstream may restart its period at each refusal. The hint was right."""
    estimate = estimate_of(10, 10.0, [0.0] * 10)
    for at_s in (9.5, 19.0):
        learn_from(estimate, replace(closure(GrantKind.RECOVERY_PROBE, at_s, 10.0), was_early=True), at_s + 9.5)
        assert (estimate.window.period_s, estimate.proven) == (10.0, 0)


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


@pytest.mark.parametrize(("names_period", "window"), [(True, (22, 60.0)), (False, (32, 147.0))])
def test_a_hint_that_names_the_period_tells_no_end_of_the_window(
    names_period: bool, window: tuple[float, float]
) -> None:
    """A steady caller meets a window of a minute on the clock."""
    estimate = LimitEstimate()
    for number in range(32):
        estimate.window.add(2.75 * number)
    learn_from(estimate, closure(GrantKind.UNPROVEN, 87.0, 60.0, names_period=names_period), 147.0)
    assert (estimate.window.count, estimate.window.period_s) == window


def test_a_period_that_admitted_nothing_before_the_first_refusal_teaches_no_count() -> None:
    estimate = LimitEstimate()
    estimate.window.add(1.0)
    learn_from(estimate, closure(GrantKind.UNPROVEN, 87.0, 60.0, names_period=True), 147.0)
    assert not estimate.known


def test_a_hint_that_names_the_present_period_lowers_the_count_only() -> None:
    estimate = estimate_of(22, 60.0, [3.0 * number for number in range(22)])
    learn_from(estimate, closure(GrantKind.PROVEN, 65.0, 60.0, names_period=True), 125.0)
    assert (estimate.window.count, estimate.window.period_s) == (20, 60.0)


@pytest.mark.parametrize(("names_period", "period_s"), [(True, 5.0), (False, 10.0)])
def test_a_refused_count_probe_shows_the_length_of_a_period_unless_its_hint_names_each_period(
    names_period: bool, period_s: float
) -> None:
    estimate = estimate_of(8, 5.0, [0.0] * 8)
    learn_from(estimate, closure(GrantKind.COUNT_PROBE, 4.95, 5.0, names_period=names_period), 10.0)
    assert (estimate.window.count, estimate.window.period_s) == (8, period_s)


@pytest.mark.parametrize(("proven", "period_s"), [(8, 4.0), (0, 5.0)])
def test_a_proven_period_that_explains_a_refused_probe_stays(proven: int, period_s: float) -> None:
    """The hint of 2 s leaves more than 3.99 s, and 4.99 s at most. A period of 5 s is the usual one of these."""
    estimate = estimate_of(8, 4.0, [0.0] * 8)
    estimate.proven = proven
    learn_from(estimate, closure(GrantKind.COUNT_PROBE, 2.99, 2.0), 5.0)
    assert (estimate.window.count, estimate.window.period_s) == (8, period_s)


def test_a_refusal_undoes_the_shorter_period_that_a_refused_probe_suggests() -> None:
    """A window on the clock had begun before its first request. So its end comes sooner than a period later."""
    estimate = estimate_of(8, 4.0, [0.4] * 8)
    learn_from(estimate, closure(GrantKind.COUNT_PROBE, 2.1, 2.0), 4.1)
    assert (estimate.window.count, estimate.window.period_s, estimate.proven) == (8, 3.0, 0)
    for _ in range(8):
        estimate.window.add(4.1)
    learn_from(estimate, closure(GrantKind.PERIOD_START, 7.11, 0.9), 8.0)
    assert (estimate.window.count, estimate.window.period_s, estimate.proven) == (8, 4.0, 8)
    for _ in range(8):
        estimate.window.add(8.4)
    learn_from(estimate, closure(GrantKind.COUNT_PROBE, 10.1, 2.0), 12.1)  # the same once more
    assert (estimate.window.count, estimate.window.period_s, estimate.proven) == (8, 4.0, 8)


def test_the_refusal_that_undoes_a_shorter_period_teaches_the_length_that_an_exact_hint_shows() -> None:
    """60 s have become 30 s. The tried period began with one of the upstream, so the hint names its end."""
    estimate = estimate_of(60, 60.0, [7.4] * 60)
    learn_from(estimate, closure(GrantKind.COUNT_PROBE, 8.0, 4.95), 12.95)
    assert estimate.window.period_s == pytest.approx(5.55)
    for _ in range(60):
        estimate.window.add(13.0)
    learn_from(estimate, closure(GrantKind.UNPROVEN, 18.6, 24.34), 42.94)
    assert (estimate.window.count, estimate.window.period_s) == (60, pytest.approx(30.0, abs=0.1))


def test_what_is_not_proven_gives_way_to_a_shorter_period() -> None:
    estimate = estimate_of(8, 4.0, [0.4] * 8)
    estimate.proven = 0.0
    learn_from(estimate, closure(GrantKind.COUNT_PROBE, 2.1, 2.0), 4.1)
    assert (estimate.window.period_s, estimate.before_raise) == (3.0, None)


def test_a_hint_names_a_period_if_it_is_usual_and_the_hint_before_it_was_the_same() -> None:
    hints, window = HintHistory(), SlidingWindow()
    assert [hint_s for hint_s in (1.0, 2.0, 5.0, 7.0, 60.0, 59.97) if hints.names_period(hint_s)] == [5.0, 60.0]
    hints.note(closure(GrantKind.PROVEN, 0.0, 60.0), 60.0, window)
    assert hints.names_period(60.0)
    assert not hints.names_period(30.0)
    hints.note(closure(GrantKind.PROVEN, 70.0, 37.0), 107.0, window)
    assert not hints.names_period(60.0)


@pytest.mark.parametrize("hint_s", [None, 3.0])
def test_the_first_hint_that_names_no_period_makes_no_known_limit_faster(hint_s: float | None) -> None:
    limit = Limit(GatePolicy(max_in_flight=100, max_waiting=100), lambda: 0.0)
    for begins_s, count, hint in ((0.0, 60, 60.0), (200.0, 20, hint_s)):
        for number in range(count):
            at_s = begins_s + 0.05 * number
            limit.served(limit.grant(GrantKind.UNPROVEN, at_s), at_s)
        refused_s, ends_s = begins_s + 3, begins_s + 64
        serial = limit.grant(GrantKind.UNPROVEN, refused_s)
        limit.not_served(serial, refused_s, Outcome.THROTTLED, refused_s, hint)
        limit.advance(ends_s)
        limit.served(limit.grant(GrantKind.RECOVERY_PROBE, ends_s), ends_s)
    assert limit.estimate.window.count / limit.estimate.window.period_s <= 60 / 60.0


def test_a_period_that_explains_all_refusals_must_prove_its_count() -> None:
    """60 a minute were proven, and 20 of them reserved. A fit of 20 in 10 s has no part of that."""
    estimate = estimate_of(60, 60.0, [])
    estimate.reserve = 20
    assert estimate.learn_fit((20, 10.0), closure(GrantKind.PROVEN, 1.5, 5.0), 6.5)
    assert estimate.belief == Belief(20, 10.0, math.inf, 0.0, 0.0)


@given(
    period_s=st.sampled_from([2.5, 4.0, 7.0]),
    after_s=st.lists(st.floats(0.0, 1.0), min_size=20, max_size=20).map(sorted),
    periods_apart=st.lists(st.integers(1, 40), min_size=3, max_size=12),
)
def test_a_refusal_that_the_proven_estimate_explains_does_not_change_the_period(
    period_s: float, after_s: list[float], periods_apart: list[int]
) -> None:
    """Windows on the clock. Refusals that are 20 s apart fit windows of 5 s as well as those of 4 s."""
    estimate = estimate_of(20, period_s, [])
    begins_s = 0.0
    for apart in periods_apart:
        begins_s += apart * period_s
        for at_s in after_s:
            estimate.window.add(begins_s + at_s)
        rest_s = period_s - 1.5
        learn_from(estimate, closure(GrantKind.PROVEN, begins_s + 1.5, rest_s), begins_s + period_s)
        assert estimate.window.period_s == period_s


@pytest.mark.parametrize(("min_period_s", "period_s"), [(0.0, 4.0), (3.8, 5.0)])
def test_a_proven_period_gives_way_to_a_usual_one_only_if_it_was_lengthened(
    min_period_s: float, period_s: float
) -> None:
    """A count that is one too large lengthens the period again and again. Nothing refused the true period."""
    estimate = estimate_of(20, 4.0, [])
    for begins_s in (20.0, 40.0):
        for _ in range(20):
            estimate.window.add(begins_s + 0.5)
        estimate.min_period_s = min_period_s
        learn_from(estimate, closure(GrantKind.PROVEN, begins_s + 1.5, 2.5), begins_s + 4)
    assert estimate.window.period_s == period_s


def test_the_first_period_is_the_usual_one_that_admitted_the_most_per_second() -> None:
    """8 requests in the last 10 s are more per second than 11 in the last 15 s."""
    estimate = LimitEstimate()
    for at_s in (0.0, 2.0, 4.0, *(5.0 + number for number in range(8))):
        estimate.window.add(at_s)
    learn_from(estimate, closure(GrantKind.UNPROVEN, 12.5, 2.5), 15.0)
    assert (estimate.window.count, estimate.window.period_s) == (8, 10.0)


def test_a_request_after_the_refused_one_does_not_hide_those_before() -> None:
    """The requests of a fifth of a second belong to a burst, though the newest came after the refusal."""
    estimate = LimitEstimate()
    for at_s in (16.9, 17.1, 17.3, 17.6):
        estimate.window.add(at_s)
    learn_from(estimate, closure(GrantKind.UNPROVEN, 17.5, 1.0), 18.5)
    assert (estimate.window.count, estimate.window.period_s) == (4, 1.0)


def test_a_shorter_period_that_no_search_tries_must_hold_for_a_period() -> None:
    estimate = estimate_of(2, 10.0, [0.0, 1.0])
    estimate.period_probe_granted(8.0)
    estimate.shorten_period(8.1)
    assert (estimate.window.period_s, estimate.proven) == (8.0, 0)
    assert estimate.before_raise is not None
    assert estimate.before_raise.period_s == 10.0


@pytest.mark.parametrize(("probed_at_s", "period_s"), [(8.0, 8.0), (9.9, 10.0)], ids=["in time", "late"])
def test_after_a_late_period_probe_without_hints_the_next_one_asks_for_a_larger_count(
    probed_at_s: float, period_s: float
) -> None:
    """The refusal of the raised count then shows how many requests the period admits."""
    estimate = estimate_of(10, 10.0, [number / 2 for number in range(10)])
    estimate.period_probe_granted(probed_at_s)
    estimate.shorten_period(probed_at_s + 0.1)
    assert estimate.window.period_s == period_s
    assert estimate.prefers_count_probe == (period_s == 10.0)
    if estimate.prefers_count_probe:
        estimate.window.add(probed_at_s)
        estimate.raise_count(probed_at_s + 0.1)
        assert estimate.window.count == 15
        learn_from(estimate, backoff(GrantKind.UNPROVEN, 9.95, 1.0), 11.0)
        assert (estimate.window.count, estimate.window.period_s) == (11, 10.0)
        assert not estimate.prefers_count_probe


def test_a_refused_probe_ends_the_preference_for_a_larger_count() -> None:
    estimate = estimate_of(10, 10.0, [number / 2 for number in range(10)])
    estimate.period_probe_granted(9.9)
    estimate.shorten_period(10.0)
    assert estimate.prefers_count_probe
    learn_from(estimate, backoff(GrantKind.COUNT_PROBE, 10.1, 1.0), 11.1)
    assert not estimate.prefers_count_probe


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


@pytest.mark.parametrize(("refused", "period_s", "probed_s"), [(1, 10.0, 5.0), (1, 15.0, 12.0), (5, 60.0, 30.0)])
def test_a_small_count_in_a_long_period_is_tested_in_small_steps_unless_a_burst_met_it(
    refused: int, period_s: float, probed_s: float
) -> None:
    """Before 3 or 4 requests a minute, halves cost steady callers a third more 429s, and gained nothing."""
    estimate, first = LimitEstimate(), closure(GrantKind.UNPROVEN, 0.0, 1.0)
    first.refused = refused
    estimate.learn_window(3, period_s, first, 1.0)
    assert estimate.window_probes.shorter_period_s(period_s) == pytest.approx(probed_s)


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
