"""Runs the benchmark: `python -m speed TOOLS`, TOOLS being the directory that setup.sh filled."""

import os
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from speed.cases import CASES
from speed.peers import OURS, PEERS
from speed.processes import LOAD_CORE
from speed.results import Samples
from speed.run import Plan, run
from speed.upstream import upstream


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _plan(arguments: list[str]) -> Plan:
    parser = ArgumentParser(prog="python -m speed", description=__doc__)
    parser.add_argument("tools", type=Path, help="the directory that setup.sh filled")
    parser.add_argument("--only", type=_names, default=[], help="cases, with commas between")
    parser.add_argument("--peers", type=_names, default=[], help="peers, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--window", type=int, default=2, help="seconds of a measurement")
    given = parser.parse_args(arguments)
    for kind, names, known in (
        ("case", given.only, [case.name for case in CASES]),
        ("peer", given.peers, [peer.name for peer in PEERS]),
    ):
        for name in set(names) - set(known):
            parser.error(f"no {kind} is called {name!r}; there are {', '.join(known)}")
    cases = [case for case in CASES if not given.only or case.name in given.only]
    peers = [peer for peer in PEERS if not given.peers or peer.name in given.peers or peer.name == OURS]
    return Plan(cases, peers, given.rounds, given.window, given.tools.resolve())


def _show(plan: Plan, samples: Samples) -> None:
    for case in plan.cases:
        ours = samples.median(case.name, OURS, "cpu_us")
        assert ours
        for peer in plan.peers:
            cpu_us = samples.median(case.name, peer.name, "cpu_us")
            per_s = samples.median(case.name, peer.name, "per_s")
            spread = samples.figures[case.name][peer.name]["cpu_us"]
            assert cpu_us
            print(
                f"{case.title:28} {peer.name:16} {cpu_us:8.1f} us ({min(spread):.1f}-{max(spread):.1f}) "
                f"{per_s:8.0f}/s  ours x {ours / cpu_us:.2f}"
            )


def main() -> int:
    plan = _plan(sys.argv[1:])
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory() as home, upstream(Path(home)) as behind:
        samples = run(plan, Path(home), behind)
    _show(plan, samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
