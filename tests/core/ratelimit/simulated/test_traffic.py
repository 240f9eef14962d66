"""Usual traffic that meets an unknown limit: nobody waits much longer than the limit demands."""

from statistics import fmean

import pytest

from simulator import limiters, misleading
from simulator.hints import HintStyle, always, constant, exact, none, whole_seconds
from simulator.traffic import LIMITS, Limit, burst_after_a_few, excess, loads

BY_NAME = {limit.name: limit for limit in LIMITS}
MAX_EXCESS = 2.0
"""Times the oracle's mean wait, each plus a second. The mean of all cases is 1.2 with hints, and 1.6 without."""


@pytest.mark.parametrize("hint", [exact, whole_seconds, none], ids=lambda hint: hint.__name__)
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_a_burst_after_a_few_requests_waits_little_longer_than_the_limit_demands(
    limit: Limit, hint: HintStyle
) -> None:
    share, _ = excess(limit, loads(limit)["5 requests, then a burst"], hint, 1)
    assert share <= 1.4


@pytest.mark.parametrize("hint", [exact, whole_seconds], ids=lambda hint: hint.__name__)
@pytest.mark.parametrize("traffic", ["0.9 of the limit", "1.2 of the limit", "bursts"])
@pytest.mark.parametrize("name", ["fixed 20/10s", "on the clock 60/10s", "sliding 60/60s", "bucket 20, 2/s"])
def test_steady_traffic_waits_little_longer_than_the_limit_demands(
    name: str, traffic: str, hint: HintStyle
) -> None:
    limit = BY_NAME[name]
    share, refused = excess(limit, loads(limit)[traffic], hint, 1)
    assert share <= MAX_EXCESS
    assert refused <= 50


@pytest.mark.parametrize("seed", [3, 5])
def test_a_rounded_hint_does_not_double_a_period_of_a_second(seed: int) -> None:
    """The second before a refusal admits what two seconds admit by chance. Two seconds would halve the rate.

    The mean wait would be 28 and 60 times the oracle's.
    """
    limit = BY_NAME["fixed 20/1s"]
    share, _ = excess(limit, loads(limit)["0.9 of the limit"], whole_seconds, seed)
    assert share <= 8.0


def test_a_short_hint_does_not_exclude_the_true_period() -> None:
    """The oldest of 40 requests in 5 s soon ends, so the first hint may be a tenth of a second."""
    limit = BY_NAME["sliding 40/5s"]
    share, _ = excess(limit, loads(limit)["0.9 of the limit"], exact, 1)
    assert share <= 1.2


@pytest.mark.parametrize("name", ["sliding 40/5s", "sliding 60/60s", "fixed 20/1s"])
def test_a_burst_that_finds_a_partly_used_window_is_no_smaller_limit(name: str) -> None:
    """A sliding window that frees one request at a time looks like a limit of one request."""
    limit = BY_NAME[name]
    share, _ = excess(limit, burst_after_a_few(8, 0.5, 100), exact, 1)
    assert share <= 1.5


@pytest.mark.parametrize(("hint", "share"), [(constant, 20.0), (none, 8.0)], ids=["constant", "none"])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["on the clock 20/60s", "fixed 20/60s", "sliding 60/60s"])
def test_steady_traffic_below_a_limit_a_minute_is_not_slowed_for_good(
    name: str, hint: HintStyle, share: float, seed: int
) -> None:
    """Nanonets documents windows of a minute, and 60 s as the hint. Each refusal closes for the whole minute."""
    limit = BY_NAME[name]
    assert excess(limit, loads(limit)["0.9 of the limit"], hint, seed)[0] <= share


@pytest.mark.parametrize("hint_s", [3, 5, 10])
@pytest.mark.parametrize("seed", [1, 2])
def test_hints_shorter_than_the_window_do_not_slow_traffic_for_good(hint_s: int, seed: int) -> None:
    """The gate took such a hint for the end of a period of a few requests: 394 times the oracle's wait with 5 s."""
    for limit in misleading.limits(20)[:2]:
        share, refused = excess(limit, misleading.loads(limit)["0.9 of the limit"], always(hint_s), seed)
        assert share <= 50.0
        assert refused <= 120


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_hint_that_is_always_two_seconds_does_not_slow_a_sliding_window_of_a_minute(seed: int) -> None:
    """Probes went just before the end of a hint, so none refuted it: 66.5 times the oracle's wait with seed 1."""
    limit = misleading.limits(20)[2]
    assert excess(limit, misleading.loads(limit)["0.9 of the limit"], always(2), seed)[0] <= 4.0


def test_a_least_interval_between_requests_is_found_without_hints() -> None:
    """As 3 in 0.99 s, it took minutes to find 1 in 0.2 s: 10 times the oracle's wait in the mean."""
    limit = BY_NAME["GCRA 5/s"]
    assert fmean(excess(limit, loads(limit)["0.9 of the limit"], none, seed)[0] for seed in (1, 2, 3, 4)) <= 3.0


@pytest.mark.parametrize(("name", "seed"), [("sliding 40/5s", 5), ("sliding 40/5s", 10), ("fixed 20/10s", 3)])
def test_a_period_that_is_too_long_is_corrected_without_hints(name: str, seed: int) -> None:
    """Steady requests fill the window late, so each period probe gained little: 10.6, 5.4 and 20.5 times."""
    limit = BY_NAME[name]
    assert excess(limit, loads(limit)["0.9 of the limit"], none, seed)[0] <= 2.5


@pytest.mark.parametrize("seed", [1, 3])
def test_a_least_interval_close_to_the_differences_of_travel_times_is_found_without_hints(seed: int) -> None:
    """Two requests granted together arrive in any order. The mean wait was 186 and 129 times the oracle's."""
    limit = Limit("GCRA 20/s", lambda _: limiters.TokenBucket(1, 20.0), 0.05, 20.0)
    assert excess(limit, loads(limit)["0.9 of the limit"], none, seed)[0] <= 40.0


@pytest.mark.parametrize("seed", [4, 11])
def test_probes_that_restart_a_period_before_the_end_of_a_hint_do_not_make_it_longer(seed: int) -> None:
    """The gate took periods of a second for three: 14 and 13 times the oracle's wait."""
    limit = Limit("penalty 20/1s", lambda _: limiters.Penalty(20, 1.0), 1.0, 20.0)
    assert excess(limit, loads(limit)["bursts"], exact, seed)[0] <= 1.5
