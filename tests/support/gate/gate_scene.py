"""A gate with a long queue, in virtual time."""

import math

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.scopes.static_limits import StaticLimit, StaticLimits
from nanonets_proxy.core.ratelimit.tickets import Outcome, Ticket


class GateScene:
    """A gate with a long queue in scope `account`."""

    def __init__(self, *static_limits: str, max_in_flight: int = 100) -> None:
        policy = GatePolicy(
            max_in_flight=max_in_flight,
            max_waiting=10_000,
            static_limits=StaticLimits(tuple(map(StaticLimit.parse, static_limits))),
        )
        self.gate = Gate(policy, lambda: 0.0)
        self.now = 1000.0
        self.wake_at_s: float | None = None

    def ask(self, count: int) -> None:
        for _ in range(count):
            assert self.gate.enqueue(Ticket("account", math.inf), self.now) is None

    def go(self) -> int:
        """Serves all that is granted now. Returns the number of served requests."""
        served = 0
        while True:
            verdicts = self.gate.poll(self.now)
            self.wake_at_s = verdicts.wake_at_s
            if not verdicts.granted:
                return served
            for permit in verdicts.granted:
                self.gate.settle(permit, Outcome.SERVED, self.now)
                served += 1
