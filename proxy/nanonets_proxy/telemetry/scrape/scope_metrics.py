"""The metrics of scopes: their queues, closures and learned limits.

Callers choose model ids, and so names of scopes. So only `account` and at most `most_scopes` other names become
labels: those that waited, were closed or had a known limit first. The other scopes have the label `other`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nanonets_proxy.core.ratelimit.scope_status import ScopeStatus
from nanonets_proxy.core.ratelimit.scopes.scope_table import ACCOUNT

OTHER: Final = "other"
_MOST_READ: Final = 500
_FAMILIES: Final = {
    "nanonets_proxy_scope_waiting": "Requests that wait for a permit, by scope.",
    "nanonets_proxy_scope_in_flight": "Requests in flight to the upstream, by scope.",
    "nanonets_proxy_scope_cooldown_seconds": "How long a scope stays closed; of `other`, the longest.",
    "nanonets_proxy_scope_limit": "The learned limit of a scope: requests or pages in each period.",
    "nanonets_proxy_scope_limit_period_seconds": "The period of the learned limit.",
    "nanonets_proxy_scope_concurrency_limit": "The learned limit of requests in flight.",
}
SERIES_PER_SCOPE: Final = len(_FAMILIES)

ReadScopes = Callable[[int], Sequence[ScopeStatus]]
"""Takes the largest number of scopes to return, and returns them, the busiest first."""


class ScopeMetrics(Collector):
    """Reads the scopes of one environment at each scrape. A scope without a sample has nothing to show."""

    def __init__(self, read: ReadScopes, most_scopes: int) -> None:
        self._read = read
        self._most_scopes = most_scopes
        self._names = {ACCOUNT}

    def collect(self) -> Iterator[Metric]:
        waiting, in_flight, cooldown, limit, period, concurrency = families = [
            GaugeMetricFamily(name, documentation, labels=["scope"]) for name, documentation in _FAMILIES.items()
        ]
        others = []
        for scope in self._read(_MOST_READ):
            if not self._has_label(scope):
                others.append(scope)
                continue
            # A target may contain bytes that are no UTF-8.
            label = [scope.name.encode("utf-8", "backslashreplace").decode()]
            waiting.add_metric(label, scope.waiting)
            in_flight.add_metric(label, scope.in_flight)
            cooldown.add_metric(label, scope.opens_in_s)
            if scope.count is not None and scope.period_s is not None:
                limit.add_metric(label, scope.count)
                period.add_metric(label, scope.period_s)
            if scope.concurrency_limit is not None:
                concurrency.add_metric(label, scope.concurrency_limit)
        if others:
            waiting.add_metric([OTHER], sum(scope.waiting for scope in others))
            in_flight.add_metric([OTHER], sum(scope.in_flight for scope in others))
            cooldown.add_metric([OTHER], max(scope.opens_in_s for scope in others))
        yield from families

    def _has_label(self, scope: ScopeStatus) -> bool:
        names = self._names
        if scope.name in names:
            return True
        is_remarkable = scope.waiting > 0 or scope.opens_in_s > 0 or scope.count is not None
        if is_remarkable and len(names) <= self._most_scopes:
            names.add(scope.name)
            return True
        return False
