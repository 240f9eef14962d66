"""Another client that begins to use the same quota, or a limit that is lowered: which of them the gate notices.

The other client takes its share before this proxy (`first`), or at random instants (`steady`). A saturated proxy
sends a fixed window's requests at its start, so that a steady client gets little: then the proxy leaves a tenth of
the limit unused.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from nanonets_proxy.core.ratelimit.gate import Gate
from nanonets_proxy.core.ratelimit.gate_policy import GatePolicy
from nanonets_proxy.core.ratelimit.news import QuotaChanged
from nanonets_proxy.core.ratelimit.quota_watch import QuotaChange
from nanonets_proxy.core.ratelimit.tickets import Verdicts
from simulator import hints, limiters
from simulator.baselines import MAX_IN_FLIGHT
from simulator.cases import QUICK, closed_loop, poisson
from simulator.limiters import Limiter
from simulator.world import World

_WINDOWS_BEFORE, _WINDOWS_AFTER = 60, 20


class WatchedGate(Gate):
    """A gate that keeps the instants at which it noticed a change of a quota."""

    def __init__(self) -> None:
        super().__init__(GatePolicy(max_in_flight=MAX_IN_FLIGHT, max_waiting=100_000), lambda: 0.5)
        self.changes: list[tuple[float, QuotaChanged]] = []

    def poll(self, now: float) -> Verdicts:
        verdicts = super().poll(now)
        self.changes += [(now, news) for news in self.news.take() if isinstance(news, QuotaChanged)]
        return verdicts


class FirstInWindow(limiters.FixedWindow):
    """A window by the clock, of which another client takes a random part at its start, `mean` on average."""

    def __init__(self, count: int, period_s: float, mean: float, from_s: float, seed: int) -> None:
        super().__init__(count, period_s, aligned=True)
        self._mean, self._from_s = mean, from_s
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._window = -1.0

    def _roll(self, now: float) -> None:
        super()._roll(now)
        window = now // self.period_s
        if window > self._window:
            self._window = window
            if window * self.period_s >= self._from_s:
                self.used += min(self.count, self._random.randint(0, round(2 * self._mean)))


class Steady(limiters.Shared):
    """Another client that sends at random instants from `from_s` on."""

    def __init__(self, inner: Limiter, rate: float, from_s: float, seed: int) -> None:
        super().__init__(inner, rate, seed)
        self._next_s += from_s


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit of `count` requests in `period_s`."""

    name: str
    make: Callable[[int, float], Limiter]
    count: int
    period_s: float
    saturated: bool
    first: bool = False
    """Whether the other client is first in each window."""

    @property
    def began_s(self) -> float:
        """When the other client begins, or the limit is lowered."""
        return _WINDOWS_BEFORE * self.period_s

    def stolen(self, share: float, seed: int) -> Limiter:
        if self.first:
            return FirstInWindow(self.count, self.period_s, share * self.count, self.began_s, seed)
        rate = share * self.count / self.period_s
        return Steady(self.make(self.count, self.period_s), rate, self.began_s, seed)

    def lowered(self, share: float, seed: int) -> Limiter:
        at_s = self.began_s + seed * 0.37 % 1 * self.period_s
        after = self.make(int(self.count * (1 - share)), self.period_s)
        return limiters.Changed(self.make(self.count, self.period_s), after, at_s)


def _bucket(count: int, period_s: float) -> Limiter:
    return limiters.TokenBucket(count, count / period_s)


_aligned = partial(limiters.FixedWindow, aligned=True)

QUOTAS = tuple(
    quota
    for count, period_s in ((20, 1.0), (20, 10.0), (60, 60.0), (150, 60.0))
    for quota in (
        Quota("fixed, other client first", _aligned, count, period_s, saturated=True, first=True),
        Quota("fixed, steady", limiters.FixedWindow, count, period_s, saturated=False),
        Quota("sliding, steady", limiters.SlidingLog, count, period_s, saturated=False),
        Quota("bucket, steady", _bucket, count, period_s, saturated=True),
    )
)


def changes(quota: Quota, limiter: Limiter, seed: int) -> list[tuple[float, QuotaChange]]:
    """Returns what the gate noticed, with the number of windows since the change of the quota."""
    gate = WatchedGate()
    until_s = (_WINDOWS_BEFORE + _WINDOWS_AFTER) * quota.period_s
    world = World(gate, limiter, hints.exact, quota.period_s, QUICK, seed)
    if quota.saturated:
        closed_loop(world, 2 * quota.count)
    else:
        poisson(0.9 * quota.count / quota.period_s)(world, until_s)
    world.run(until_s)
    return [((at_s - quota.began_s) / quota.period_s, news.finding.change) for at_s, news in gate.changes]
