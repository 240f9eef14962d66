"""The simulator's cases with requests that are refused alone: the others are served."""

import pytest

from simulator.cases import REFUSED_ALONE, Case
from simulator.run import run, run_oracle, this_gate

SEED = 1
SLACK = 0.05
"""The targets are for means over several seeds. A single seed may fall short by this much."""

QUICK = [case for case in REFUSED_ALONE if not case.name.startswith("no limit")]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_requests_refused_for_their_own_sake_hold_up_no_others(case: Case) -> None:
    result = run(case, this_gate, SEED)
    assert set(result.rejections) <= {"refused_alone"}
    assert result.admitted >= (case.target - SLACK) * run_oracle(case, SEED).admitted
