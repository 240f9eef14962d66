"""Runs a case with this gate, another gate, or the oracle."""

from collections.abc import Callable

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from simulator.baselines import MAX_IN_FLIGHT, Aimd, Cubic, Oracle, ReleaseAll, SingleProbe
from simulator.cases import Case
from simulator.world import GateLike, Result, World


def this_gate() -> Gate:
    return Gate(GatePolicy(max_in_flight=MAX_IN_FLIGHT, max_waiting=100_000), lambda: 0.5)


GATES: dict[str, Callable[[], GateLike]] = {
    "release all": ReleaseAll,
    "single probe": SingleProbe,
    "AIMD": Aimd,
    "CUBIC": Cubic,
    "this gate": this_gate,
}


def run(case: Case, make: Callable[[], GateLike], seed: int) -> Result:
    world = World(
        make(),
        case.limiter(seed),
        case.hint,
        case.period_s,
        case.conditions,
        seed,
        own_limits={kind: make_limiter() for kind, make_limiter in case.own_limits.items()},
    )
    case.load(world, case.horizon_s)
    return world.run(case.horizon_s)


def run_oracle(case: Case, seed: int) -> Result:
    limiter = case.limiter(seed)
    world = World(Oracle(limiter), limiter, case.hint, case.period_s, case.conditions, seed, instant=True)
    case.load(world, case.horizon_s)
    return world.run(case.horizon_s)
