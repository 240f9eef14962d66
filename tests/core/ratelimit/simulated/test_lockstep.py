"""Callers that send their requests at the same instants wait little longer than the limit demands."""

import pytest

from simulator.hints import HintStyle, constant, exact, whole_seconds
from simulator.lockstep import LIMITS, loads
from simulator.traffic import Limit, excess


@pytest.mark.parametrize("hint", [exact, whole_seconds], ids=lambda hint: hint.__name__)
@pytest.mark.parametrize("limit", [limit for limit in LIMITS if limit.rate < 20], ids=lambda limit: limit.name)
def test_bursts_in_step_with_the_period_wait_little_longer_than_the_limit_demands(
    limit: Limit, hint: HintStyle
) -> None:
    load = next(iter(loads(limit).values()))
    share, _ = excess(limit, load, hint, 1)
    assert share <= 1.6


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hint_of_constant_length_does_not_make_a_sliding_window_longer(seed: int) -> None:
    """A refused count probe seemed to show a period of twice the length: 18.9 times the oracle's wait."""
    limit = next(limit for limit in LIMITS if limit.name == "sliding 40/5s")
    assert excess(limit, loads(limit)["72 each 10 s"], constant, seed)[0] <= 2.0


@pytest.mark.parametrize("seed", [1, 2])
def test_a_refuted_hint_as_long_as_the_period_costs_no_period_at_each_probe(seed: int) -> None:
    """Each period probe was refused late in a period, and closed the next one: 11.1 times the oracle's wait."""
    limit = next(limit for limit in LIMITS if limit.name == "sliding 40/5s")
    assert excess(limit, loads(limit)["36 each 5 s"], constant, seed)[0] <= 5.0


def test_bursts_are_a_share_of_the_limit() -> None:
    assert list(loads(LIMITS[0])) == ["18 each 1 s", "36 each 2 s", "24 each 1 s", "48 each 2 s"]
