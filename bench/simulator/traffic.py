"""Usual traffic that meets an unknown limit: steady callers, bursts, and a burst after a few requests.

The cold jobs (`cold.py`) begin with a burst. Here other requests came before the first refusal, so the gate must
find out which of them belong to the period that the refusal ended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean

from simulator import hints, limiters
from simulator.cases import Case, poisson
from simulator.hints import HintStyle
from simulator.limiters import Limiter
from simulator.run import run, run_oracle, this_gate
from simulator.world import Result, World

HORIZON_S = 20_000.0
STYLES: tuple[tuple[str, HintStyle], ...] = (
    ("exact", hints.exact),
    ("whole seconds", hints.whole_seconds),
    ("constant", hints.constant),
    ("no hint", hints.none),
)

Load = Callable[[World, float], None]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of `rate` requests a second. The traffic lasts `lasts_s`."""

    name: str
    limiter: Callable[[int], Limiter]
    period_s: float
    rate: float
    lasts_s: float = 240.0


def on_the_clock(count: int, period_s: float) -> Callable[[int], Limiter]:
    return lambda seed: limiters.FixedWindow(count, period_s, aligned=True, phase_s=period_s * (seed * 0.37 % 1))


LIMITS = (
    Limit("fixed 20/1s", lambda _: limiters.FixedWindow(20, 1.0), 1.0, 20.0),
    Limit("fixed 20/10s", lambda _: limiters.FixedWindow(20, 10.0), 10.0, 2.0),
    Limit("on the clock 60/10s", on_the_clock(60, 10.0), 10.0, 6.0),
    Limit("on the clock 20/60s", on_the_clock(20, 60.0), 60.0, 1 / 3, 900.0),
    Limit("fixed 20/60s", lambda _: limiters.FixedWindow(20, 60.0), 60.0, 1 / 3, 900.0),
    Limit("sliding 40/5s", lambda _: limiters.SlidingLog(40, 5.0), 5.0, 8.0),
    Limit("sliding 60/60s", lambda _: limiters.SlidingLog(60, 60.0), 60.0, 1.0, 900.0),
    Limit("bucket 20, 2/s", lambda _: limiters.TokenBucket(20, 2.0), 10.0, 2.0),
    Limit("GCRA 5/s", lambda _: limiters.TokenBucket(1, 5.0), 0.2, 5.0),
)


def burst_after_a_few(few: int, gap_s: float, count: int) -> Load:
    """Returns a load of `few` requests, one each `gap_s`, and then `count` at once."""

    def load(world: World, _: float) -> None:
        for number in range(few):
            world.at(number * gap_s, world.arrive)
        for _ in range(count):
            world.at(few * gap_s, world.arrive)

    return load


def _bursts(every_s: float, count: int) -> Load:
    def load(world: World, lasts_s: float) -> None:
        at_s = 0.0
        while at_s < lasts_s - 1:
            for _ in range(count):
                world.at(at_s + world.random.uniform(0, 0.2), world.arrive)
            at_s += every_s * world.random.uniform(0.7, 1.3)

    return load


def loads(limit: Limit) -> dict[str, Load]:
    """Returns the kinds of traffic, which depend on the limit's rate."""
    every_s = max(4.0, 12 / limit.rate)
    return {
        "5 requests, then a burst": burst_after_a_few(5, 1.7, int(max(30, min(200, 15 * limit.rate)))),
        "half of the limit": poisson(0.5 * limit.rate),
        "0.9 of the limit": poisson(0.9 * limit.rate),
        "1.2 of the limit": poisson(1.2 * limit.rate),
        "bursts": _bursts(every_s, int(max(8, min(100, 0.7 * limit.rate * every_s)))),
    }


def _mean_wait_s(result: Result) -> float:
    return fmean(wait_s for _, _, wait_s in result.waits)


def excess(limit: Limit, load: Load, hint: HintStyle, seed: int) -> tuple[float, float]:
    """Returns the mean wait as a share of the oracle's, each plus a second, and the 429s per 1,000 requests."""
    case = Case(
        name=limit.name,
        target=0,
        limiter=limit.limiter,
        hint=hint,
        load=lambda world, _: load(world, limit.lasts_s),
        period_s=limit.period_s,
        horizon_s=HORIZON_S,
    )
    result, oracle = run(case, this_gate, seed), run_oracle(case, seed)
    assert not result.rejected, limit.name
    share = (_mean_wait_s(result) + 1) / (_mean_wait_s(oracle) + 1)
    return share, 1000 * result.refused / result.admitted


def excess_rows(
    kind: str, limits: Sequence[Limit], loads: Callable[[Limit], dict[str, Load]], seeds: Sequence[int]
) -> tuple[list[list[str]], dict[str, list[float]]]:
    """Returns the table of a `kind` of load, and its shares by style of hints.

    A cell has the mean wait as a share of the oracle's, each plus a second / 429s per 1,000 requests.
    """
    rows = [["limit", kind, *(style for style, _ in STYLES)]]
    shares: dict[str, list[float]] = {style: [] for style, _ in STYLES}
    for limit in limits:
        for name, load in loads(limit).items():
            cells = []
            for style, hint in STYLES:
                found = [excess(limit, load, hint, seed) for seed in seeds]
                share, refused = (fmean(part) for part in zip(*found, strict=True))
                shares[style].append(share)
                cells.append(f"{share:.2f} / {refused:.0f}")
            rows.append([limit.name, name, *cells])
    rows.append(["geometric mean", "", *(f"{geometric_mean(values):.2f}" for values in shares.values())])
    return rows, shares


def traffic_rows(seeds: Sequence[int]) -> list[list[str]]:
    """Returns the table of usual traffic (`excess_rows`)."""
    rows, shares = excess_rows("traffic", LIMITS, loads, seeds)
    rows.insert(-1, ["mean", "", *(f"{fmean(values):.2f}" for values in shares.values())])
    return rows
