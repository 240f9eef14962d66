"""A world whose limit is in pages: requests have 1 to 8 pages, which the gate knows or not."""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from nanonets_proxy.core.ratelimit.tickets import Ticket
from simulator import hints
from simulator.hints import HintStyle
from simulator.limiters import Limiter
from simulator.run import this_gate
from simulator.world import SCOPE, Conditions, SimulatedRequest, World

MAX_PAGES = 8
_ROUNDING_S = 1e-9


class PageLimiter(Limiter):
    """At most `count` pages in a sliding period, or in a window that begins with a request.

    `pages` are those of the request that it judges next.
    """

    def __init__(self, count: int, period_s: float, *, sliding: bool) -> None:
        self.count, self.period_s, self._sliding = count, period_s, sliding
        self.pages = 1
        self.admitted_pages = 0
        self._log: deque[tuple[float, int]] = deque()  # instant, pages

    def wait_s(self, now: float) -> float:
        while self._log and self._log[0][0] + self.period_s <= now:
            if self._sliding:
                self._log.popleft()
            else:
                self._log.clear()
        excess = sum(pages for _, pages in self._log) + self.pages - self.count
        if excess <= 0:
            return 0.0
        for at_s, pages in self._log:
            excess -= pages
            if excess <= 0 or not self._sliding:
                return at_s + self.period_s - now
        return math.inf

    def admit(self, now: float) -> None:
        self._log.append((now, self.pages))
        self.admitted_pages += self.pages


class PageWorld(World):
    """Callers send requests one after the other. If `stated`, each ticket costs its pages."""

    def __init__(self, limiter: PageLimiter, hint: HintStyle, seed: int, *, stated: bool) -> None:
        super().__init__(this_gate(), limiter, hint, limiter.period_s, Conditions(), seed)
        self._stated = stated
        self._page_limiter = limiter
        self._pages: dict[Ticket, int] = {}
        self._page_random = random.Random(seed)  # noqa: S311 - a simulation

    def arrive(
        self, lane: str = "a", *, repeats: bool = False, deadline_s: float = math.inf, kind: str = ""
    ) -> None:
        pages = self._page_random.randint(1, MAX_PAGES)
        ticket = Ticket(SCOPE, deadline_s, lane=lane, cost=pages if self._stated else 1, kind=kind)
        self._pages[ticket] = pages
        request = self._requests[ticket] = SimulatedRequest(ticket, self.now, repeats, None)
        self._enqueue(request)

    def _reach_upstream(self, ticket: Ticket) -> None:
        self._page_limiter.pages = self._pages[ticket]
        super()._reach_upstream(ticket)


@dataclass(frozen=True, slots=True)
class PageResult:
    """What a run admitted: all pages, and those that the oracle admits in the same time."""

    pages: int
    oracle_pages: int
    refused: int
    admitted: int

    @property
    def goodput(self) -> float:
        return self.pages / self.oracle_pages


def run_pages(
    make_limiter: Callable[[], PageLimiter],
    hint: HintStyle,
    seed: int,
    *,
    stated: bool,
    horizon_s: float = 1200.0,
) -> PageResult:
    """Returns what 60 callers get from a limit in pages."""
    limiter = make_limiter()
    world = PageWorld(limiter, hint, seed, stated=stated)
    for _ in range(60):
        world.at(world.random.uniform(0, 0.5), lambda: world.arrive(repeats=True))
    result = world.run(horizon_s)
    return PageResult(
        limiter.admitted_pages, oracle_pages(make_limiter(), seed, horizon_s), result.refused, result.admitted
    )


def oracle_pages(limiter: PageLimiter, seed: int, horizon_s: float) -> int:
    """Returns how many pages go in order of arrival if limit and pages are known and requests always wait."""
    pages = random.Random(seed)  # noqa: S311 - a simulation
    now = 0.0
    while now <= horizon_s:
        limiter.pages = pages.randint(1, MAX_PAGES)
        while (wait_s := limiter.wait_s(now)) > 0:
            now += wait_s + _ROUNDING_S
        if now <= horizon_s:
            limiter.admit(now)
    return limiter.admitted_pages


LIMITS = ((20, 10.0), (60, 10.0), (200, 10.0), (100, 60.0))
"""(pages, seconds)"""
STATED_TARGET, UNKNOWN_TARGET = 0.95, 0.85
_HINTS = {"exact": hints.exact, "whole seconds": hints.whole_seconds, "no hint": hints.none}


def page_rows(seeds: Sequence[int]) -> tuple[list[list[str]], dict[str, float]]:
    """Returns the table of limits in pages, and the mean goodput of its columns."""
    columns = {
        f"{'stated' if stated else 'unknown'}, {name}": (stated, hint)
        for stated in (True, False)
        for name, hint in _HINTS.items()
    }
    rows = [["limit in pages", *columns]]
    goodputs: dict[str, list[float]] = {column: [] for column in columns}
    for count, period_s in LIMITS:
        for sliding in (False, True):
            cells = [f"{'sliding' if sliding else 'fixed'}, {count} pages in {period_s:.0f} s"]
            make = partial(PageLimiter, count, period_s, sliding=sliding)
            for column, (stated, hint) in columns.items():
                results = [run_pages(make, hint, seed, stated=stated) for seed in seeds]
                mean = fmean(result.goodput for result in results)
                waste = fmean(1000 * result.refused / result.admitted for result in results)
                worst = min(result.goodput for result in results)
                goodputs[column].append(mean)
                cells.append(f"{mean:.2f} ({worst:.2f}) / {waste:.0f}")
            rows.append(cells)
    means = {column: fmean(values) for column, values in goodputs.items()}
    rows.append(["mean", *(f"{mean:.3f}" for mean in means.values())])
    return rows, means
