"""Which instants are old, while the system's clock may be set."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanonets_proxy.core.jobs.aging import STEP_S, Aging

DAY_S = 86_400.0
HOUR_S = 3_600.0
PERIOD_S = 30.0


def test_an_instant_is_old_after_the_age_also_at_the_start_of_a_process() -> None:
    aging = Aging(DAY_S)
    assert aging.kept(10 * DAY_S, 5.0) == (9 * DAY_S, math.inf)
    assert aging.kept(10 * DAY_S + 30, 35.0) == (9 * DAY_S + 30, math.inf)


def test_after_the_clock_was_set_forward_an_instant_counts_as_if_it_had_not_been() -> None:
    aging = Aging(DAY_S)
    aging.kept(0.0, 0.0)
    assert aging.kept(100 * DAY_S, 30.0) == (30 - DAY_S, math.inf)
    assert aging.kept(101 * DAY_S - 1, DAY_S + 29)[0] == 29
    assert aging.kept(101 * DAY_S, DAY_S + 30) == (100 * DAY_S, 101 * DAY_S + STEP_S)


def test_an_instant_after_now_is_old_once_the_age_has_passed_after_the_clock_was_set_back() -> None:
    aging = Aging(DAY_S)
    aging.kept(100 * DAY_S, 0.0)
    assert aging.kept(30.0, 30.0) == (30 - DAY_S, math.inf)
    assert aging.kept(DAY_S, DAY_S)[1] == 101 * DAY_S + STEP_S
    assert aging.kept(DAY_S + 30, DAY_S + 30)[1] == DAY_S + 30 + STEP_S


def test_a_clock_that_is_corrected_little_by_little_needs_few_instants() -> None:
    aging = Aging(DAY_S)
    for number in range(2880):
        first_s, _ = aging.kept(number * (PERIOD_S + 0.1), number * PERIOD_S)
        assert first_s == pytest.approx(number * PERIOD_S - DAY_S)
    assert len(aging._offsets) < 6


@pytest.mark.parametrize("set_by_s", [8 * HOUR_S, -8 * HOUR_S], ids=["paused", "set-back"])
def test_a_clock_that_is_set_each_night_keeps_nothing_longer_than_that(set_by_s: float) -> None:
    aging, wall_s, ended = Aging(DAY_S), 1e9, dict[float, float]()
    for steady_s in range(0, int(20 * DAY_S), 300):
        wall_s += 300
        if steady_s % (16 * HOUR_S) == 0:
            wall_s += set_by_s
        if steady_s % HOUR_S == 0:
            ended[steady_s] = wall_s
        first_s, last_s = aging.kept(wall_s, steady_s)
        old = [end_s for end_s, end_wall_s in ended.items() if not first_s <= end_wall_s <= last_s]
        for end_s in old:
            assert steady_s - end_s >= DAY_S
            del ended[end_s]
        if steady_s > 2 * DAY_S:
            assert steady_s - min(ended) <= DAY_S + 3 * abs(set_by_s) + HOUR_S


STEPS = st.one_of(st.just(0.0), st.floats(-STEP_S, STEP_S), st.floats(-4000, 4000), st.floats(-1e9, 1e9))


@given(st.lists(st.tuples(st.floats(0.1, 3600), STEPS, st.floats(0, 1), st.booleans()), max_size=60))
def test_no_result_is_old_before_its_age_however_the_clock_is_set(
    steps: list[tuple[float, float, float, bool]],
) -> None:
    """The clock is set at most once between two looks. A result ends between them too, before or after that."""
    aging, steady_s, wall_s = Aging(7200.0), 0.0, 1e9
    aging.kept(wall_s, steady_s)
    ended: list[tuple[float, float]] = []
    for passed_s, set_by_s, share, is_set in steps:
        end_s = share * passed_s
        ended.append((wall_s + end_s + (set_by_s if is_set else 0.0), steady_s + end_s))
        steady_s += passed_s
        wall_s += passed_s + set_by_s
        first_s, last_s = aging.kept(wall_s, steady_s)
        for end_wall_s, end_steady_s in ended:
            if not first_s <= end_wall_s <= last_s:
                assert steady_s - end_steady_s >= 7200.0 - 1e-3
