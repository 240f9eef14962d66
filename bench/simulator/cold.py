"""Cold starts: jobs that meet an unknown limit, or none. The requests of a job arrive at the same instant.

The makespan of a job is the time from its arrival to its last response. It is compared with the oracle's, which
knows the limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from simulator import hints, limiters
from simulator.cases import CASES, Case, burst
from simulator.hints import HintStyle
from simulator.limiters import Limiter
from simulator.run import run, run_oracle, this_gate
from simulator.world import Conditions, World

JOBS = (100, 400, 1000)
PHASES = 20
QUICK = Conditions()
SLOW = Conditions(service_s=(0.5, 1.5))
HORIZON_S = 20_000.0

SLOW_START_S = 0.15
BLIND_TARGET = 1.8

STYLES: tuple[tuple[str, HintStyle], ...] = (
    ("exact", hints.exact),
    ("whole seconds", hints.whole_seconds),
    ("constant", hints.constant),
    ("no hint", hints.none),
    ("garbage", hints.garbage),
)
TRUE_HINTS = (hints.exact, hints.whole_seconds)
"""A constant hint says little more than none, unless the period just began."""

FREE_JOBS = (
    *((count, service_s, 0.04) for count in (100, 250) for service_s in (0.02, 0.2, 3.0, 30.0)),
    *((100, 0.2, round_trip_s) for round_trip_s in (0.005, 0.3)),
    (400, 0.02, 0.04),
)
"""(requests, service time, round trip)"""

ROUND_TRIPS_S = (0.005, 0.04, 0.1, 0.2, 0.3)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of limit. `target` is the largest makespan with true hints, as a share of the oracle's."""

    name: str
    limiter: Callable[[int], Limiter]
    period_s: float
    target: float
    conditions: Conditions = QUICK


def _fixed(count: int, period_s: float) -> Kind:
    return Kind(f"fixed {count}/{period_s:g}s", lambda _: limiters.FixedWindow(count, period_s), period_s, 1.08)


def _aligned(count: int, period_s: float) -> Kind:
    return Kind(
        f"on the clock {count}/{period_s:g}s",
        lambda seed: limiters.FixedWindow(count, period_s, aligned=True, phase_s=period_s * (seed * 0.37 % 1)),
        period_s,
        1.08,
    )


def at_phase(count: int, period_s: float, phase: int) -> Kind:
    """Returns a window on the clock of which `phase` parts of `PHASES` are over when the job arrives."""
    phase_s = period_s * phase / PHASES
    make = partial(limiters.FixedWindow, count, period_s, aligned=True, phase_s=phase_s)
    return Kind(f"on the clock {count}/{period_s:g}s", lambda _: make(), period_s, 1.08)


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
    *(_fixed(n, w) for n, w in ((20, 1.0), (40, 2.0), (25, 2.5), (20, 10.0), (60, 5.0), (150, 10.0), (20, 60.0))),
    *(_aligned(n, w) for n, w in ((20, 1.0), (40, 2.0), (25, 2.5), (20, 10.0), (60, 5.0), (150, 10.0), (20, 60.0))),
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
    """The refusals of requests that were sent before the first refusal was known."""


def job(kind: Kind, hint: HintStyle, count: int, seed: int) -> Found:
    case = Case(
        name=kind.name,
        target=0,
        limiter=kind.limiter,
        hint=hint,
        load=lambda world, _: burst(world, count),
        conditions=kind.conditions,
        period_s=kind.period_s,
        horizon_s=HORIZON_S,
    )
    result, oracle = run(case, this_gate, seed), run_oracle(case, seed)
    assert result.admitted == count, case.name
    round_trip_s = kind.conditions.round_trip_s
    known_s = result.refused_at_s[0] + 1.3 * round_trip_s if result.refused_at_s else 0.0
    first_refused = sum(at_s <= known_s for at_s in result.refused_at_s)
    share = result.last_response_s / (oracle.last_response_s + round_trip_s)
    if not result.refused:  # it meets no limit, and may take 0.15 s longer: that is the slow start
        share = max(1.0, (result.last_response_s - SLOW_START_S) / (oracle.last_response_s + round_trip_s))
    return Found(share, first_refused)


