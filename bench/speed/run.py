"""Rounds: in each, every peer has its turn, in a process of its own."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from speed.cases import Case
from speed.closed_loop import load
from speed.peers import Peer, Running, serving
from speed.requests import SMALL
from speed.results import Samples
from speed.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and for how long: windows are whole seconds."""

    cases: Sequence[Case]
    peers: Sequence[Peer]
    rounds: int
    window_s: int
    tools: Path


def run(plan: Plan, home: Path, upstream: Upstream) -> Samples:
    """All rounds; a round begins with another peer each time, so that what drifts is nobody's alone."""
    samples = Samples()
    for number in range(plan.rounds):
        first = number % len(plan.peers)
        for peer in (*plan.peers[first:], *plan.peers[:first]):
            for tls in (False, True):
                cases = [case for case in plan.cases if case.tls == tls]
                if cases:
                    with _warm(peer, plan, home, upstream, tls=tls) as running:
                        for case in cases:
                            samples.add(case.name, peer.name, case.measure(running, plan.window_s))
    return samples


@contextlib.contextmanager
def _warm(peer: Peer, plan: Plan, home: Path, upstream: Upstream, *, tls: bool) -> Iterator[Running]:
    with serving(peer, home, plan.tools, upstream, tls=tls) as running:
        load(running.origin, SMALL, connections=32, duration_s=1)
        yield running
