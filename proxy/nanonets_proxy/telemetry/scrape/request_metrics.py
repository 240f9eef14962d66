"""Counts every finished request: by caller, method, route and status, by error, and by duration.

The counts are plain integers, which a scrape turns into the library's metric families. The library's own counters
would take a lock and several calls for each request.

Callers choose their names and methods, so both are bounded: `MOST_CALLERS` names, and `most_series` series in all.
Further requests are counted with the caller `other`, and at last with every label `other`. So sums stay right.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from nanonets_proxy.core.api.routes import OTHER_ROUTE
from nanonets_proxy.core.ratelimit.tickets import Reason
from nanonets_proxy.core.status.request_counts import Totals
from nanonets_proxy.core.usage.rollups import known_method
from nanonets_proxy.telemetry.finished_request import FinishedRequest, Observer
from nanonets_proxy.telemetry.scrape.later_samples import LaterSamples

MOST_CALLERS: Final = 50
OTHER: Final = "other"
_REASONS: Final = frozenset(reason.value for reason in Reason)
_ERROR_HUNDREDS: Final = 4
_SHARE_OF_OTHERS: Final = 0.2
"""The share of the series that only the caller `other` may take, so that its routes and methods show."""
# Polls take milliseconds, predictions take seconds, uploads and waits take minutes.
BUCKETS_S: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 120.0, 300.0, 900.0, 3600.0),
)
_BOUNDS: Final = (*map(floatToGoString, BUCKETS_S), "+Inf")

QUEUE, UPSTREAM, TOTAL = (
    "nanonets_proxy_queue_seconds",
    "nanonets_proxy_upstream_seconds",
    "nanonets_proxy_request_seconds",
)

CountDurations = Callable[[float, float | None, float], None]
"""Counts the durations of one request: in the queue (0: it did not wait), upstream, and in total."""

_Labels = tuple[str, str, str, int]
"""Caller, method, route, and the hundreds of the status."""


class RequestMetrics(Collector):
    """Counts the requests of one environment. Those by caller, method, route, status have `most_series` series."""

    def __init__(self, most_series: int) -> None:
        self._most_series = most_series
        self._most_named_series = int(most_series * (1 - _SHARE_OF_OTHERS))
        self._counts: dict[_Labels, int] = {(OTHER, OTHER, OTHER_ROUTE, hundreds): 0 for hundreds in range(10)}
        self._callers: set[str] = set()
        self._errors: dict[tuple[str, str], int] = {}
        self._queue = _DurationHistogram()  # without the requests that did not wait
        self._upstream = _DurationHistogram()
        self._total = _DurationHistogram()
        self.count_durations: CountDurations | None = None
        """Also called for each request. None: nothing else counts durations."""
        self.on_unusual: Observer | None = None
        """Called with each request that was sent again, or got no whole response below 400."""

    def observe(self, request: FinishedRequest) -> None:
        """Counts a request."""
        hundreds = request.status // 100
        labels = (request.caller, request.method, request.route, hundreds)
        try:
            self._counts[labels] += 1
        except KeyError:
            self._counts[self._bounded(*labels)] += 1
        if queue_s := request.wait_s:
            queue = self._queue
            queue.counts[bisect_left(BUCKETS_S, queue_s)] += 1
            queue.sum_s += queue_s
        total, total_s = self._total, request.total_s
        bucket = bisect_left(BUCKETS_S, total_s)
        total.counts[bucket] += 1
        total.sum_s += total_s
        if (upstream_s := request.upstream_s) is not None:
            upstream = self._upstream
            # Most requests spend nearly all their time upstream, so one search is enough for them.
            if upstream_s > total_s or (bucket and upstream_s <= BUCKETS_S[bucket - 1]):
                bucket = bisect_left(BUCKETS_S, upstream_s)
            upstream.counts[bucket] += 1
            upstream.sum_s += upstream_s
        if self.count_durations is not None:
            self.count_durations(queue_s, upstream_s, total_s)
        if request.code or request.retried_after or not 0 < hundreds < _ERROR_HUNDREDS:
            self._count_unusual(request)

    def totals(self) -> Totals:
        """Returns the numbers of all requests so far."""
        upstream = self._upstream
        return sum(self._total.counts), self._queue.sum_s, upstream.sum_s, sum(upstream.counts)

    def _bounded(self, caller: str, method: str, route: str, hundreds: int) -> _Labels:
        """Returns the labels to count with. Adds a series for them if there is room."""
        counts = self._counts
        if caller not in self._callers:
            if len(self._callers) < MOST_CALLERS and len(counts) < self._most_named_series:
                self._callers.add(caller)
            else:
                caller = OTHER
        method, hundreds = known_method(method), min(hundreds, 9)
        exact = (caller, method, route, hundreds)
        if exact in counts:
            return exact
        if len(counts) < self._most_named_series:
            counts[exact] = 0
            return exact
        of_others = (OTHER, method, route, hundreds)
        if of_others in counts:
            return of_others
        if len(counts) < self._most_series:
            counts[of_others] = 0
            return of_others
        return OTHER, OTHER, OTHER_ROUTE, hundreds

    def _count_unusual(self, request: FinishedRequest) -> None:
        if request.code:
            reason = (request.details or {}).get("reason", "")
            error = request.code, reason if reason in _REASONS else ""
            self._errors[error] = self._errors.get(error, 0) + 1
        if self.on_unusual is not None:
            self.on_unusual(request)

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "nanonets_proxy_requests",
            "Requests, by caller, method, route and status class; `gone`: the caller hung up before the response.",
            labels=["caller", "method", "route", "status"],
        )
        counts = [item for item in self._counts.items() if item[1]]
        total = sum(count for _, count in counts)
        requests.samples = LaterSamples(counts, _requests_sample)  # type: ignore[assignment]  # it is only read
        yield requests
        errors = CounterMetricFamily(
            "nanonets_proxy_errors",
            "Requests that ended with an error of the proxy, or whose caller hung up, by the error's code.",
            labels=["code", "reason"],
        )
        for labels_of_error, count in self._errors.items():
            errors.add_metric(labels_of_error, count)
        yield errors
        yield self._queue.family(
            QUEUE,
            "Time that a request waited for permits.",
            zeros=total - sum(self._queue.counts),
        )
        yield self._upstream.family(UPSTREAM, "Time from the permit to the end of the upstream's response.")
        yield self._total.family(TOTAL, "Time from a request's head to the end of its response.")


def _requests_sample(item: tuple[_Labels, int]) -> Sample:
    (caller, method, route, hundreds), count = item
    status = f"{hundreds}xx" if hundreds else "gone"
    labels = {"caller": caller, "method": method, "route": route, "status": status}
    return Sample("nanonets_proxy_requests_total", labels, count)


@dataclass(slots=True)
class _DurationHistogram:
    """A histogram with the buckets `BUCKETS_S` and one for all longer durations; `sum_s` is in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def family(self, name: str, documentation: str, *, zeros: int = 0) -> HistogramMetricFamily:
        """Returns the metric family, with `zeros` further durations of 0 s."""
        counts = [self.counts[0] + zeros, *self.counts[1:]]
        buckets = list(zip(_BOUNDS, accumulate(counts), strict=True))
        return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=self.sum_s)
