"""The metrics for Prometheus. No label has an unbounded set of values: no paths, callers or scopes."""

from bisect import bisect_left
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from nanonets_proxy import __version__
from nanonets_proxy.telemetry.finished_request import FinishedRequest

# A creation time per series would double the scrape. It serves only to detect resets, which rate() detects anyway.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type annotations here

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_OTHER_METHOD: Final = "other"
# Polls take milliseconds, predictions take seconds, the longest requests and waits take 300 s.
_BUCKETS_S: Final = (0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_RATIO_BUCKETS: Final = (0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)
_MIN_FORECAST_S: Final = 1.0  # below this, a few milliseconds would be a large error

Gauges = Callable[[], dict[str, float]]

_GAUGES: Final = {
    "nanonets_proxy_waiting": "Requests that wait for a permit.",
    "nanonets_proxy_in_flight": "Requests in flight to the upstream.",
    "nanonets_proxy_cooldown_seconds": "Longest remaining cooldown of any scope.",
    "nanonets_proxy_closed_scopes": "Scopes closed by a refusal (429).",
    "nanonets_proxy_quota_reserve": "Requests of a rate limit that another client seems to use.",
    "nanonets_proxy_idle_upstream_connections": "Idle connections to the upstream.",
    "nanonets_proxy_body_memory_bytes": "Memory used by copies of request bodies, kept to send them again.",
    "nanonets_proxy_body_spool_bytes": "Disk used by copies of request bodies, kept to send them again.",
    "nanonets_proxy_caller_connections": "Open connections from callers.",
    "nanonets_proxy_ready": "1 while /readyz reports ready.",
}


class Metrics:
    """One environment's registry. Each scrape calls `read_gauges`, which returns a value for each of `_GAUGES`."""

    def __init__(self, read_gauges: Gauges) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_GaugeCollector(read_gauges))
        self.requests = RequestMetrics()
        self.registry.register(self.requests)
        self.throttled = Counter(
            "nanonets_proxy_upstream_throttled",
            "Responses with status 429 from the upstream.",
            registry=self.registry,
        )
        self.retries = Counter(
            "nanonets_proxy_upstream_retries",
            "Requests sent again after a reused connection closed or the upstream failed temporarily.",
            registry=self.registry,
        )
        self.key_echoes = Counter(
            "nanonets_proxy_key_echoes",
            "Responses from the upstream that contained the API key, which the proxy removed. Each is an alarm.",
            registry=self.registry,
        )
        self._forecast_ratio = Histogram(
            "nanonets_proxy_forecast_ratio",
            "Ratio of actual to predicted wait, for requests predicted to wait at least one second.",
            buckets=_RATIO_BUCKETS,
            registry=self.registry,
        )

    def observe_forecast(self, forecast_s: float, wait_s: float) -> None:
        """Counts the ratio of `wait_s` to `forecast_s`, which is nan if there was no forecast."""
        if forecast_s >= _MIN_FORECAST_S:
            self._forecast_ratio.observe(wait_s / forecast_s)


class RequestMetrics(Collector):
    """Counts every request in plain integers, which a scrape turns into the library's metric families.

    The library's own counters would take a lock and several calls for each request.
    """

    def __init__(self) -> None:
        self._by_status = {method: defaultdict[int, int](int) for method in (*_METHODS, _OTHER_METHOD)}
        self._queue = _DurationHistogram()  # without the requests that did not wait
        self._upstream = _DurationHistogram()

    def observe(self, request: FinishedRequest) -> None:
        """Counts a request."""
        queue_s, upstream_s = request.wait_s, request.upstream_s
        try:
            self._by_status[request.method][request.status] += 1
        except KeyError:
            self._by_status[_OTHER_METHOD][request.status] += 1
        if queue_s:
            queue = self._queue
            queue.counts[bisect_left(_BUCKETS_S, queue_s)] += 1
            queue.sum_s += queue_s
        if upstream_s is not None:
            upstream = self._upstream
            upstream.counts[bisect_left(_BUCKETS_S, upstream_s)] += 1
            upstream.sum_s += upstream_s

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "nanonets_proxy_requests",
            "Requests, by method and status class of the response; `gone` if the caller hung up first.",
            labels=["method", "status"],
        )
        by_class: Counts[tuple[str, str]] = Counts()
        for method, counts in self._by_status.items():
            for status, count in counts.items():
                by_class[method, f"{status // 100}xx" if status else "gone"] += count
        for labels, count in by_class.items():
            requests.add_metric(labels, count)
        yield requests
        did_not_wait = by_class.total() - sum(self._queue.counts)
        yield self._queue.family(
            "nanonets_proxy_queue_seconds", "Time that a request waited for permits.", zeros=did_not_wait
        )
        yield self._upstream.family(
            "nanonets_proxy_upstream_seconds", "Time from the permit to the end of the upstream's response."
        )


@dataclass(slots=True)
class _DurationHistogram:
    """A histogram with the buckets `_BUCKETS_S` and one for all longer durations; `sum_s` is in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS_S) + 1))
    sum_s: float = 0.0

    def family(self, name: str, documentation: str, *, zeros: int = 0) -> HistogramMetricFamily:
        """Returns the metric family, with `zeros` further durations of 0 s."""
        bounds = [*map(floatToGoString, _BUCKETS_S), "+Inf"]
        counts = [self.counts[0] + zeros, *self.counts[1:]]
        buckets = list(zip(bounds, accumulate(counts), strict=True))
        return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=self.sum_s)


class _GaugeCollector(Collector):
    def __init__(self, read: Gauges) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        values = self._read()
        for name, documentation in _GAUGES.items():
            yield GaugeMetricFamily(name, documentation, value=values[name])


def combined_registry(environments: Mapping[str, CollectorRegistry]) -> CollectorRegistry:
    """Returns the registry to scrape: metrics of the process and of each environment, labelled by its name.

    A single environment has the empty name and no label.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Info("nanonets_proxy", "The running program.", registry=registry).info({"version": __version__})
    registry.register(_LabelledCollector(environments))
    return registry


class _LabelledCollector(Collector):
    def __init__(self, environments: Mapping[str, CollectorRegistry]) -> None:
        self._environments = environments

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for name, registry in self._environments.items():
            label = {"environment": name} if name else {}
            for family in registry.collect():
                combined = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                combined.samples += [sample._replace(labels=label | sample.labels) for sample in family.samples]
        yield from families.values()
