"""Runs the benchmark: `python -m speed TOOLS`. TOOLS is the directory that setup.sh filled.

TOOLS/last.json has all samples after each round. A complete run replaces results.json and docs/speed.md.
"""

import os
import resource
import signal
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from speed import machine
from speed.cases import CASES
from speed.peers import DIRECT, OURS, PEERS
from speed.processes import LOAD_CORE
from speed.report import page, tables
from speed.results import Results
from speed.run import Plan, run
from speed.upstream import upstreams

MIN_ROUNDS = 5


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _plan(arguments: list[str]) -> Plan:
    parser = ArgumentParser(prog="python -m speed", description=__doc__)
    parser.add_argument("tools", type=Path, help="the directory that setup.sh filled")
    parser.add_argument("--only", type=_names, default=[], help="cases, separated by commas")
    parser.add_argument("--peers", type=_names, default=[], help="peers besides this proxy, separated by commas")
    parser.add_argument("--rounds", type=int, default=MIN_ROUNDS)
    given = parser.parse_args(arguments)
    all_peers = [OURS, DIRECT, *(peer.name for peer in PEERS if peer.name != OURS)]
    for kind, names, known in (
        ("case", given.only, [case.name for case in CASES]),
        ("peer", given.peers, all_peers),
    ):
        for name in set(names) - set(known):
            parser.error(f"unknown {kind} {name!r}; choose from {', '.join(known)}")
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    cases = [case for case in CASES if not given.only or case.name in given.only]
    peers = [name for name in all_peers if not given.peers or name in given.peers or name == OURS]
    return Plan(cases, peers, given.rounds, given.tools.resolve())


def main() -> int:
    plan = _plan(sys.argv[1:])
    versions = machine.versions(plan.peers, plan.tools)
    other_work = machine.OtherWork()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends all started processes
    os.sched_setaffinity(0, {LOAD_CORE})
    max_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
    with tempfile.TemporaryDirectory() as home, upstreams(Path(home)) as found:
        for rounds, samples in enumerate(run(plan, Path(home), found), 1):
            facts = {**machine.facts(), "cores busy with other work": f"{other_work.cores():.1f}"}
            results = Results(facts, versions, rounds, samples)
            results.write(plan.tools / "last.json")  # keeps the samples if a later round fails
    for table in tables.all_tables(results.samples):
        print(f"\n{table}", end="")
    print(f"\nOther processes kept {results.facts['cores busy with other work']} cores busy during the run.")
    if plan.cases == list(CASES) and plan.rounds >= MIN_ROUNDS:
        results.write(page.RESULTS)
        page.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
