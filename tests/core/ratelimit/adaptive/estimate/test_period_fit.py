"""The period that explains all refusals so far."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.ratelimit.adaptive.estimate.period_fit import PeriodEnd, PeriodFit
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow


def window_of(granted_s: list[float]) -> SlidingWindow:
    window = SlidingWindow()
    for at_s in granted_s:
        window.add(at_s)
    return window


def end(refused_s: float, ends_at_s: float, uncertain_s: float = 0.0) -> PeriodEnd:
    return PeriodEnd(refused_s, ends_at_s - uncertain_s, ends_at_s)


def test_one_refusal_tells_no_period() -> None:
    assert PeriodFit().note(end(1.0, 10.0), window_of([0.0] * 20), 0.01) is None


def test_two_full_windows_of_the_same_count_tell_the_period() -> None:
    fit, window = PeriodFit(), window_of([0.0] * 20)
    fit.note(end(1.0, 10.0), window, 0.01)
    for _ in range(20):
        window.add(10.0)
    assert fit.note(end(11.0, 20.0), window, 0.01) == (20, 10.0)


def test_the_requests_before_a_burst_belong_to_the_sliding_window_too() -> None:
    """60 in any 5 s. The request of 0 s ends at 5 s, that of 1 s at 6 s."""
    fit, window = PeriodFit(), window_of([0.0, 1.0, 2.0, *[3.0] * 57])
    assert fit.note(end(3.0, 5.0), window, 0.01) is None
    window.add(5.0)
    assert fit.note(end(5.1, 6.0), window, 0.01) == (60, 5.0)


@given(phase_s=st.floats(0.0, 9.0), refused_after_s=st.lists(st.floats(2.0, 9.5), min_size=3, max_size=6))
def test_rounded_hints_tell_a_window_on_the_clock(phase_s: float, refused_after_s: list[float]) -> None:
    """Each window of 10 s admits 20 requests, evenly until the refusal; hints are in whole seconds, rounded up."""
    fit, window, found = PeriodFit(), SlidingWindow(), None
    for number, after_s in enumerate(refused_after_s):
        begins_s = phase_s + 10.0 * number
        for request in range(20):
            window.add(begins_s + 0.01 + (after_s - 0.02) * request / 20)
        hint_s = float(int(10.0 - after_s) + 1)
        found = fit.note(end(begins_s + after_s, begins_s + after_s + hint_s, 1.0), window, 0.0)
    assert found is None or found[1] <= 10.0
    if found is not None and found[1] == 10.0:
        assert found[0] <= 20


def test_without_a_hint_the_period_ended_between_two_probes() -> None:
    fit, window = PeriodFit(), window_of([0.5] * 20)
    window.add(10.2)  # the accepted probe
    assert fit.note(PeriodEnd(1.0, 9.0, 10.2), window, 0.01, granted_by_s=9.0) is None
    for _ in range(19):
        window.add(11.0)
    window.add(20.4)
    assert fit.note(PeriodEnd(12.0, 19.5, 20.4), window, 0.01, granted_by_s=19.5) == (20, 10.0)


def test_a_longer_period_replaces_no_estimate_that_may_be_true() -> None:
    """A probe that came a little too early leaves a wide range for the count of the true period."""
    fit, window = PeriodFit(), window_of([0.1] * 20)
    window.add(10.3)
    assert fit.note(PeriodEnd(0.2, 5.1, 10.3), window, 0.01, granted_by_s=5.1) is None
    for at_s in (10.4, 20.4):
        for _ in range(20):
            window.add(at_s)
    window.set(20, 9.98)
    too_early = PeriodEnd(30.38, 30.38, 31.5)
    window.add(31.5)
    assert fit.note(too_early, window, 0.01, granted_by_s=30.38) is None


def test_two_refusals_of_one_period_count_once() -> None:
    fit, window = PeriodFit(), window_of([0.0] * 20)
    fit.note(end(1.0, 10.0), window, 0.01)
    assert fit.note(end(2.0, 10.0), window, 0.01) is None


@pytest.mark.parametrize("hint_s", [4.0, 1.0])
def test_a_try_before_the_end_of_a_period_meets_the_same_period(hint_s: float) -> None:
    """Windows of 40 in 4 s. One of the 40 is granted after the refused request, but arrives before it."""
    fit, window = PeriodFit(), window_of([4.0 - hint_s] * 39 + [4.004 - hint_s])
    fit.note(end(4.0 - hint_s, 4.0, 1.0), window, 0.01)
    assert fit.note(end(3.99, 4.99, 1.0), window, 0.01) is None


def test_a_wide_range_of_counts_explains_nothing() -> None:
    fit, window = PeriodFit(), window_of([0.1 * number for number in range(20)])
    fit.note(end(2.0, 3.0, 1.0), window, 0.01)
    for number in range(8):
        window.add(3.7 + 0.1 * number)
    assert fit.note(end(4.5, 5.0, 1.0), window, 0.01) is None  # 5 to 8 in 1 s, and no longer period


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        (((16, 20), (5, 20)), (20, 1.0)),  # 20 in 1 s; the seconds before the refused ones fit 20 in 2 s by chance
        (((6, 14), (15, 5)), (14, 2.0)),  # 20 in 2 s; 5 in 1 s would explain it too, but with half of the requests
    ],
)
def test_of_two_possible_periods_the_one_that_admits_more_is_taken(
    seconds: tuple[tuple[int, int], ...], found: tuple[float, float]
) -> None:
    """The hint of 1 s is rounded up, so nobody knows when the second before the refusal became a new period."""
    fit, window = PeriodFit(), SlidingWindow()
    results = []
    for number, counts in enumerate(seconds):
        begins_s = 5.0 * number
        for second, count in enumerate(counts):
            for request in range(count):
                window.add(begins_s + second + (request + 0.5) / count)
        results.append(fit.note(end(begins_s + 2, begins_s + 3, 1.0), window, 0.0))
    assert results == [None, found]


def test_counts_that_differ_explain_nothing() -> None:
    fit, window = PeriodFit(), window_of([0.0] * 20)
    fit.note(end(1.0, 10.0), window, 0.01)
    for _ in range(7):
        window.add(10.0)
    assert fit.note(end(11.0, 20.0), window, 0.01) is None
    for _ in range(7):
        window.add(20.0)
    assert fit.note(end(21.0, 30.0), window, 0.01) is None  # the first refusal stays unexplained


def test_paced_requests_show_no_period() -> None:
    """One request a second passes. Each period admits the same number, but none begins with a request."""
    fit, window = PeriodFit(), window_of([float(number) for number in range(40)])
    fit.note(end(39.5, 39.77), window, 0.001)
    for number in range(40, 70):
        window.add(float(number))
    assert fit.note(end(69.5, 69.93), window, 0.001) is None


@pytest.mark.parametrize("stops", [True, False])
def test_the_fit_ends(stops: bool) -> None:
    fit, window = PeriodFit(), SlidingWindow()
    for number in range(17):
        for _ in range(20):
            window.add(10.0 * number)
        if stops and number == 3:
            fit.stop()
        found = fit.note(end(10.0 * number + 1, 10.0 * number + 10), window, 0.01)
        assert found == ((20, 10.0) if 1 <= number < (3 if stops else 16) else None)


@pytest.mark.parametrize(("pages", "found"), [(1, None), (8, (60, 10.0))])
def test_a_refused_request_of_several_pages_leaves_some_of_the_count_unused(
    pages: int, found: tuple[float, float] | None
) -> None:
    """A limit of 60 pages in 10 s. The second window has 55 pages when it refuses a request."""
    fit, window = PeriodFit(), window_of([0.0] * 60)
    fit.note(end(1.0, 10.0), window, 0.01)
    for _ in range(55):
        window.add(10.0)
    window.refused_cost = pages
    assert fit.note(end(11.0, 20.0), window, 0.01) == found


def test_a_period_that_is_known_already_is_not_found_again() -> None:
    fit, window = PeriodFit(), window_of([0.0] * 20)
    window.set(30, 10.0)
    fit.note(end(1.0, 10.0), window, 0.01)
    for _ in range(20):
        window.add(10.0)
    assert fit.note(end(11.0, 20.0), window, 0.01) is None


@pytest.mark.parametrize(
    ("proven", "last_window", "found"),
    [
        (0, 20, (20, 5.0)),  # nothing is proven
        (18, 20, None),
        (18, 18, None),  # another client may have had two
        (18, 9, (9, 5.0)),  # the proven estimate does not explain this refusal
        (18, 21, (21, 5.0)),
    ],
)
def test_no_period_replaces_a_proven_estimate_that_explains_the_refusal_too(
    proven: int, last_window: int, found: tuple[float, float] | None
) -> None:
    """20 in 4 s, on the clock. The refusals are 20 s apart, so windows of 5 s explain them as well."""
    fit, window = PeriodFit(), window_of([0.5] * last_window)
    window.set(20, 4.0)
    assert fit.note(end(1.0, 4.0), window, 0.01, proven=proven) is None
    for _ in range(last_window):
        window.add(20.5)
    assert fit.note(end(21.0, 24.0), window, 0.01, proven=proven) == found


def test_the_fastest_possible_period_replaces_an_estimate_that_is_clearly_slower() -> None:
    """One request each 3 s. The period ended between 9 and 24 s after the refusal: so much fits only a minute."""
    window = window_of([3.0 * number for number in range(33)])
    end_s = PeriodEnd(97.0, 106.0, 121.0)
    fit = PeriodFit()
    window.set(2, 30.0)  # as two requests before the refusal and the pauses after it suggest
    assert fit.note(end_s, window, 0.01) is None
    assert fit.fastest(window) == (17, 60.0)
    window.set(16, 60.0)
    assert fit.fastest(window) is None  # it is hardly more
    window.set(2, 30.0)
    fit.stop()
    assert fit.fastest(window) is None


def test_a_shorter_period_that_admits_much_less_replaces_no_estimate_that_may_be_true() -> None:
    """75 in each minute. The last ten seconds before each of two refusals admitted few requests, as by chance."""
    fit, window = PeriodFit(), SlidingWindow()
    found = []
    for begins_s in (0.0, 60.0):
        for number in range(75):
            window.add(begins_s + (0.6 * number if number < 69 else 49.0 + number - 69))
        window.set(75, 60.0)
        found.append(fit.note(PeriodEnd(begins_s + 55.0, begins_s + 57.0, begins_s + 60.0), window, 0.01))
    assert found == [None, None]