def job_rows(seeds: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Returns the table of jobs, and the cells that miss their targets."""
    rows = [["limit, job of 100 / 400 / 1,000", "target", *(style for style, _ in STYLES), "most refused at first"]]
    missed = []
    for kind in KINDS:
        cells, most_refused = [], 0
        for style, hint in STYLES:
            target = kind.target if hint in TRUE_HINTS else BLIND_TARGET
            shares = []
            for count in JOBS:
                found = [job(kind, hint, count, seed) for seed in seeds]
                shares.append(fmean(each.share for each in found))
                most_refused = max(most_refused, *(each.first_refused for each in found))
            cells.append(" / ".join(f"{share:.2f}" for share in shares))
            if max(shares) > target + 0.005:
                missed.append(f"{kind.name}, {style}")
        rows.append([kind.name, f"{kind.target:.2f}", *cells, str(most_refused)])
    return rows, missed


def phase_rows() -> list[list[str]]:
    """Returns the table of jobs of 100 requests that meet windows on the clock at each of `PHASES` instants."""
    styles = STYLES[:4]
    rows = [[f"job of 100, mean (worst) of {PHASES} phases", *(style for style, _ in styles)]]
    for count, period_s in ((20, 1.0), (40, 2.0), (25, 2.5), (60, 5.0)):
        cells = [at_phase(count, period_s, 0).name]
        for _, hint in styles:
            shares = [job(at_phase(count, period_s, phase), hint, 100, phase + 1).share for phase in range(PHASES)]
            cells.append(f"{fmean(shares):.2f} ({max(shares):.2f})")
        rows.append(cells)
    return rows


def _free_job(world: World, count: int) -> tuple[float, float]:
    """Runs a job in a world without a limit. Returns its makespan and the 99th percentile of the added waits."""
    began_s, before = world.now, len(world.result.waits)
    for _ in range(count):
        world.at(began_s, world.arrive)
    world.run(began_s + HORIZON_S)
    waits_s = sorted(wait_s for _, _, wait_s in world.result.waits[before:])
    return world.result.last_response_s - began_s, waits_s[int(0.99 * count)]


def free_rows(seed: int) -> list[list[str]]:
    """Returns the table of jobs without any limit: the time that they take longer than without a gate."""
    rows = [["no limit", "direct", "cold: longer by", "p99 of the added wait", "warm: longer by"]]
    for count, service_s, round_trip_s in FREE_JOBS:
        conditions = Conditions(round_trip_s, (service_s, service_s))
        world = World(this_gate(), limiters.NoLimit(), hints.exact, 1.0, conditions, seed)
        direct_s = service_s + 1.2 * round_trip_s  # of the slowest request
        cold_s, p99_s = _free_job(world, count)
        world.now += 3.0
        warm_s, _ = _free_job(world, count)
        rows.append(
            [
                f"{count} requests of {service_s:g} s, round trip {1000 * round_trip_s:g} ms",
                f"{direct_s:.2f} s",
                f"{1000 * (cold_s - direct_s):.0f} ms",
                f"{1000 * p99_s:.0f} ms",
                f"{1000 * max(0.0, warm_s - direct_s):.0f} ms",
            ]
        )
    return rows


def round_trip_rows(seed: int) -> list[list[str]]:
    """Returns the table of first meetings by round trip: refusals, and the makespan as a share of the oracle's."""
    rows = [["job before 20 in 10 s, round trip", *(f"{count} requests" for count in JOBS)]]
    for round_trip_s in ROUND_TRIPS_S:
        kind = replace(_fixed(20, 10.0), conditions=Conditions(round_trip_s))
        found = [job(kind, hints.exact, count, seed) for count in JOBS]
        rows.append(
            [f"{1000 * round_trip_s:g} ms", *(f"{each.first_refused} / {each.share:.2f}" for each in found)]
        )
    return rows


def first_seconds_rows(seeds: Sequence[int]) -> tuple[list[list[str]], float]:
    """Returns goodput and refusals of all cases in their first ten periods, at least 30 s, and the mean goodput."""
    rows = [["first ten periods, cold", "goodput", "429s per 1,000"]]
    goodputs = []
    for case in CASES:
        short = replace(case, horizon_s=max(30.0, 10 * case.period_s))
        results = [(run(short, this_gate, seed), run_oracle(short, seed).admitted) for seed in seeds]
        goodputs.append(fmean(result.admitted / oracle for result, oracle in results))
        waste = fmean(1000 * result.refused / max(1, result.admitted) for result, _ in results)
        rows.append([case.name, f"{goodputs[-1]:.2f}", f"{waste:.0f}"])
    return rows, fmean(goodputs)
