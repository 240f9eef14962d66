"""The log of a sliding window."""

import math

import pytest

from nanonets_proxy.core.ratelimit.adaptive.estimate.sliding_window import SlidingWindow


def test_the_log_is_bounded() -> None:
    window = SlidingWindow()
    for number in range(20_000):
        window.add(float(number))
    assert len(window._recent) + len(window._older) <= 2 * 8192
    assert window.granted_since(-math.inf) <= 2 * 8192
    kept = window.granted_since(-math.inf)
    window.remove(5000.0)  # this grant no longer counts
    window.remove(5000.0)
    window.remove(1.0)  # this grant is no longer in the log
    assert window.granted_since(-math.inf) == kept - 1
    assert window.nth_newest_s(1) == 19_999


def test_remove_takes_one_of_two_grants_of_the_same_instant() -> None:
    window = SlidingWindow()
    window.set(10, 10.0)
    assert [window.add(at_s) for at_s in (1.0, 2.0, 2.0, 3.0)] == [1, 2, 3, 4]
    window.remove(2.0)
    assert window.used(3.0) == 3
    assert (window.oldest_s, window.newest_s) == (1.0, 3.0)
    assert window.granted_since(2.0) == 2


def test_the_grant_that_must_end_first_depends_on_the_cost_of_the_refused_request() -> None:
    window = SlidingWindow()
    for at_s, cost in ((1.0, 8), (11.0, 5), (12.0, 8), (13.0, 6)):
        window.add(at_s, cost)
    found = []
    for refused_cost in (1, 2, 7, 8):
        window.refused_cost = refused_cost
        found.append(window.nth_newest_s(20))
    assert found == [1.0, 11.0, 12.0, 12.0]


def test_a_grant_moves_to_the_instant_at_which_its_request_was_sent() -> None:
    window = SlidingWindow()
    window.set(5, 10.0)
    for at_s in (1.0, 2.0, 3.0):
        window.add(at_s)
    window.move(1.0, 1, 2.5)
    window.move(9.0, 1, 9.5)  # there is no such grant
    assert window.grants_since(0.0) == [(2.0, 1), (2.5, 1), (3.0, 1)]
    assert window.used(12.2) == 2


def test_a_grant_that_no_longer_counts_counts_again_once_its_request_was_sent_late() -> None:
    window = SlidingWindow()
    window.set(5, 10.0)
    for at_s in (1.0, 1.5, 3.0):
        window.add(at_s)
    assert window.used(12.0) == 1
    window.move(1.0, 1, 1.2)
    assert window.used(12.0) == 1
    window.move(1.5, 1, 4.0)
    assert window.used(12.9) == 2
    assert window.grants_since(0.0) == [(1.2, 1), (3.0, 1), (4.0, 1)]
    assert window.used(20.0) == 0
    window.move(4.0, 1, 4.5)  # none counts
    assert window.grants_since(3.5) == [(4.5, 1)]


def test_a_cost_can_be_corrected() -> None:
    window = SlidingWindow()
    window.set(10, 10.0)
    for at_s, cost in ((1.0, 2.0), (1.0, 3.0), (9.0, 1.0)):
        window.add(at_s, cost)
    window.change_cost(1.0, 3.0, 7.0)
    assert (window.used(9.0), window.granted_units, window.newest_units(2)) == (10, 10, 8)
    assert window.used(11.0) == 1
    window.change_cost(1.0, 7.0, 4.0)  # this grant no longer counts
    assert (window.used(11.0), window.granted_units, window.newest_units(9)) == (1, 7, 7)
    window.change_cost(5.0, 7.0, 4.0)  # this grant is no longer in the log
    assert (window.used(11.0), window.newest_units(9)) == (1, 7)


def test_grants_count_as_many_units_as_they_cost() -> None:
    window = SlidingWindow()
    window.set(10, 10.0)
    for at_s, cost in ((1.0, 3), (2.0, 2.5), (2.0, 1), (4.0, 2)):
        window.add(at_s, cost)
    assert (window.granted, window.granted_units) == (4, 8.5)
    assert window.used(4.0) == 8.5
    assert window.granted_since(2.0) == 5.5
    assert [window.nth_newest_s(units) for units in (2, 3, 5.5, 6, 100)] == [4.0, 2.0, 2.0, 2.0, 1.0]
    window.remove(2.0)
    assert window.used(4.0) == 7.5
    window.remove(2.0, 7)  # no such grant
    assert window.used(11.5) == 4.5
    assert window.used(14.0) == 0
    window.set(10, 20.0)  # older grants count again
    assert window.used(14.0) == 7.5
    window.age(7.0)
    assert window.used(14.0) == 4.5


def test_all_units_beyond_a_lowered_count_leave_within_a_period() -> None:
    window = SlidingWindow()
    window.set(20, 10.0)
    for number in range(20):
        window.add(number / 19)
    window.set(2, 10.0)
    assert window.forecast_at_s(1, 2.0) == pytest.approx(10.0 + 18 / 19)
    assert window.forecast_at_s(2, 2.0) == pytest.approx(11.0)
    assert window.forecast_at_s(3, 2.0) == pytest.approx(20.0 + 18 / 19)


def test_a_forecast_is_in_units() -> None:
    window = SlidingWindow()
    window.set(10, 10.0)
    window.add(0.0, 6)
    assert window.forecast_at_s(4, 1.0) == 1.0
    assert window.forecast_at_s(5, 1.0) == 10.0
    assert window.forecast_at_s(4 + 10 + 1, 1.0) == 20.0
