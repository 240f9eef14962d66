"""Runs rounds. In each round and stage, every peer is measured in a new process."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from speed.cases import Case
from speed.load.closed_loop import load
from speed.measures import CONNECTIONS
from speed.peers import DIRECT, PEERS, Running, serving
from speed.processes import last_line
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

    Each round begins with another peer, so that unrelated load does not always affect the same peer. A failed
    measure has a reason instead of figures, which is also printed on standard error.
    """
    samples = Samples()
    for number in range(1, plan.rounds + 1):
        first = (number - 1) % len(plan.peers)
        for stage in STAGES:
            started_at_s = time.monotonic()
            for name in (*plan.peers[first:], *plan.peers[:first]):
                cases = [case for case in plan.cases if case.stage is stage and name in case.of]
                serve = partial(_serving, name, stage, plan, home, upstreams)
                for case, found in measured(cases, serve):
                    if isinstance(found, str):
                        samples.fail(case.name, name, number, found)
                        print(f"FAILED: {name}, {case.title}, round {number}: {found}", file=sys.stderr, flush=True)
                    else:
                        samples.add(case.name, name, found)
            print(
                f"round {number} of {plan.rounds}, {stage.name}: {time.monotonic() - started_at_s:.0f} s",
                flush=True,
            )
        yield deepcopy(samples)


def measured(
    cases: Sequence[Case], serve: Callable[[], AbstractContextManager[Running]]
) -> list[tuple[Case, Mapping[str, float] | str]]:
    """Returns each case with its figures, or with the reason of its failure.

    A new process serves the cases after a failed one. A peer that does not start fails in all of its cases.
    """
    found: list[tuple[Case, Mapping[str, float] | str]] = []
    while left := cases[len(found) :]:
        failed = left
        try:
            with serve() as peer:
                for case in left:
                    failed = [case]
                    found.append((case, _figures(case, peer)))
        except Exception as error:  # noqa: BLE001 - peers fail in many ways, and none of them may end the run
            reason = " ".join(str(error).split()) or type(error).__name__
            found += [(case, reason) for case in failed]
    return found


def _figures(case: Case, peer: Running) -> Mapping[str, float]:
    """Measures a peer. Raises RuntimeError if its process has ended, and the errors of the measure."""
    try:
        return case.measure(peer)
    except Exception as error:
        if peer.process and (status := peer.process.poll()) is not None:
            output = last_line(peer.process.log.read_bytes())
            raise RuntimeError(f"the process ended with the status {status}: {output}") from error
        raise


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
