"""What Prometheus sees. Labels are bounded: no path, no caller, no scope is one."""

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

# A creation time for each series doubles the scrape and serves only OpenMetrics' resets, which rate() sees anyway.
disable_created_metrics()  # type: ignore[no-untyped-call]  # published without types

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_OTHER_METHOD: Final = "other"
# Polls take milliseconds, predictions seconds, the longest calls 300 s and waits as long.
_BUCKETS_S: Final = (0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_RATIO_BUCKETS: Final = (0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)
_LEAST_FORECAST_S: Final = 1.0  # below it, a few milliseconds would be a large error

Gauges = Callable[[], dict[str, float]]

_GAUGES: Final = {
    "nanonets_proxy_waiting": "Callers that wait for a permit.",
    "nanonets_proxy_in_flight": "Requests under way to the upstream.",
    "nanonets_proxy_cooldown_seconds": "Rest of the longest cooldown of any scope.",
    "nanonets_proxy_closed_scopes": "Scopes that are closed by a 429.",
    "nanonets_proxy_quota_reserve": "Requests of a quota that go one by one, because a stranger seems to share it.",
    "nanonets_proxy_idle_upstream_connections": "Upstream connections kept for the next request.",
    "nanonets_proxy_body_memory_bytes": "Memory taken by bodies kept for a replay.",
    "nanonets_proxy_body_spool_bytes": "Disk taken by bodies kept for a replay.",
    "nanonets_proxy_caller_connections": "Open connections of callers.",
    "nanonets_proxy_ready": "1 when /readyz says ready.",
}


class Metrics:
    """One environment's registry; `read_gauges` is asked at each scrape for the names in `_GAUGES`."""

    def __init__(self, read_gauges: Gauges) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_GaugeCollector(read_gauges))
        self.requests = RequestMetrics()
        self.registry.register(self.requests)
        self.throttled = Counter(
            "nanonets_proxy_upstream_throttled",
            "Answers with status 429 that the upstream gave.",
            registry=self.registry,
        )
        self.retries = Counter(
            "nanonets_proxy_upstream_retries",
            "Requests sent again: a kept connection had been closed, or the upstream failed in passing.",
            registry=self.registry,
        )
        self.key_echoes = Counter(
            "nanonets_proxy_key_echoes",
            "Answers of the upstream that held the key, which was blanked. Each is an alarm.",
            registry=self.registry,
        )
        self._forecast_ratio = Histogram(
            "nanonets_proxy_forecast_ratio",
            "Real wait over the wait that was forecast, of requests for which a second or more was.",
            buckets=_RATIO_BUCKETS,
            registry=self.registry,
        )

    def observe_forecast(self, forecast_s: float, wait_s: float) -> None:
        """Compares a forecast with what came of it; `forecast_s` is nan where there was none."""
        if forecast_s >= _LEAST_FORECAST_S:
            self._forecast_ratio.observe(wait_s / forecast_s)


class RequestMetrics(Collector):
    """Counts every request. The library's counters take a lock and several calls for each; its families take
    figures that were counted elsewhere, so that only the scrape has to pay for them."""

    def __init__(self) -> None:
        self._by_status = {method: defaultdict[int, int](int) for method in (*_METHODS, _OTHER_METHOD)}
        self._queue = _Durations()  # of those that did wait
        self._upstream = _Durations()

    def observe(self, method: str, status: int, queue_s: float, upstream_s: float | None) -> None:
        """Counts a request; `status` 0 where the caller hung up, `upstream_s` None where none was asked."""
        try:
            self._by_status[method][status] += 1
        except KeyError:
            self._by_status[_OTHER_METHOD][status] += 1
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
            "Requests answered, by the method and the class of the status that the caller saw; "
            "`gone` where the caller hung up first.",
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
            "nanonets_proxy_queue_seconds", "Time that a request waited for its permits.", zeros=did_not_wait
        )
        yield self._upstream.family(
            "nanonets_proxy_upstream_seconds", "Time from a permit to the end of the upstream's answer."
        )


@dataclass(slots=True)
class _Durations:
    """How many fell into which of `_BUCKETS_S`, the last beyond them all; and their sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS_S) + 1))
    sum_s: float = 0.0

    def family(self, name: str, documentation: str, *, zeros: int = 0) -> HistogramMetricFamily:
        """`zeros` durations of nothing come on top of those counted here."""
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


def join(environments: Mapping[str, CollectorRegistry]) -> CollectorRegistry:
    """What is scraped: the process's own metrics, and those of each environment, labelled by its name.

    The only environment has the empty name, which for Prometheus is no label.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Info("nanonets_proxy", "The running program.", registry=registry).info({"version": __version__})
    registry.register(_Joined(environments))
    return registry


class _Joined(Collector):
    def __init__(self, environments: Mapping[str, CollectorRegistry]) -> None:
        self._environments = environments

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for name, registry in self._environments.items():
            label = {"environment": name} if name else {}
            for family in registry.collect():
                joined = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                joined.samples += [sample._replace(labels=label | sample.labels) for sample in family.samples]
        yield from families.values()
