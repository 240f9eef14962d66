"""The cases of the table. A case is a limiter with hints, service times and a load."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from simulator import hints, limiters
from simulator.hints import HintStyle
from simulator.limiters import Limiter
from simulator.world import Conditions, World

QUICK = Conditions()
PERIOD_S = 10.0
COUNT = 20
OVERSIZE = "oversize"
MODEL = "model"


@dataclass(frozen=True, slots=True)
class Case:
    """`target` is the least acceptable goodput, as a share of the oracle's."""

    name: str
    target: float
    limiter: Callable[[int], Limiter]
    """Makes the limiter, by seed."""
    hint: HintStyle = hints.exact
    load: Callable[[World, float], None] = field(default=lambda world, _: closed_loop(world))
    conditions: Conditions = QUICK
    period_s: float = PERIOD_S
    horizon_s: float = 1200.0
    own_limits: Mapping[str, Callable[[], Limiter]] = field(default_factory=dict)
    """The limits of some kinds of requests, beside `limiter`. The oracle has no such requests."""


def closed_loop(world: World, callers: int = 60) -> None:
    for _ in range(callers):
        world.at(world.random.uniform(0, 0.5), lambda: world.arrive(repeats=True))


def burst(world: World, count: int) -> None:
    for _ in range(count):
        world.at(0.0, world.arrive)


def poisson(rate: float) -> Callable[[World, float], None]:
    def load(world: World, horizon_s: float) -> None:
        at_s = 0.0
        while (at_s := at_s + world.random.expovariate(rate)) < horizon_s:
            world.at(at_s, world.arrive)

    return load


def two_tenants(world: World, _: float) -> None:
    for lane in ("a", "b"):
        for _ in range(30):
            world.at(world.random.uniform(0, 0.5), partial(world.arrive, lane, repeats=True))


def some_refused(rate: float, kind: str = OVERSIZE) -> Callable[[World, float], None]:
    """Callers as in a closed loop, and `rate` requests a second that are refused alone."""

    def load(world: World, horizon_s: float) -> None:
        closed_loop(world)
        at_s = 0.0
        while (at_s := at_s + world.random.expovariate(rate)) < horizon_s:
            world.at(at_s, partial(world.arrive, kind=kind))

    return load


def one_caller_refused(world: World, _: float) -> None:
    closed_loop(world)
    for _ in range(10):
        world.at(world.random.uniform(0, 0.5), partial(world.arrive, "refused", repeats=True, kind=OVERSIZE))


def fixed(seed: int) -> Limiter:
    return limiters.FixedWindow(COUNT, PERIOD_S)


def aligned(seed: int) -> Limiter:
    return limiters.FixedWindow(COUNT, PERIOD_S, aligned=True, phase_s=PERIOD_S * (seed * 0.37 % 1))


def sliding(seed: int) -> Limiter:
    return limiters.SlidingLog(COUNT, PERIOD_S)


def bucket(seed: int) -> Limiter:
    return limiters.TokenBucket(COUNT, COUNT / PERIOD_S)


def gcra(seed: int) -> Limiter:
    return limiters.TokenBucket(1, COUNT / PERIOD_S)


def penalty(seed: int) -> Limiter:
    return limiters.Penalty(COUNT, PERIOD_S)


def shared(seed: int) -> Limiter:
    return limiters.Shared(limiters.FixedWindow(COUNT, PERIOD_S), 0.25 * COUNT / PERIOD_S, seed)


