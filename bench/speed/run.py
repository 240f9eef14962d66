"""Runs rounds. In each round and stage, every peer is measured in a new process."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speed.cases import Case
from speed.load.closed_loop import load
from speed.measures import CONNECTIONS
from speed.peers import DIRECT, PEERS, Running, serving
from speed.requests import SMALL
from speed.results import Samples
from speed.stages import STAGES, Stage
from speed.upstream import Upstreams

_PEERS: Final = {peer.name: peer for peer in PEERS}


@dataclass(frozen=True, slots=True)
class Plan:
    """The cases, peers and number of rounds of a run. `peers` may include `no proxy`."""

    cases: Sequence[Case]
    peers: Sequence[str]
    rounds: int
    tools: Path


def run(plan: Plan, home: Path, upstreams: Upstreams) -> Iterator[Samples]:
    """Yields all samples after each round.

    Each round begins with another peer, so that unrelated load does not always affect the same peer.
    """
    samples = Samples()
    for number in range(plan.rounds):
        first = number % len(plan.peers)
        for stage in STAGES:
            started_at_s = time.monotonic()
            for name in (*plan.peers[first:], *plan.peers[:first]):
                cases = [case for case in plan.cases if case.stage is stage and name in case.of]
                if cases:
                    with _serving(name, stage, plan, home, upstreams) as peer:
                        for case in cases:
                            samples.add(case.name, name, case.measure(peer))
            print(
                f"round {number + 1} of {plan.rounds}, {stage.name}: {time.monotonic() - started_at_s:.0f} s",
                flush=True,
            )
        yield samples


@contextmanager
def _serving(name: str, stage: Stage, plan: Plan, home: Path, upstreams: Upstreams) -> Iterator[Running]:
    origin = stage.upstream(upstreams)
    if name == DIRECT:
        yield Running(name, origin.url, origin)
        return
    with serving(_PEERS[name], home, plan.tools, origin, stage.environment(home)) as running:
        if stage.warm:
            load(running.url, SMALL, connections=CONNECTIONS, duration_s=1)
        yield running
