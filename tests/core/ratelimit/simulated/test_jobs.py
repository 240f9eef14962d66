"""Cold jobs that meet an unknown limit: they take little longer than with an oracle."""

from statistics import fmean

import pytest

from simulator.cold import KINDS, PHASES, Kind, at_phase, free_rows, job
from simulator.hints import HintStyle, constant, exact, garbage, none, whole_seconds
from simulator.limiters import Penalty

BY_NAME = {kind.name: kind for kind in KINDS}
SEEDS = (1, 2, 3)
BLIND_TARGET = 1.8


def share(kind: Kind, hint: HintStyle, count: int = 100, seed: int = 1) -> float:
    return job(kind, hint, count, seed).share


@pytest.mark.parametrize("hint", [exact, whole_seconds], ids=lambda hint: hint.__name__)
@pytest.mark.parametrize("name", ["on the clock 20/1s", "on the clock 40/2s", "on the clock 60/5s", "GCRA 20/s"])
def test_a_true_hint_leaves_little_to_wait(name: str, hint: HintStyle) -> None:
    kind = BY_NAME[name]
    assert fmean(share(kind, hint, seed=seed) for seed in SEEDS) <= kind.target


def test_a_rounded_hint_leaves_little_to_wait_at_any_phase_of_a_window() -> None:
    """The first early try that is accepted is the start of a period, so the next hint tells its whole length."""
    shares = [share(at_phase(40, 2.0, phase), whole_seconds, seed=phase + 1) for phase in range(PHASES)]
    assert fmean(shares) <= 1.08
    assert max(shares) <= 1.15


@pytest.mark.parametrize(("hint", "target"), [(whole_seconds, 1.08), (none, 1.4)], ids=["whole seconds", "none"])
@pytest.mark.parametrize("count", [100, 400])
def test_a_period_that_is_no_usual_one_is_found_in_its_first_windows(
    hint: HintStyle, target: float, count: int
) -> None:
    """The gate took 2.5 s for 3 s with hints in whole seconds, and for 5 s without: 1.18 and 2.04."""
    assert share(BY_NAME["fixed 25/2.5s"], hint, count) <= target


def test_the_second_closure_shows_the_length_of_a_window_on_the_clock() -> None:
    """The first hint shows only when the window ends."""
    shares = [share(at_phase(25, 2.5, phase), whole_seconds, seed=phase + 1) for phase in range(PHASES)]
    assert fmean(shares) <= 1.08


def test_an_exact_hint_leaves_little_to_wait_at_any_phase_of_a_window() -> None:
    shares = [share(at_phase(60, 5.0, phase), exact, seed=phase + 1) for phase in range(PHASES)]
    assert fmean(shares) <= 1.08
    assert max(shares) <= 1.4


@pytest.mark.parametrize("hint", [none, garbage], ids=lambda hint: hint.__name__)
@pytest.mark.parametrize("name", ["fixed 20/10s", "on the clock 60/5s", "GCRA 20/s", "penalty 20/10s"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_without_hints_takes_less_than_twice_the_shortest_time(name: str, hint: HintStyle, seed: int) -> None:
    assert share(BY_NAME[name], hint, seed=seed) <= BLIND_TARGET


@pytest.mark.parametrize("seed", SEEDS)
def test_probes_that_restart_the_period_do_not_lengthen_it(seed: int) -> None:
    """Without hints, each refused limit probe costs a period, and a longer estimate would cost all later ones."""
    assert share(BY_NAME["penalty 20/10s"], none, 400, seed) <= BLIND_TARGET


@pytest.mark.parametrize("name", ["fixed 60/5s", "sliding 40/2s"])
def test_early_tries_do_not_take_a_hint_of_constant_length_for_a_longer_period(name: str) -> None:
    assert share(BY_NAME[name], constant, 400) <= BY_NAME[name].target


@pytest.mark.parametrize("name", ["bucket 20, 2/s", "bucket 20, 20/s", "bucket 100, 10/s"])
def test_an_early_try_that_a_bucket_accepts_is_no_new_period(name: str) -> None:
    kind = BY_NAME[name]
    found = job(kind, whole_seconds, 400, 1)
    assert found.share <= kind.target
    assert found.first_refused <= 64


@pytest.mark.parametrize("count", [100, 400])
def test_a_restarted_period_of_a_second_outlasts_the_early_tries(count: int) -> None:
    """Each early try restarts the period, so the gate gives the tries up after one period."""
    assert share(Kind("penalty 20/1s", lambda _: Penalty(20, 1.0), 1.0, 1.5), whole_seconds, count) <= 1.7


def test_without_a_limit_the_slow_start_takes_less_than_150_ms_and_the_next_job_does_not_wait() -> None:
    for name, _, _, p99, warm in free_rows(1)[1:]:
        assert (float(p99.removesuffix(" ms")) < 150, warm) == (True, "0 ms"), name
