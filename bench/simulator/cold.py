"""The cold table: jobs that meet an unknown limit. A job is a number of requests that arrive at the same instant.

The makespan of a job is the time from its arrival to its last response. It is compared with the oracle's, which
knows the limit.
"""

from collections.abc import Callable
from dataclasses import dataclass

from simulator import hints, limiters
from simulator.cases import Case, burst
from simulator.hints import HintStyle
from simulator.limiters import Limiter
from simulator.run import run, run_oracle, this_gate
from simulator.world import Conditions

JOBS = (100, 400, 1000)
QUICK = Conditions()
SLOW = Conditions(service_s=(0.5, 1.5))
HORIZON_S = 20_000.0

STYLES: tuple[tuple[str, HintStyle], ...] = (
    ("exact", hints.exact),
    ("whole seconds", hints.whole_seconds),
    ("constant", hints.constant),
)
BLIND: tuple[tuple[str, HintStyle], ...] = (("no hint", hints.none), ("garbage", hints.garbage))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of limit. `targets` are the largest makespans as shares of the oracle's: with hints, and without."""

    name: str
    limiter: Callable[[int], Limiter]
    period_s: float
    target: float
    conditions: Conditions = QUICK
    blind_target: float = 1.8


def _fixed(count: int, period_s: float) -> Kind:
    return Kind(f"fixed {count}/{period_s:g}s", lambda _: limiters.FixedWindow(count, period_s), period_s, 1.08)


def _aligned(count: int, period_s: float) -> Kind:
    return Kind(
        f"on the clock {count}/{period_s:g}s",
        lambda seed: limiters.FixedWindow(count, period_s, aligned=True, phase_s=period_s * (seed * 0.37 % 1)),
        period_s,
        1.08,
    )


def _sliding(count: int, period_s: float) -> Kind:
    return Kind(f"sliding {count}/{period_s:g}s", lambda _: limiters.SlidingLog(count, period_s), period_s, 1.08)


def _bucket(size: int, rate: float) -> Kind:
    return Kind(f"bucket {size}, {rate:g}/s", lambda _: limiters.TokenBucket(size, rate), size / rate, 1.25)


def _gcra(rate: float) -> Kind:
    return Kind(f"GCRA {rate:g}/s", lambda _: limiters.TokenBucket(1, rate), 1 / rate, 1.5)


def _concurrency(limit: int, conditions: Conditions) -> Kind:
    name = f"concurrency {limit}, calls of {conditions.service_s[0]:g}-{conditions.service_s[1]:g} s"
    return Kind(name, lambda _: limiters.Concurrency(limit), 1.0, 1.5, conditions)


KINDS = (
    *(_fixed(n, w) for n, w in ((20, 1.0), (40, 2.0), (20, 10.0), (60, 5.0), (150, 10.0))),
    *(_aligned(n, w) for n, w in ((20, 1.0), (40, 2.0), (20, 10.0), (60, 5.0), (150, 10.0))),
    *(_sliding(n, w) for n, w in ((20, 1.0), (40, 2.0), (20, 10.0), (60, 5.0), (150, 10.0))),
    *(_bucket(n, r) for n, r in ((20, 2.0), (20, 20.0), (100, 10.0))),
    *(_gcra(r) for r in (2.0, 10.0, 20.0)),
    _concurrency(5, SLOW),
    _concurrency(20, SLOW),
    _concurrency(5, Conditions(service_s=(0.2, 0.2))),
    Kind("penalty 20/10s", lambda _: limiters.Penalty(20, 10.0), 10.0, 1.08),
)


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a job."""

    share: float
    """The makespan as a share of the oracle's."""
    first_refused: int
    """The refusals of the first meeting of the limit: those of requests sent before the first one was known."""
    waste: float
    """All refusals per 1,000 requests."""


def job(kind: Kind, hint: HintStyle, count: int, seed: int) -> Found:
    case = Case(
        kind.name,
        0,
        kind.limiter,
        hint,
        lambda world, _: burst(world, count),
        kind.conditions,
        kind.period_s,
        HORIZON_S,
    )
    result, oracle = run(case, this_gate, seed), run_oracle(case, seed)
    oracle_s = oracle.last_response_s + kind.conditions.round_trip_s
    if result.admitted < count:
        return Found(99.0, 0, 1000 * result.refused / count)
    first_s = result.refused_at_s[0] + 1.3 * kind.conditions.round_trip_s if result.refused_at_s else 0.0
    first = sum(at_s <= first_s for at_s in result.refused_at_s)
    return Found(result.last_response_s / oracle_s, first, 1000 * result.refused / count)


def main() -> None:
    import sys
    from statistics import fmean

    seeds = (1, 2, 3)
    tasks = []
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    for kind in KINDS:
        if only not in kind.name:
            continue
        for style, hint in STYLES + BLIND:
            target = kind.target if hint not in (hints.none, hints.garbage) else kind.blind_target
            tasks.append((kind, style, hint, target))
    missed = 0
    rows = []
    for kind, style, hint, target in tasks:
        cells = []
        bad = False
        for count in JOBS:
            found = [job(kind, hint, count, seed) for seed in seeds]
            share, worst = fmean(f.share for f in found), max(f.share for f in found)
            bad |= share > target or max(f.first_refused for f in found) > 64
            cells.append(
                f"{share:5.2f} ({worst:5.2f}) {max(f.first_refused for f in found):3d} {fmean(f.waste for f in found):5.0f}"
            )
        missed += bad
        print(
            f"{kind.name:32} {style:14} {target:.2f} | " + " | ".join(cells) + (" MISSED" if bad else ""),
            flush=True,
        )
    print("missed", missed, "of", len(tasks))


if __name__ == "__main__":
    main()
