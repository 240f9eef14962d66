"""Whether the limit is a least interval between two requests."""

import pytest

from nanonets_proxy.core.ratelimit.adaptive.estimate.interval_fit import IntervalFit
from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow

TOLERANCE_S = 0.01


def notes(refusals: list[tuple[list[float], float]], *, cost: float = 1) -> list[float | None]:
    """Returns what each refusal tells: the grants before it, and its own."""
    fit, window, found = IntervalFit(), SlidingWindow(), []
    for granted_s, refused_s in refusals:
        for at_s in granted_s:
            window.add(at_s, cost)
        found.append(fit.note(refused_s, window, TOLERANCE_S))
    return found


def test_three_refusals_after_short_intervals_tell_the_shortest_accepted_interval() -> None:
    refusals = [([0.0, 0.5], 0.6), ([1.0, 1.25], 1.44), ([2.0, 3.0], 3.15)]
    assert notes(refusals) == [None, None, 0.25]


def test_a_refusal_after_a_longer_interval_than_an_accepted_one_ends_the_search() -> None:
    """Three requests in any second: the limit accepts some that come together."""
    refusals = [([0.0, 0.1], 0.5), ([1.0, 1.5], 1.6), ([2.0, 2.5], 2.6), ([3.0, 3.5], 3.6)]
    assert notes(refusals) == [None] * 4


def test_a_grant_after_the_refused_request_does_not_hide_the_interval_before_that() -> None:
    """A refusal is known only after its travel time, and other requests were granted meanwhile."""
    refusals = [([0.0, 0.5, 0.95], 0.9), ([2.0, 2.2], 2.3), ([3.0, 3.5], 3.6)]
    assert notes(refusals) == [None] * 3


@pytest.mark.parametrize("later_s", [0.0, 0.005])
def test_a_grant_a_moment_after_the_refused_request_may_have_arrived_before_it(later_s: float) -> None:
    """Otherwise the second refusal would seem to come 0.5 s after an accepted request, and end the search."""
    refusals = [([0.0, 0.3], 0.4), ([1.0, 1.5 + later_s], 1.5), ([2.0, 2.3], 2.4)]
    assert notes(refusals) == [None, None, pytest.approx(0.3)]


def test_intervals_as_short_as_the_differences_of_travel_times_tell_nothing() -> None:
    refusals = [([number, number + 0.02], number + 0.021) for number in (0.0, 1.0, 2.0)]
    assert notes(refusals) == [None] * 3


def test_requests_of_several_pages_tell_no_interval() -> None:
    refusals = [([0.0, 0.5], 0.6), ([1.0, 1.25], 1.44), ([2.0, 3.0], 3.15)]
    assert notes(refusals, cost=2) == [None] * 3


@pytest.mark.parametrize("granted_s", [[], [0.0]])
def test_without_two_grants_before_the_refused_request_nothing_is_known(granted_s: list[float]) -> None:
    assert notes([(granted_s, 0.0), ([], 0.0), ([], 0.0)]) == [None] * 3
