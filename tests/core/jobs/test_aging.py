"""Which instants are old, while the system's clock may be set."""

import math

from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.jobs.aging import STEP_S, Aging

DAY_S = 86_400.0


def test_an_instant_is_old_after_the_age_also_at_the_start_of_a_process() -> None:
    aging = Aging(DAY_S)
    assert aging.kept(10 * DAY_S, 5.0) == (9 * DAY_S, math.inf)
    assert aging.kept(10 * DAY_S + 30, 35.0) == (9 * DAY_S + 30, math.inf)


def test_after_the_clock_was_set_forward_nothing_is_old_until_the_age_has_passed() -> None:
    aging = Aging(DAY_S)
    aging.kept(0.0, 0.0)
    assert aging.kept(100 * DAY_S, 30.0) == (-math.inf, math.inf)
    assert aging.kept(101 * DAY_S - 1, DAY_S + 29) == (-math.inf, math.inf)
    first_s, last_s = aging.kept(101 * DAY_S, DAY_S + 30)
    assert (first_s, last_s) == (100 * DAY_S, 101 * DAY_S + STEP_S)


def test_an_instant_after_now_is_old_once_the_age_has_passed_without_a_set_clock() -> None:
    aging = Aging(DAY_S)
    aging.kept(100 * DAY_S, 0.0)
    assert aging.kept(30.0, 30.0) == (-math.inf, math.inf)
    assert aging.kept(DAY_S + 30, DAY_S + 30)[1] == DAY_S + 30 + STEP_S < 100 * DAY_S


def test_a_clock_that_is_corrected_little_by_little_was_not_set() -> None:
    aging = Aging(DAY_S)
    aging.kept(0.0, 0.0)
    assert aging.kept(30.0 + STEP_S, 30.0)[0] == 30.0 + STEP_S - DAY_S


@given(st.lists(st.tuples(st.floats(0.1, 3600), st.floats(-1e9, 1e9)), max_size=40), st.data())
def test_no_result_is_old_before_its_age_however_the_clock_is_set(
    steps: list[tuple[float, float]], data: st.DataObject
) -> None:
    """A set clock is noticed at the next look. Each unnoticed step is smaller than `STEP_S`."""
    aging, steady_s, wall_s = Aging(7200.0), 0.0, 1e9
    aging.kept(wall_s, steady_s)
    ended: list[tuple[float, float]] = []
    for passed_s, set_by_s in steps:
        steady_s += passed_s
        wall_s += passed_s + (set_by_s if data.draw(st.booleans()) and abs(set_by_s) > 2 * STEP_S else 0.0)
        first_s, last_s = aging.kept(wall_s, steady_s)
        for end_wall_s, end_steady_s in ended:
            if not first_s <= end_wall_s <= last_s:
                assert steady_s - end_steady_s >= 7200.0 - 1e-3
        ended.append((wall_s, steady_s))
