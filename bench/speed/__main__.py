"""Runs the benchmark: `python -m speed TOOLS`. TOOLS is the directory that setup.sh filled.

TOOLS/last.json has all samples after each round, also of a run that breaks off. A complete run replaces
results.json and docs/speed.md. The status is 1 if this proxy failed in a measure, and 0 if only others failed.
"""

import contextlib
import os
import resource
import signal
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from speed import machine
from speed.cases import CASES
from speed.peers import DIRECT, OURS, PEERS
from speed.processes import LOAD_CORE
from speed.report import page, tables
from speed.results import Results, Samples
from speed.run import Plan, run
from speed.upstream import upstreams

MIN_ROUNDS: Final = 5
_BROKEN_OFF: Final = 130
"""The shell's exit status of a command that Ctrl-C ended."""
_REQUIRED: Final = (OURS, DIRECT)
"""A failure of these fails the run. Without a proxy, the upstream or the load has failed."""


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
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # ends all started processes, as Ctrl-C does
    os.sched_setaffinity(0, {LOAD_CORE})
    max_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
    with tempfile.TemporaryDirectory() as home, upstreams(Path(home)) as found:

        def results_of(rounds: int, samples: Samples) -> Results:
            facts = {**machine.facts(), "cores busy with other work": f"{other_work.cores():.1f}"}
            return Results(facts, versions, rounds, samples)

        results = finished(run(plan, Path(home), found), results_of, plan.tools / "last.json")
    if results:
        _report(results)
    if not results or results.rounds < plan.rounds:
        print(f"Broken off after {results.rounds if results else 0} of {plan.rounds} rounds.", file=sys.stderr)
        return _BROKEN_OFF
    if plan.cases == list(CASES) and plan.rounds >= MIN_ROUNDS:
        results.write(page.RESULTS)
        page.write()
    if failed := failed_cases(results.samples):
        print(f"FAILED: {' or '.join(_REQUIRED)} failed in {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def finished(
    rounds: Iterable[Samples], results_of: Callable[[int, Samples], Results], file: Path
) -> Results | None:
    """Returns the results of the finished rounds, up to a KeyboardInterrupt, and writes them after each round."""
    results = None
    with contextlib.suppress(KeyboardInterrupt):
        for number, samples in enumerate(rounds, 1):
            results = results_of(number, samples)
            results.write(file)
    return results


def failed_cases(samples: Samples) -> list[str]:
    """Returns the cases in which this proxy failed, or the requests without a proxy."""
    return [case.name for case in CASES if samples.failed(case.name, _REQUIRED)]


def _report(results: Results) -> None:
    for table in tables.all_tables(results.samples):
        print(f"\n{table}", end="")
    print(f"\nOther processes kept {results.facts['cores busy with other work']} cores busy during the run.")


if __name__ == "__main__":
    sys.exit(main())
