"""Limits in pages, in the simulator: what the gate gets out of them with and without the pages of requests."""

import pytest

from simulator.hints import HintStyle, exact, none, whole_seconds
from simulator.pages import PageLimiter, run_pages


@pytest.mark.parametrize("hint", [exact, whole_seconds], ids=["exact", "whole seconds"])
@pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])
@pytest.mark.parametrize(("count", "period_s"), [(20, 10.0), (60, 10.0), (200, 10.0), (100, 60.0)])
def test_with_stated_pages_hardly_any_is_lost(count: int, period_s: float, sliding: bool, hint: HintStyle) -> None:
    result = run_pages(lambda: PageLimiter(count, period_s, sliding=sliding), hint, 5, stated=True)
    assert result.goodput >= 0.95


@pytest.mark.parametrize("hint", [exact, whole_seconds], ids=["exact", "whole seconds"])
@pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])
@pytest.mark.parametrize(("count", "period_s"), [(20, 10.0), (60, 10.0), (200, 10.0), (100, 60.0)])
def test_with_unknown_pages_most_are_used_and_refusals_stay_few(
    count: int, period_s: float, sliding: bool, hint: HintStyle
) -> None:
    result = run_pages(lambda: PageLimiter(count, period_s, sliding=sliding), hint, 1, stated=False)
    assert result.goodput >= 0.9
    assert result.refused <= 0.45 * result.admitted


def test_without_hints_stated_pages_are_not_lost_by_tests_of_the_limit() -> None:
    result = run_pages(lambda: PageLimiter(200, 10.0, sliding=False), none, 1, stated=True)
    assert result.goodput >= 0.95


@pytest.mark.parametrize("sliding", [False, True], ids=["fixed", "sliding"])
@pytest.mark.parametrize("seed", [3, 4])
def test_without_hints_a_period_that_admits_fewer_requests_is_not_taken_for_a_longer_one(
    sliding: bool, seed: int
) -> None:
    result = run_pages(lambda: PageLimiter(60, 10.0, sliding=sliding), none, seed, stated=False)
    assert result.goodput >= 0.85
