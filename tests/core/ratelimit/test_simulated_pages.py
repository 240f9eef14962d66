"""Limits in pages, in the simulator: what the gate gets out of them with and without the pages of requests."""

import pytest

from simulator.hints import exact
from simulator.pages import PageLimiter, share_of_pages


@pytest.mark.parametrize("sliding", [False, True])
def test_with_stated_pages_hardly_any_is_lost(sliding: bool) -> None:
    limiter = PageLimiter(200, 10.0, sliding=sliding)
    assert share_of_pages(limiter, exact, 1, stated=True) >= 0.95


@pytest.mark.parametrize(
    ("count", "period_s", "sliding"), [(60, 10.0, False), (200, 10.0, False), (100, 60.0, False), (100, 60.0, True)]
)
def test_with_unknown_pages_most_are_used(count: int, period_s: float, sliding: bool) -> None:
    limiter = PageLimiter(count, period_s, sliding=sliding)
    assert share_of_pages(limiter, exact, 1, stated=False) >= 0.85
