"""Prints the tables of docs/gate.md. Ends with 1 if the means miss their targets."""

import sys
from statistics import fmean

from simulator.cases import CASES, HOURS, Case
from simulator.more import measures
from simulator.run import POLICIES, run, run_oracle
from simulator.world import Result

SEEDS = (1, 2, 3, 4)
OURS = "this gate"
LEAST_MEAN, MOST_WASTE = 0.92, 30.0


def _line(cells: list[str], widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _print(rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(_line(rows[0], widths))
    print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows[1:]:
        print(_line(row, widths), flush=True)
    print()


def _compare(case: Case) -> dict[str, tuple[float, float]]:
    """Policy -> share of the oracle's goodput, 429s per 1,000 admitted: means over the seeds."""
    oracle = {seed: run_oracle(case, seed).admitted for seed in SEEDS}
    found = {}
    for name, make in POLICIES.items():
        results = {seed: run(case, make, seed) for seed in (SEEDS if name == OURS else SEEDS[:1])}
        goodput = fmean(result.admitted / oracle[seed] for seed, result in results.items())
        waste = fmean(1000 * result.refused / max(1, result.admitted) for result in results.values())
        assert not any(result.seen_429 for result in results.values()), case.name
        found[name] = (goodput, waste)
    return found


def _after_an_hour(result: Result, case: Case) -> float:
    """429s an hour, the first hour left out."""
    return sum(at_s > 3600 for at_s in result.refused_at_s) / (case.horizon_s / 3600 - 1)


def main() -> int:
    rows = [["case", "target", *POLICIES]]
    all_found = []
    for case in CASES:
        found = _compare(case)
        all_found.append(found)
        rows.append([case.name, f"{case.target:.2f}", *(f"{g:.2f} / {w:.0f}" for g, w in found.values())])
    means = {name: [fmean(found[name][part] for found in all_found) for part in (0, 1)] for name in POLICIES}
    rows.append(["mean", f"{LEAST_MEAN:.2f}", *(f"{g:.3f} / {w:.0f}" for g, w in means.values())])
    print("Goodput as a share of the oracle's / upstream 429s per 1,000 admitted\n")
    _print(rows)
    rows = [["windows of a minute, 4 hours", "goodput", "429s in the first hour", "429s an hour after it"]]
    for case in HOURS:
        result, ideal = run(case, POLICIES[OURS], SEEDS[0]), run_oracle(case, SEEDS[0])
        first = sum(at_s <= 3600 for at_s in result.refused_at_s)
        share = f"{result.admitted / ideal.admitted:.3f}"
        rows.append([case.name, share, str(first), f"{_after_an_hour(result, case):.1f}"])
    _print(rows)
    rows = [["besides", "target", "this gate", ""]]
    rows += [[m.name, m.target, m.value, "" if m.good else "missed"] for m in measures(SEEDS[0])]
    _print(rows)
    goodput, waste = means[OURS]
    missed = [case.name for case, found in zip(CASES, all_found, strict=True) if found[OURS][0] < case.target]
    print("Below target:", ", ".join(missed) or "none")
    return 0 if goodput >= LEAST_MEAN and waste <= MOST_WASTE else 1


if __name__ == "__main__":
    sys.exit(main())
