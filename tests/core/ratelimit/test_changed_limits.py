"""Limits that change while the proxy runs. Windows are on the clock, and the callers always want more."""

from functools import partial

import pytest

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from simulator import hints, limiters
from simulator.world import Conditions, World


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("period_s", [10.0, 30.0])
def test_sixty_a_minute_that_become_sixty_in_a_shorter_period_are_used(period_s: float, seed: int) -> None:
    before = limiters.FixedWindow(60, 60.0, aligned=True, phase_s=13.0 * seed)
    after = limiters.FixedWindow(60, period_s, aligned=True, phase_s=7.0 * seed)
    gate = Gate(GatePolicy(max_in_flight=256, max_waiting=100_000), lambda: 0.5)
    world = World(gate, limiters.Changed(before, after, 1800.0), hints.exact, 60.0, Conditions(), seed)
    for _ in range(61):
        world.at(0.001, partial(world.arrive, repeats=True))
    served = world.run(9000.0).admitted
    assert (world.run(10_800.0).admitted - served) * period_s / 60 / 1800 > 0.95
