"""How soon a dead replica's share of the limit is in use again (`FLEET_ARGS=--takeover`).

Callers always want more than the limit. A replica gets a SIGKILL, and the callers of the others go on. The figure
is the time from the SIGKILL to the first second in which the upstream admits `_FULL` of what it admitted before. No
request of the dead replica comes any more, so all of them are of the living ones.
"""

import asyncio
import bisect
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fleet.events import Choose, follower, leader
from fleet.load import LATENCY_S, seen
from fleet.proxies import fleet, load, signal_to

_FULL = 0.95
_BEFORE_S, _AFTER_S = 5.0, 8.0
_CALLERS = 48
"""Enough for the limit, also without those of a dead replica of three."""
_WARM_S = 16.0
_LIMITS = {
    "bucket of 20, 20 a second": (("--limit", "20/1s", "--limit-kind", "bucket"), 20.0),
    f"12 in flight, {LATENCY_S:g} s each": (
        ("--limit", "12/1s", "--limit-kind", "concurrency", "--latency", str(LATENCY_S)),
        12 / LATENCY_S,
    ),
}
_DEATHS: dict[str, Choose] = {"leader": leader, "follower": follower}


def full_again_s(admitted_at_s: Sequence[float], killed_at_s: float, full: float) -> float:
    """Returns when the first second with at least `full` admitted requests began, in seconds after the kill.

    `admitted_at_s` is sorted. Returns inf if there was no such second.
    """
    for began_s in (killed_at_s, *(at_s for at_s in admitted_at_s if at_s > killed_at_s)):
        count = bisect.bisect_left(admitted_at_s, began_s + 1) - bisect.bisect_left(admitted_at_s, began_s)
        if count >= full:
            return began_s - killed_at_s
    return math.inf


@dataclass(frozen=True)
class _Run:
    full_again_s: float
    before: float
    """Requests a second that the upstream admitted before the SIGKILL."""
    after: float
    """The same in the 2 s after it."""
    refused: int
    failures: str
    load: float


def _measure(limit: tuple[str, ...], rate: float, replicas: int, choose: Choose) -> _Run:
    dead: list[int] = []
    killed_at_s: list[float] = []
    with fleet(replicas, limit) as own:

        def act() -> None:
            proxy = choose(own)
            killed_at_s.append(time.time())
            signal_to(proxy, signal.SIGKILL)
            dead.append(own.proxies.index(proxy))

        callers = [max(2, _CALLERS // replicas)] * replicas
        seconds = _BEFORE_S + _AFTER_S
        results = asyncio.run(load(own, callers, seconds, act, _BEFORE_S, _WARM_S))
        requests = seen(own.upstream)
    admitted = [time_s for time_s, status in requests if status == 200]
    (at_s,) = killed_at_s
    before = sum(at_s - _BEFORE_S <= each < at_s for each in admitted) / _BEFORE_S
    return _Run(
        full_again_s(admitted, at_s, _FULL * min(rate, before)),
        before,
        sum(at_s <= each < at_s + 2 for each in admitted) / 2,
        sum(status == 429 and at_s <= time_s for time_s, status in requests),
        results.failures([n for n in range(replicas) if n not in dead]),
        os.getloadavg()[0],
    )


def main(replicas: list[int], rounds: int) -> None:
    """Prints the table."""
    columns = (
        "limit",
        "replicas",
        "SIGKILL of",
        "runs",
        "full again after, mean",
        "most",
        "admitted a second before",
        "in the 2 s after",
        f"429s in {_AFTER_S:.0f} s, most",
        "failed calls of living replicas",
        "load",
    )
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for name, (limit, rate) in _LIMITS.items():
        for count in replicas:
            for death, choose in _DEATHS.items():
                runs = []
                for _ in range(rounds):
                    runs.append(_measure(limit, rate, count, choose))
                    print(f"   {runs[-1]}", file=sys.stderr, flush=True)
                cells = [
                    name,
                    str(count),
                    f"the {death}",
                    str(rounds),
                    f"{fmean(run.full_again_s for run in runs):.2f} s",
                    f"{max(run.full_again_s for run in runs):.2f} s",
                    f"{fmean(run.before for run in runs):.1f}",
                    f"{fmean(run.after for run in runs):.1f}",
                    str(max(run.refused for run in runs)),
                    "; ".join(dict.fromkeys(run.failures for run in runs)),
                    f"{max(run.load for run in runs):.0f}",
                ]
                print("| " + " | ".join(cells) + " |", flush=True)