def raided(seed: int) -> Limiter:
    return limiters.RaidedWindow(COUNT, PERIOD_S, COUNT // 2, seed)


def changed(factor: float) -> Callable[[int], Limiter]:
    """Changes the count at an instant in the middle third of the run."""
    return lambda seed: limiters.Changed(
        limiters.FixedWindow(COUNT, PERIOD_S),
        limiters.FixedWindow(int(COUNT * factor), PERIOD_S),
        400.0 + seed * 123.4 % 400.0,
    )


LONG = Conditions(service_s=(0.5, 15.0))
SLOW = Conditions(service_s=(0.5, 1.5))

CASES = (
    Case("fixed window", 0.97, fixed),
    Case("fixed window, whole seconds", 0.97, fixed, hints.whole_seconds),
    Case("fixed window, constant hint", 0.97, fixed, hints.constant),
    Case("fixed window on the clock", 0.97, aligned),
    Case("fixed window on the clock, date", 0.97, aligned, hints.date),
    Case("fixed window, disagreeing hints", 0.97, fixed, hints.disagreeing),
    Case("fixed window, 5 per window", 0.97, lambda _: limiters.FixedWindow(5, PERIOD_S), hints.whole_seconds),
    Case("fixed window, 2 per window", 0.97, lambda _: limiters.FixedWindow(2, PERIOD_S), hints.whole_seconds),
    Case("fixed window, 150 per window", 0.97, lambda _: limiters.FixedWindow(150, PERIOD_S)),
    Case("fixed window, calls of 0.5-15 s", 0.97, fixed, conditions=LONG),
    Case("fixed window, Poisson at 0.8", 0.97, fixed, load=poisson(0.8 * COUNT / PERIOD_S)),
    Case("fixed window, Poisson at 1.5", 0.97, fixed, load=poisson(1.5 * COUNT / PERIOD_S)),
    Case("fixed window, two tenants", 0.97, fixed, load=two_tenants),
    Case("sliding log", 0.97, sliding),
    Case("sliding log, header", 0.97, sliding, hints.header),
    Case("sliding log, calls of 0.5-15 s", 0.97, sliding, conditions=LONG),
    Case("token bucket", 0.90, bucket),
    Case("token bucket, header", 0.90, bucket, hints.header),
    Case("token bucket, 20 a second", 0.90, lambda _: limiters.TokenBucket(20, 20.0)),
    Case("GCRA, burst 1", 0.80, gcra),
    Case("GCRA, burst 1, header", 0.80, gcra, hints.header),
    Case("GCRA, burst 1, 10 a second", 0.80, lambda _: limiters.TokenBucket(1, 10.0)),
    Case("concurrency 5, calls of 0.5-1.5 s", 0.60, lambda _: limiters.Concurrency(5), conditions=SLOW),
    Case("concurrency 5, no hint", 0.60, lambda _: limiters.Concurrency(5), hints.none, conditions=SLOW),
    Case("penalty", 0.90, penalty),
    Case("limit doubled in mid-run", 0.90, changed(2.0)),
    Case("limit halved in mid-run", 0.90, changed(0.5)),
    Case("quota shared with another client", 0.85, shared),
    Case("quota raided by another client", 0.85, raided),
    Case("fixed window, no hint", 0.85, fixed, hints.none),
    Case("fixed window, garbage", 0.85, fixed, hints.garbage),
    Case("token bucket, no hint", 0.85, bucket, hints.none),
    Case("no limit", 0.90, lambda _: limiters.NoLimit(), conditions=SLOW, horizon_s=300.0),
)

_OVERSIZE = {OVERSIZE: limiters.NeverAdmits}
_MODEL = {MODEL: lambda: limiters.FixedWindow(2, 60.0)}
_RATE = 0.04 * COUNT / PERIOD_S

REFUSED_ALONE = (
    Case("fixed window, 4 % refused", 0.95, fixed, load=some_refused(_RATE), own_limits=_OVERSIZE),
    Case(
        "fixed window, 4 % refused, whole seconds",
        0.95,
        fixed,
        hints.whole_seconds,
        some_refused(_RATE),
        own_limits=_OVERSIZE,
    ),
    Case("fixed window, 4 % refused, no hint", 0.85, fixed, hints.none, some_refused(_RATE), own_limits=_OVERSIZE),
    Case("sliding log, 4 % refused", 0.95, sliding, load=some_refused(_RATE), own_limits=_OVERSIZE),
    Case("token bucket, 4 % refused", 0.90, bucket, load=some_refused(_RATE), own_limits=_OVERSIZE),
    Case(
        "no limit, 4 % refused",
        0.95,
        lambda _: limiters.NoLimit(),
        load=some_refused(2.4),
        own_limits=_OVERSIZE,
        conditions=SLOW,
        horizon_s=300.0,
    ),
    Case("fixed window, a model of 2 a minute", 0.95, fixed, load=some_refused(0.1, MODEL), own_limits=_MODEL),
    Case(
        "no limit, a model of 2 a minute",
        0.95,
        lambda _: limiters.NoLimit(),
        load=some_refused(0.1, MODEL),
        own_limits=_MODEL,
        conditions=SLOW,
        horizon_s=300.0,
    ),
    Case("fixed window, one caller refused", 0.95, fixed, load=one_caller_refused, own_limits=_OVERSIZE),
    Case(
        "no limit, one caller refused",
        0.95,
        lambda _: limiters.NoLimit(),
        load=one_caller_refused,
        own_limits=_OVERSIZE,
        conditions=SLOW,
        horizon_s=300.0,
    ),
)
"""Some requests are refused alone. The targets are for the others."""

HOURS = (
    Case(
        "20 a minute, unknown",
        0.95,
        lambda _: limiters.FixedWindow(20, 60.0),
        hints.whole_seconds,
        period_s=60.0,
        horizon_s=4 * 3600.0,
    ),
    Case(
        "150 a minute, unknown",
        0.95,
        lambda _: limiters.FixedWindow(150, 60.0),
        hints.whole_seconds,
        period_s=60.0,
        horizon_s=4 * 3600.0,
    ),
)
"""The cases for the refusals per hour."""
