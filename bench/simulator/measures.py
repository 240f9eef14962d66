"""Measures beside goodput: a burst's makespan, fairness, unnecessary waits, forecasts."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from simulator.cases import COUNT, PERIOD_S, burst, closed_loop, poisson
from simulator.hints import exact
from simulator.limiters import FixedWindow
from simulator.run import this_gate
from simulator.world import Conditions, World

_BURST = 1000
_PER_WINDOW = 150


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table; `good` says whether the target is met."""

    name: str
    target: str
    value: str
    good: bool


def _world(limiter: FixedWindow, period_s: float, seed: int) -> World:
    return World(this_gate(), limiter, exact, period_s, Conditions(), seed)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def burst_of_a_thousand(seed: int) -> list[Measure]:
    world = _world(FixedWindow(_PER_WINDOW, PERIOD_S), PERIOD_S, seed)
    burst(world, _BURST)
    result = world.run(600.0)
    ideal_s = (_BURST - 1) // _PER_WINDOW * PERIOD_S
    share = (result.last_admitted_s - result.first_admitted_s) / ideal_s
    order = [arrival for _, arrival in sorted(result.order)]
    inverted = sum(later < earlier for earlier, later in pairwise(order))
    return [
        Measure("burst of 1,000: served", "1000", str(result.admitted), result.admitted == _BURST),
        Measure("burst of 1,000: makespan over the ideal", "<= 1.1", f"{share:.3f}", share <= 1.1),
        Measure("burst of 1,000: order inversions", "< 1 %", f"{inverted / _BURST:.1%}", inverted < 0.01 * _BURST),
    ]


def lone_caller(seed: int) -> list[Measure]:
    world = _world(FixedWindow(COUNT, PERIOD_S), PERIOD_S, seed)
    for _ in range(200):
        world.at(0.0, lambda: world.arrive("heavy", repeats=True))
    for number in range(1, 60):
        world.at(number * PERIOD_S * 1.5, lambda: world.arrive("lone"))
    result = world.run(60 * 1.5 * PERIOD_S)
    waits = [wait_s for lane, _, wait_s in result.waits if lane == "lone"]
    # A lone request finds the window used up. It should be among the first requests of the next window.
    p99_s = _quantile(waits, 0.99)
    good = p99_s <= 1.3 * PERIOD_S
    return [Measure("a lone caller beside 200: p99 wait over a window", "<= 1.3", f"{p99_s / PERIOD_S:.2f}", good)]


def equal_demand(seed: int) -> list[Measure]:
    world = _world(FixedWindow(COUNT, PERIOD_S), PERIOD_S, seed)
    lanes = [f"caller {number}" for number in range(10)]
    for lane in lanes:
        for _ in range(20):
            world.at(world.random.uniform(0, 1), partial(world.arrive, lane, repeats=True))
    result = world.run(600.0)
    shares = [sum(1 for lane, _, _ in result.waits if lane == name) for name in lanes]
    jain = sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))
    return [Measure("10 callers of equal demand: Jain's index", "> 0.95", f"{jain:.3f}", jain > 0.95)]


def under_the_limit(seed: int) -> list[Measure]:
    world = _world(FixedWindow(1000, PERIOD_S), PERIOD_S, seed)
    poisson(0.5 * 1000 / PERIOD_S)(world, 120.0)
    result = world.run(130.0)
    p99_s = _quantile([wait_s for _, _, wait_s in result.waits], 0.99)
    return [Measure("under the limit: p99 added wait", "< 5 ms", f"{p99_s * 1000:.1f} ms", p99_s < 0.005)]


def forecasts(seed: int) -> list[Measure]:
    """Compares forecasts of more than a second with the real waits, once the limit is learned."""
    world = _world(FixedWindow(COUNT, PERIOD_S), PERIOD_S, seed)
    closed_loop(world, 100)
    result = world.run(1200.0)
    ratios = [
        real_s / forecast_s
        for at_s, forecast_s, real_s in result.forecasts
        if at_s > 5 * PERIOD_S and forecast_s > 1
    ]
    near = sum(0.8 <= ratio <= 1.2 for ratio in ratios) / max(1, len(ratios))
    return [Measure("forecasts within 20 % of the real wait", ">= 90 %", f"{near:.1%}", near >= 0.9)]


def measures(seed: int) -> list[Measure]:
    parts = (burst_of_a_thousand, lone_caller, equal_demand, under_the_limit, forecasts)
    return [measure for part in parts for measure in part(seed)]
