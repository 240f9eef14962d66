"""Prints the tables of docs/gate-benchmarks.md. Exits with 1 if the means miss their targets."""

import sys
from statistics import fmean

from simulator.cases import CASES, HOURS, Case
from simulator.cold import first_seconds_rows, free_rows, job_rows, phase_rows, round_trip_rows
from simulator.lockstep import lockstep_rows
from simulator.measures import measures
from simulator.misleading import misleading_rows
from simulator.own_refusals import own_refusal_rows
from simulator.pages import page_rows
from simulator.run import GATES, run, run_oracle
from simulator.traffic import traffic_rows

SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)
THIS_GATE = "this gate"
MIN_MEAN_GOODPUT, MAX_WASTE, MAX_REFUSALS_AN_HOUR = 0.97, 20.0, 10.0


def _table_row(cells: list[str], widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(_table_row(rows[0], widths))
    print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for row in rows[1:]:
        print(_table_row(row, widths), flush=True)
    print()


def _compare(case: Case) -> tuple[dict[str, tuple[float, float]], float]:
    """Returns (goodput, 429s per 1,000 admitted) of each gate, and the worst goodput of this gate.

    Goodput is a share of the oracle's. This gate's figures are means over all seeds; the other gates use one seed.
    """
    oracle = {seed: run_oracle(case, seed).admitted for seed in SEEDS}
    found = {}
    worst = 1.0
    for name, make in GATES.items():
        results = {seed: run(case, make, seed) for seed in (SEEDS if name == THIS_GATE else SEEDS[:1])}
        goodput = fmean(result.admitted / oracle[seed] for seed, result in results.items())
        waste = fmean(1000 * result.refused / max(1, result.admitted) for result in results.values())
        assert not any(result.rejected for result in results.values()), case.name
        found[name] = (goodput, waste)
        if name == THIS_GATE:
            worst = min(result.admitted / oracle[seed] for seed, result in results.items())
    return found, worst


def _hours(case: Case) -> tuple[float, float, float]:
    """Returns means over the seeds: the goodput, the 429s in the first hour, and the 429s per later hour."""
    results = {seed: run(case, GATES[THIS_GATE], seed) for seed in SEEDS}
    share = fmean(result.admitted / run_oracle(case, seed).admitted for seed, result in results.items())
    first = fmean(sum(at_s <= 3600 for at_s in result.refused_at_s) for result in results.values())
    total = fmean(result.refused for result in results.values())
    return share, first, (total - first) / (case.horizon_s / 3600 - 1)


def main() -> int:
    rows = [["case", "target", *GATES, "worst seed"]]
    all_found = []
    missed, missed_by_a_seed = [], []
    for case in CASES:
        found, worst = _compare(case)
        all_found.append(found)
        if found[THIS_GATE][0] < case.target:
            missed.append(case.name)
        elif worst < case.target:
            missed_by_a_seed.append(case.name)
        cells = [f"{goodput:.2f} / {waste:.0f}" for goodput, waste in found.values()]
        rows.append([case.name, f"{case.target:.2f}", *cells, f"{worst:.2f}"])
    means = {name: [fmean(found[name][part] for found in all_found) for part in (0, 1)] for name in GATES}
    rows.append(["mean", f"{MIN_MEAN_GOODPUT:.3f}", *(f"{g:.3f} / {w:.0f}" for g, w in means.values()), ""])
    print("Goodput as a share of the oracle's / upstream 429s per 1,000 admitted\n")
    _print_table(rows)
    rows = [
        ["windows of a minute, 4 hours", "goodput", "429s in the first hour", "per later hour", "mean per hour"]
    ]
    most_an_hour = 0.0
    for case in HOURS:
        share, first, later = _hours(case)
        an_hour = (first + 3 * later) / 4
        most_an_hour = max(most_an_hour, an_hour)
        rows.append([case.name, f"{share:.3f}", f"{first:.1f}", f"{later:.1f}", f"{an_hour:.1f}"])
    _print_table(rows)
    rows = [["other measures", "target", "this gate", ""]]
    rows += [[m.name, m.target, m.value, "" if m.good else "missed"] for m in measures(SEEDS[0])]
    _print_table(rows)
    cold, missed_cold = job_rows(SEEDS[:3])
    print("Cold jobs: makespan as a share of the oracle's\n")
    _print_table(cold)
    _print_table(phase_rows())
    _print_table(free_rows(SEEDS[0]))
    _print_table(round_trip_rows(SEEDS[0]))
    first_seconds, mean = first_seconds_rows(SEEDS[:3])
    _print_table([*first_seconds, ["mean", f"{mean:.3f}", ""]])
    print("Usual traffic: mean wait as a share of the oracle's, each plus a second / 429s per 1,000\n")
    _print_table(traffic_rows(SEEDS[:2]))
    print("Callers in lockstep, measured in the same way\n")
    _print_table(lockstep_rows(SEEDS[:2]))
    print("Hints that are always of one length before windows of a minute, measured in the same way\n")
    _print_table(misleading_rows(SEEDS[:3]))
    own, missed_own = own_refusal_rows(SEEDS[:3])
    _print_table(own)
    pages, _ = page_rows(SEEDS[:4])
    _print_table(pages)
    print("Others' goodput below target:", "; ".join(missed_own) or "none")
    print("Cold jobs over their target:", "; ".join(missed_cold) or "none")
    goodput, waste = means[THIS_GATE]
    print("Below target:", ", ".join(missed) or "none")
    print("Below target with one seed or more:", ", ".join(missed_by_a_seed) or "none")
    return 0 if goodput >= MIN_MEAN_GOODPUT and waste <= MAX_WASTE and most_an_hour <= MAX_REFUSALS_AN_HOUR else 1


if __name__ == "__main__":
    sys.exit(main())
