"""The simulator's cases as tests: the gate learns limits that it cannot see."""

import pytest

from nanonets_proxy.core.ratelimit.quota_watch import QuotaChange
from simulator.cases import CASES, Case, burst
from simulator.hints import exact
from simulator.limiters import SlidingLog
from simulator.run import run, run_oracle, this_gate
from simulator.theft import WatchedGate
from simulator.world import Conditions, World

SEED = 7
SLACK = 0.04
"""The targets are for means over several seeds. A single seed may fall short by this much."""

# The other cases take too long for a test.
QUICK = [case for case in CASES if "a second" not in case.name and case.name != "no limit"]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_the_gate_uses_the_quota_and_no_caller_gets_a_429(case: Case) -> None:
    gate = WatchedGate()
    result = run(case, lambda: gate, SEED)
    assert result.rejected == 0
    if "another client" not in case.name:
        found = [news.finding.change for _, news in gate.changes]
        is_lowered = case.name == "limit halved in mid-run"
        assert found == ([QuotaChange.SHORT, QuotaChange.LOWERED] if is_lowered else []), "a false alarm"
    assert result.admitted >= (case.target - SLACK) * run_oracle(case, SEED).admitted
    assert result.refused <= 0.12 * result.admitted


BUSY = Conditions(round_trip_s=0.002, service_s=(0.001, 0.003), message_s=0.0005, stall=(0.01, 0.05))


@pytest.mark.parametrize("seed", range(60, 90))
def test_a_busy_machine_does_not_mislead_the_gate_for_long(seed: int) -> None:
    world = World(this_gate(), SlidingLog(20, 1.0), exact, 1.0, BUSY, seed)
    burst(world, 100)
    result = world.run(100.0)
    assert result.admitted == 100
    assert result.last_response_s < 8.0  # the shortest possible time is 4 s
