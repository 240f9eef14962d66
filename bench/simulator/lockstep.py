"""Callers in lockstep, such as jobs that a timer starts: each time, all requests arrive at the same instant.

Bursts whose distance is a multiple of the period show the gate only one length of pauses.
"""

from collections.abc import Sequence
from functools import partial

from simulator import limiters
from simulator.traffic import Limit, Load, excess_rows, on_the_clock
from simulator.world import World

LIMITS = (
    Limit("fixed 20/1s", lambda _: limiters.FixedWindow(20, 1.0), 1.0, 20.0),
    Limit("fixed 20/10s", lambda _: limiters.FixedWindow(20, 10.0), 10.0, 2.0),
    Limit("on the clock 20/60s", on_the_clock(20, 60.0), 60.0, 1 / 3, 900.0),
    Limit("sliding 40/5s", lambda _: limiters.SlidingLog(40, 5.0), 5.0, 8.0),
    Limit("bucket 20, 2/s", lambda _: limiters.TokenBucket(20, 2.0), 10.0, 2.0),
    Limit("GCRA 5/s", lambda _: limiters.TokenBucket(1, 5.0), 1.0, 5.0),
)
SHARES = (0.9, 1.2)  # of the limit
PERIODS = (1, 2)  # from one burst to the next


def _arrive_together(world: World, count: int) -> None:
    for _ in range(count):
        world.arrive()


def _lockstep(every_s: float, count: int) -> Load:
    def load(world: World, lasts_s: float) -> None:
        for number in range(int(lasts_s / every_s)):
            world.at(number * every_s, partial(_arrive_together, world, count))

    return load


def loads(limit: Limit) -> dict[str, Load]:
    """Returns the kinds of traffic: bursts of a share of the limit, one or two periods apart."""
    found = {}
    for share in SHARES:
        for periods in PERIODS:
            every_s = periods * limit.period_s
            count = max(1, round(share * limit.rate * every_s))
            found[f"{count} each {every_s:g} s"] = _lockstep(every_s, count)
    return found


def lockstep_rows(seeds: Sequence[int]) -> list[list[str]]:
    """Returns the table of callers in lockstep (`excess_rows`)."""
    return excess_rows("in lockstep", LIMITS, loads, seeds)[0]
