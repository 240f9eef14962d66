"""The metrics for Prometheus. docs/reference/metrics.md lists them; `make metrics-page` writes it.

A process has at most `MAX_SERIES` series, whatever callers send, with up to six environments. Each further
environment adds up to 300 more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from nanonets_proxy import __version__
from nanonets_proxy.telemetry.scrape.later_samples import LaterSamples
from nanonets_proxy.telemetry.scrape.request_metrics import RequestMetrics
from nanonets_proxy.telemetry.scrape.scope_metrics import SERIES_PER_SCOPE, ReadScopes, ScopeMetrics

# A creation time per series would double the scrape. It serves only to detect resets, which rate() detects anyway.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type annotations here

MAX_SERIES: Final = 2000
_SERIES_OF_PROCESS: Final = 60
_SERIES_OF_ENVIRONMENT: Final = 260
"""The series whose number callers cannot change: histograms, and labels such as error codes."""
_LEAST_SERIES: Final = 40
_SHARE_OF_SCOPES: Final = 0.25
_RATIO_BUCKETS: Final = (0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)
_MIN_FORECAST_S: Final = 1.0  # below this, a few milliseconds would be a large error

Gauges = Callable[[], Mapping[str, float]]

_GAUGES: Final = {
    "nanonets_proxy_waiting": "Requests that wait for a permit.",
    "nanonets_proxy_in_flight": "Requests in flight to the upstream.",
    "nanonets_proxy_cooldown_seconds": "Longest remaining cooldown of any scope.",
    "nanonets_proxy_closed_scopes": "Scopes closed by a refusal (429).",
    "nanonets_proxy_quota_reserve": "Requests of a rate limit that another client seems to use.",
    "nanonets_proxy_fleet_replicas": "Replicas that share the rate limits, itself included; 0: no `coordination`.",
    "nanonets_proxy_fleet_coordinated": "Whether one gate decides for all replicas: 1 or 0.",
    "nanonets_proxy_idle_upstream_connections": "Idle connections to the upstream.",
    "nanonets_proxy_body_memory_bytes": "Memory used by copies of request bodies, kept to send them again.",
    "nanonets_proxy_body_spool_bytes": "Disk used by copies of request bodies, kept to send them again.",
    "nanonets_proxy_caller_connections": "Open connections from callers.",
    "nanonets_proxy_ready": "1 while /readyz reports ready.",
}
_COUNTERS: Final = {
    "nanonets_proxy_upstream_connections_opened": "Connections opened to the upstream, TLS handshakes included.",
}


class Metrics:
    """One environment's registry. Each scrape calls `read_gauges` and `read_scopes`.

    `read_gauges` returns a value for each of `_GAUGES` and `_COUNTERS`. The series of the process are shared among
    its `environments`.
    """

    def __init__(self, read_gauges: Gauges, read_scopes: ReadScopes, environments: int) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_GaugeCollector(read_gauges))
        share = (MAX_SERIES - _SERIES_OF_PROCESS) // environments - _SERIES_OF_ENVIRONMENT
        series_of_scopes = int(max(_LEAST_SERIES, share) * _SHARE_OF_SCOPES)
        self.requests = RequestMetrics(max(_LEAST_SERIES, share) - series_of_scopes)
        self.registry.register(self.requests)
        # `account` and `other` have their series beside those of other scopes.
        self.registry.register(ScopeMetrics(read_scopes, series_of_scopes // SERIES_PER_SCOPE - 2))
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
        self.replays = Counter(
            "nanonets_proxy_upstream_replays",
            "Requests sent again after a 429 (`throttled`), or with another key after a 401 (`key_rejected`).",
            ["reason"],
            registry=self.registry,
        )
        self.coalesced = Counter(
            "nanonets_proxy_coalesced_requests",
            "GETs that were not sent, because an identical one in flight at the same time brought the response.",
            registry=self.registry,
        )
        self.revalidations = Counter(
            "nanonets_proxy_revalidations",
            "GETs that asked the upstream whether a kept response is still the same: unchanged, changed.",
            ["result"],
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


class _GaugeCollector(Collector):
    def __init__(self, read: Gauges) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        values = self._read()
        for name, documentation in _GAUGES.items():
            yield GaugeMetricFamily(name, documentation, value=values[name])
        for name, documentation in _COUNTERS.items():
            yield CounterMetricFamily(name, documentation, value=values[name])


def process_registry() -> CollectorRegistry:
    """Returns a registry with the metrics of the process alone."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Info("nanonets_proxy", "The running program.", registry=registry).info({"version": __version__})
    return registry


def combined_registry(
    process: CollectorRegistry, environments: Mapping[str, CollectorRegistry]
) -> CollectorRegistry:
    """Returns the registry to scrape: metrics of the process and of each environment, labelled by its name.

    A single environment has the empty name and no label.
    """
    registry = CollectorRegistry()
    registry.register(_LabelledCollector({"": process}))
    registry.register(_LabelledCollector(environments))
    return registry


class _LabelledCollector(Collector):
    def __init__(self, environments: Mapping[str, CollectorRegistry]) -> None:
        self._environments = environments

    def collect(self) -> Iterator[Metric]:
        if "" in self._environments:  # then it is the only one
            yield from self._environments[""].collect()
            return
        families: dict[str, Metric] = {}
        places: dict[str, list[_Place]] = {}
        for name, registry in self._environments.items():
            label = {"environment": name}
            for family in registry.collect():
                families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                samples = family.samples
                places.setdefault(family.name, []).extend((label, samples, at) for at in range(len(samples)))
        for name, family in families.items():
            family.samples = LaterSamples(places[name], _labelled)  # type: ignore[assignment]  # it is only read
            yield family


_Place = tuple[dict[str, str], Sequence[Sample], int]
"""Further labels, some samples, and the index of one of them."""


def _labelled(place: _Place) -> Sample:
    label, samples, at = place
    sample = samples[at]
    return sample._replace(labels=label | sample.labels)
