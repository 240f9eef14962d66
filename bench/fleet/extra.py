"""Counts the 429s that each event costs beyond those of a steady fleet (`FLEET_ARGS="--events all --rounds 5"`).

Each round runs a steady fleet first and last, and a new fleet for each event between them. All runs have the same
length, in which the event is.
"""

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from fleet.events import EVENTS, Event
from fleet.load import KINDS, jain
from fleet.proxies import Over, fleet, load

if TYPE_CHECKING:
    from support.commands.process import Running

STEADY = "steady"
CALLERS = 24
_COLUMNS = (
    "what happens",
    "replicas",
    "limit",
    "runs",
    "extra 429s, mean",
    "most",
    "429s, mean",
    "most",
    "goodput, least",
    "Jain, callers of living replicas, least",
    "Jain, living replicas",
    "failed calls of living replicas",
    "of ended ones",
    "times alone",
    "load",
)


@dataclass(frozen=True)
class Run:
    """What one run showed after the warm-up."""

    refused: int
    goodput: float
    of_callers: float
    of_replicas: float
    failures: str
    failures_of_ended: str
    alone: int
    load: float


def measure(event: Event | None, replicas: int, kind: str, seconds: float, *, alone: bool = False) -> Run:
    """Runs a fleet for `seconds` after its warm-up, and lets the event happen after a fifth of them."""
    ended: list[Running | None] = []
    arguments, rate = KINDS[kind]
    callers = [max(2, CALLERS // replicas)] * replicas
    over = Over.ONE_SERVER if event is None else event.over
    with fleet(replicas, arguments, alone=alone, over=over) as own:

        def act() -> None:
            if event is not None:
                ended.append(event.act(own))

        results = asyncio.run(load(own, callers, seconds, act, 0.2 * seconds))
        load_now = os.getloadavg()[0]
        time.sleep(0.3)
    living = [number for number, proxy in enumerate(own.proxies) if proxy not in ended]
    names: list[object] = [f"r{n}c{c}" for n in living for c in range(callers[n])]
    return Run(
        results.refused,
        results.admitted / (rate * results.elapsed_s),
        jain(results.by(lambda each: each[1], names)),
        jain(results.by(lambda each: each[0], list(living))),
        results.failures(living),
        results.failures([n for n in range(replicas) if n not in living]),
        sum(e["event"] == "fleet_alone" for proxy in own.proxies for e in proxy.all_events()),
        load_now,
    )


def _cells(runs: list[Run], steady: float) -> list[str]:
    refused = [run.refused for run in runs]
    loads = [run.load for run in runs]
    return [
        str(len(runs)),
        f"{fmean(refused) - steady:.1f}",
        f"{max(refused) - steady:.1f}",
        f"{fmean(refused):.1f}",
        str(max(refused)),
        f"{min(run.goodput for run in runs):.2f}",
        f"{min(run.of_callers for run in runs):.3f}",
        f"{min(run.of_replicas for run in runs):.3f}",
        "; ".join(dict.fromkeys(run.failures for run in runs)),
        "; ".join(dict.fromkeys(run.failures_of_ended for run in runs)),
        f"{fmean(run.alone for run in runs):.1f}",
        f"{min(loads):.0f} to {max(loads):.0f}",
    ]


def main(
    replicas: list[int], kinds: list[str], names: list[str], seconds: float, rounds: int, *, alone: bool
) -> None:
    """Prints a table. `names`: of events, or `all`; with none, only the steady fleet."""
    known = {event.name: event for event in EVENTS}
    events = list(EVENTS) if names == ["all"] else [known[name] for name in names]
    print("| " + " | ".join(_COLUMNS) + " |\n" + "|---" * len(_COLUMNS) + "|", flush=True)
    for count in replicas:
        for kind in kinds:
            runs: dict[str, list[Run]] = {STEADY: [], **{event.name: [] for event in events}}
            turns: list[Event | None] = [None, *events, None] if events else [None]
            for number in range(rounds):
                for event in turns:
                    name = STEADY if event is None else event.name
                    runs[name].append(measure(event, count, kind, seconds, alone=alone))
                    print(f"   round {number + 1}: {name}: {runs[name][-1]}", file=sys.stderr, flush=True)
            steady = fmean(run.refused for run in runs[STEADY])
            for name, each in runs.items():
                print("| " + " | ".join([name, str(count), kind, *_cells(each, steady)]) + " |", flush=True)
