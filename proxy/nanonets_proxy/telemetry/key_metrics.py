"""The metrics of the API keys."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nanonets_proxy.core.status.document import KeysStatus


class KeyMetrics:
    """Counters of key events, and gauges from the two functions, which each scrape calls."""

    def __init__(
        self,
        registry: CollectorRegistry,
        read_status: Callable[[], KeysStatus],
        is_candidate_rejected: Callable[[], bool],
    ) -> None:
        registry.register(_StatusCollector(read_status, is_candidate_rejected))
        self.rotations = Counter("nanonets_proxy_key_rotations", "Changes of the active key.", registry=registry)
        self.rejections = Counter(
            "nanonets_proxy_key_rejections",
            "Keys that the upstream rejected, by the state they had.",
            ["state"],
            registry=registry,
        )
        self.gaps = Counter(
            "nanonets_proxy_key_gaps",
            "Times without a working key that have ended: serving (a key works), or spent (no new key came).",
            ["state"],
            registry=registry,
        )
        self.source_readings = Counter(
            "nanonets_proxy_key_source_readings", "Readings of the key source.", registry=registry
        )
        self.source_failures = Counter(
            "nanonets_proxy_key_source_failures", "Failed readings of the key source.", registry=registry
        )


class _StatusCollector(Collector):
    def __init__(self, read: Callable[[], KeysStatus], is_candidate_rejected: Callable[[], bool]) -> None:
        self._read = read
        self._is_candidate_rejected = is_candidate_rejected

    def collect(self) -> Iterator[Metric]:
        status = self._read()
        info = GaugeMetricFamily(
            "nanonets_proxy_key_info", "1 for each known key.", labels=["source", "fingerprint", "state"]
        )
        age = GaugeMetricFamily(
            "nanonets_proxy_key_age_seconds", "Time since a key was put into its source.", labels=["fingerprint"]
        )
        for key in status.keys:
            info.add_metric([key.name, key.fingerprint, key.state], 1)
            age.add_metric([key.fingerprint], key.age_s)
        yield info
        yield age
        yield GaugeMetricFamily(
            "nanonets_proxy_key_candidate_rejected",
            "1 while the key source holds a key that the upstream rejects: replace that key.",
            value=float(self._is_candidate_rejected()),
        )
        yield GaugeMetricFamily(
            "nanonets_proxy_key_source_failing",
            "1 while the key source cannot be read.",
            value=float(status.source_fault is not None),
        )
        yield GaugeMetricFamily(
            "nanonets_proxy_key_accepted",
            "1 while a key is usable; 0 while the upstream rejects every known key, or every request.",
            value=float(status.state == "serving" and not status.is_rejected),
        )
