"""Compares fleets with one proxy that has the same callers, for each kind of limit (`FLEET_ARGS=--limits`).

The sizes take turns, so that the load of the machine is about the same for all of them.
"""

import asyncio
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from statistics import fmean
from typing import Any

from fleet.load import COUNT, KINDS, LATENCY_S, PERIOD_S, Results, change_limit, jain, seen
from fleet.proxies import WARM_S, fleet, load

SECONDS = 40.0
CALLERS = 24
_CHANGES_AFTER_S = 16.0
_TEST_S = 0.5


@dataclass(frozen=True)
class Case:
    """A limit of the sandbox, which may change after a while."""

    name: str
    arguments: tuple[str, ...]
    rate: float
    """Requests a second of an oracle."""
    later: str = ""
    """The limit after the change; empty: it does not change."""
    later_rate: float = 0.0
    warm_s: float = WARM_S

    @property
    def ideal(self) -> float:
        """The requests of an oracle in `SECONDS`."""
        after_s = SECONDS - _CHANGES_AFTER_S if self.later else 0.0
        return self.rate * (SECONDS - after_s) + self.later_rate * after_s


_RATE = COUNT / PERIOD_S
CASES = {
    "window": Case("fixed window, 40 in 4 s", *KINDS["window"]),
    "sliding": Case("sliding window, 40 in 4 s", *KINDS["sliding"]),
    "bucket": Case("bucket of 40, 10 a second", *KINDS["bucket"]),
    "concurrency": Case(f"12 in flight, {LATENCY_S:g} s each", *KINDS["concurrency"], warm_s=16.0),
    "halved": Case("fixed window, 40 in 4 s, then 20", *KINDS["window"], "20/4s", _RATE / 2),
    "doubled": Case("fixed window, 40 in 4 s, then 80", *KINDS["window"], "80/4s", _RATE * 2),
}


@dataclass
class Row:
    """The runs of one case at one number of replicas."""

    runs: list[Results] = field(default_factory=list)
    closures_s: list[float] = field(default_factory=list)
    alone: int = 0
    """How often a replica decided alone after it had joined."""
    learned: list[str] = field(default_factory=list)
    """What each run believed at its end."""
    loads: list[float] = field(default_factory=list)

    def cells(self, ideal: float, callers: Sequence[int]) -> list[str]:
        """Returns the figures of all runs together; Jain's indices are the least ones of a run."""
        admitted, refused = sum(run.admitted for run in self.runs), sum(run.refused for run in self.runs)
        names: list[object] = [f"r{n}c{c}" for n, count in enumerate(callers) for c in range(count)]
        replicas: list[object] = list(range(len(callers)))
        failures = sum(sum(run.failed.values()) for run in self.runs)
        return [
            f"{fmean(run.admitted / (ideal * run.elapsed_s / SECONDS) for run in self.runs):.3f}",
            f"{1000 * refused / max(1, admitted):.0f}",
            f"{refused} of {admitted + refused}",
            ", ".join(str(run.refused_before) for run in self.runs),
            f"{min(jain(run.by(lambda each: each[1], names)) for run in self.runs):.3f}",
            f"{min(jain(run.by(lambda each: each[0], replicas)) for run in self.runs):.3f}"
            if len(set(callers)) == 1 < len(callers)
            else "",
            f"{1000 * max(self.closures_s, default=0.0):.0f} ms",
            str(failures),
            str(self.alone),
            "; ".join(dict.fromkeys(self.learned)),
            f"{min(self.loads):.0f} to {max(self.loads):.0f}",
        ]


def slowest_closure_s(seen: Sequence[tuple[float, int]]) -> float:
    """Returns how long the slowest closure took to reach all replicas, from the instants and statuses of requests.

    That is the time from a 429 to the last request that came at most `_TEST_S` after another refused one, with no
    admitted one between them. A later request is a test by the gate, which doubts a hint in whole seconds.
    """
    longest_s, began_s, last_s = 0.0, 0.0, -math.inf
    for time_s, status in sorted(seen):
        if status != 429:
            last_s = -math.inf
            continue
        if time_s - last_s > _TEST_S:
            began_s = time_s
        last_s = time_s
        longest_s = max(longest_s, last_s - began_s)
    return longest_s


def learned(events: Sequence[Mapping[str, Any]]) -> str:
    """Returns the limit that a log has named last, such as `40 in 4 s`."""
    last = max((e for e in events if e["event"] == "limit_learned"), key=itemgetter("timestamp"), default=None)
    if last is None:
        return "nothing"
    if last["concurrency_to"] is not None:
        return f"{last['concurrency_to']} in flight"
    return f"{last['count_to']} in {last['period_to_s']:g} s"


def _run(case: Case, callers: list[int], row: Row, *, alone: bool) -> None:
    with fleet(len(callers), case.arguments, alone=alone) as own:

        def act() -> None:
            if case.later:
                change_limit(own.upstream, case.later)

        row.runs.append(asyncio.run(load(own, callers, SECONDS, act, _CHANGES_AFTER_S, case.warm_s)))
        row.closures_s.append(slowest_closure_s(seen(own.upstream)))
        events = [event for proxy in own.proxies for event in proxy.all_events()]
    row.alone += sum(event["event"] == "fleet_alone" for event in events)
    row.learned.append(learned(events))
    row.loads.append(os.getloadavg()[0])


def _compare(case: Case, fleets: Sequence[list[int]], rounds: int) -> None:
    """Prints a line for one proxy with all callers of the first fleet, and a line for each fleet."""
    rows = [([sum(fleets[0])], Row()), *((callers, Row()) for callers in fleets)]
    for _ in range(rounds):
        for number, (callers, row) in enumerate(rows):
            _run(case, callers, row, alone=number == 0)
    for number, (callers, row) in enumerate(rows):
        size = "one proxy" if number == 0 else f"{len(callers)} replicas"
        if len(set(callers)) > 1:
            size += " with " + " and ".join(map(str, callers)) + " callers"
        print("| " + " | ".join([case.name, size, *row.cells(case.ideal, callers)]) + " |", flush=True)


def main(replicas: list[int], kinds: list[str], rounds: int) -> None:
    """Prints the table."""
    columns = (
        "limit",
        "replicas",
        "goodput",
        "429s per 1,000",
        "429s",
        "429s in the warm-up",
        "Jain, callers",
        "Jain, replicas",
        "a closure reached all in",
        "failed calls",
        "times alone",
        "learned",
        "load",
    )
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|", flush=True)
    for kind in kinds:
        if kind == "uneven":
            _compare(CASES["window"], [[100, 1]], rounds)
        else:
            _compare(CASES[kind], [[max(1, CALLERS // count)] * count for count in replicas], rounds)
