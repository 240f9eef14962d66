"""The simulator's cases as tests: the gate learns limits that it cannot see."""

import pytest

from simulator.cases import CASES, Case
from simulator.run import run, run_oracle, this_gate

SEED = 7
SLACK = 0.04
"""The targets are for means over several seeds. A single seed may fall short by this much."""

# The other cases take too long for a test.
QUICK = [case for case in CASES if "a second" not in case.name and case.name != "no limit"]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_the_gate_uses_the_quota_and_no_caller_gets_a_429(case: Case) -> None:
    result = run(case, this_gate, SEED)
    assert result.rejected == 0
    assert result.admitted >= (case.target - SLACK) * run_oracle(case, SEED).admitted
    assert result.refused <= 0.12 * result.admitted
