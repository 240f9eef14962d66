"""The table of the requests that are refused alone: what the others get."""

from collections.abc import Sequence
from statistics import fmean

from simulator.cases import REFUSED_ALONE
from simulator.run import run, run_oracle, this_gate


def own_refusal_rows(seeds: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """Returns the table, and the cases whose mean misses the target. The goodput is that of the other requests."""
    rows = [["some requests are refused alone", "target", "goodput / 429s per 1,000", "worst seed"]]
    missed = []
    for case in REFUSED_ALONE:
        goodputs, wastes = [], []
        for seed in seeds:
            result = run(case, this_gate, seed)
            goodputs.append(result.admitted / run_oracle(case, seed).admitted)
            wastes.append(1000 * result.refused / result.admitted)
        goodput = fmean(goodputs)
        rows.append(
            [case.name, f"{case.target:.2f}", f"{goodput:.2f} / {fmean(wastes):.0f}", f"{min(goodputs):.2f}"]
        )
        if goodput < case.target:
            missed.append(case.name)
    return rows, missed
