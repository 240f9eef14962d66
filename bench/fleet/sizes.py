"""Fleets of up to 500 replicas in virtual time, beside one proxy with the same callers (`--sizes`)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fleet.load import jain
from simulator.limiters import Changed, Concurrency, FixedWindow, Limiter, SlidingLog, TokenBucket
from support.gate.fleet_scene import FleetScene
from support.gate.virtual_loop import run_virtually

_CALLERS = 24
_WARM_S, _COUNTED_S = 16.0, 40.0
_SERVICE_S = 0.25
_CHANGES_AFTER_S = 16.0
_CHANGES_AT_S = 1000.0 + _WARM_S + _CHANGES_AFTER_S
"""Virtual time begins at 1,000 s."""


def _changed(to: int) -> Limiter:
    return Changed(FixedWindow(40, 4.0), FixedWindow(to, 4.0), _CHANGES_AT_S)


def _rate(to: int) -> float:
    return (40 * _CHANGES_AFTER_S + to * (_COUNTED_S - _CHANGES_AFTER_S)) / 4.0 / _COUNTED_S


@dataclass(frozen=True)
class _Case:
    limit: str
    make: Callable[[], Limiter]
    rate: float
    """Requests a second that the limit admits."""
    replicas: tuple[int, ...] = (1, 3, 8, 24)


_CASES = (
    _Case("fixed window, 40 in 4 s", lambda: FixedWindow(40, 4.0), 10.0),
    _Case("sliding window, 40 in 4 s", lambda: SlidingLog(40, 4.0), 10.0),
    _Case("bucket of 40, 10 a second", lambda: TokenBucket(40, 10.0), 10.0),
    _Case("12 in flight", lambda: Concurrency(12), 12 / (_SERVICE_S + 0.02)),
    _Case("fixed window, 40 in 4 s, then 20", lambda: _changed(20), _rate(20)),
    _Case("fixed window, 40 in 4 s, then 80", lambda: _changed(80), _rate(80)),
    _Case("fixed window, 400 in 4 s", lambda: FixedWindow(400, 4.0), 100.0, (1, 100, 500)),
)


@dataclass(frozen=True)
class _Found:
    served: int
    refused: int
    errors: int
    jain: float
    """Of the callers."""


def _run(case: _Case, replicas: int, seed: int) -> _Found:
    async def main() -> _Found:
        scene = FleetScene(replicas, case.make(), seed=seed, service_s=_SERVICE_S)
        await scene.start()
        callers = max(_CALLERS, *case.replicas)
        for number in range(callers):
            scene.callers(number % replicas, 1, f"c{number}-")
        await asyncio.sleep(_WARM_S)
        counts = scene.counts
        served, refused = len(counts.served_at_s), len(counts.refused_at_s)
        counts.served.clear()
        await asyncio.sleep(_COUNTED_S)
        of_callers = counts.served_by(lambda each: each[1])
        shares = [float(of_callers[f"c{number}-0"]) for number in range(callers)]
        found = _Found(
            len(counts.served_at_s) - served, len(counts.refused_at_s) - refused, len(counts.errors), jain(shares)
        )
        await scene.stop()
        return found

    found: _Found = run_virtually(main())
    return found


def main(rounds: int) -> None:
    """Prints the table."""
    print(f"\nsimulated: {_COUNTED_S:.0f} s after a warm-up of {_WARM_S:.0f} s; means of {rounds} runs\n")
    print("| limit | replicas | of what the limit admits | 429s per 1,000 | Jain, callers | errors |")
    print("|---|---|---|---|---|---|")
    for case in _CASES:
        for replicas in case.replicas:
            found = [_run(case, replicas, seed) for seed in range(1, rounds + 1)]
            served = sum(each.served for each in found)
            cells = [
                case.limit,
                "one proxy" if replicas == 1 else str(replicas),
                f"{served / (rounds * _COUNTED_S * case.rate):.3f}",
                f"{1000 * sum(each.refused for each in found) / max(1, served):.0f}",
                f"{min(each.jain for each in found):.3f}",
                str(sum(each.errors for each in found)),
            ]
            print("| " + " | ".join(cells) + " |", flush=True)
