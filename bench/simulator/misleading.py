"""Hints that are always of one length before windows of a minute, such as those that Nanonets documents.

A shorter hint than the rest of the window invites a refusal, and a longer one costs callers time. A job of 100
requests meets the unknown limit, or steady traffic does.
"""

from collections.abc import Sequence
from statistics import fmean

from simulator import limiters
from simulator.cases import burst, poisson
from simulator.hints import always
from simulator.traffic import Limit, Load, excess, on_the_clock

COUNTS = (10, 20, 60)
HINTS_S = (1, 2, 3, 5, 10, 30, 60, 120)
PERIOD_S = 60.0
LASTS_S = 1800.0


def limits(count: int) -> tuple[Limit, ...]:
    """Returns the limits of this many requests a minute."""
    name, rate = f"{count}/60s", count / PERIOD_S
    return (
        Limit(f"fixed {name}", lambda _: limiters.FixedWindow(count, PERIOD_S), PERIOD_S, rate, LASTS_S),
        Limit(f"on the clock {name}", on_the_clock(count, PERIOD_S), PERIOD_S, rate, LASTS_S),
        Limit(f"sliding {name}", lambda _: limiters.SlidingLog(count, PERIOD_S), PERIOD_S, rate, LASTS_S),
    )


def loads(limit: Limit) -> dict[str, Load]:
    """Returns the kinds of traffic."""
    steady = {f"{share:g} of the limit": poisson(share * limit.rate) for share in (0.5, 0.9, 1.2)}
    return {"job of 100": lambda world, _: burst(world, 100), **steady}


def misleading_rows(seeds: Sequence[int]) -> list[list[str]]:
    """Returns the table: the mean wait as a share of the oracle's, each plus a second / 429s per 1,000 requests."""
    rows = [["limit", "traffic", *(f"{hint_s} s" for hint_s in HINTS_S)]]
    for limit in (limit for count in COUNTS for limit in limits(count)):
        for traffic, load in loads(limit).items():
            cells = []
            for hint_s in HINTS_S:
                found = [excess(limit, load, always(hint_s), seed) for seed in seeds]
                share, refused = (fmean(part) for part in zip(*found, strict=True))
                cells.append(f"{share:.2f} / {refused:.0f}")
            rows.append([limit.name, traffic, *cells])
    return rows
