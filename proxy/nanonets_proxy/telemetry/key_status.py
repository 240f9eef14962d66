"""The public facts about the keys: names, fingerprints, states, ages; for the admin listener and Prometheus."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class KeyEntry:
    name: str
    fingerprint: str
    state: str
    age_s: float


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """`state` is the keyring's state, `warnings` are sentences; `source_fault` says why the last reading failed.

    `is_doubted`: the key is usable, but the upstream rejects every request.
    """

    source: str
    state: str
    keys: tuple[KeyEntry, ...]
    warnings: tuple[str, ...]
    source_fault: str | None
    candidate_rejected: bool
    is_doubted: bool = False

    def to_json(self) -> dict[str, Any]:
        status: dict[str, Any] = {"source": self.source, "state": self.state}
        status["keys"] = [
            {"name": key.name, "fingerprint": key.fingerprint, "state": key.state, "age_s": round(key.age_s)}
            for key in self.keys
        ]
        if self.warnings:
            status["warnings"] = list(self.warnings)
        if self.source_fault is not None:
            status["source_fault"] = self.source_fault
        return status


class KeyMetrics:
    """Counters of key events, and gauges from `read_status`, which each scrape calls."""

    def __init__(self, registry: CollectorRegistry, read_status: Callable[[], KeyStatus]) -> None:
        registry.register(_StatusCollector(read_status))
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
    def __init__(self, read: Callable[[], KeyStatus]) -> None:
        self._read = read

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
            value=float(status.candidate_rejected),
        )
        yield GaugeMetricFamily(
            "nanonets_proxy_key_source_failing",
            "1 while the key source cannot be read.",
            value=float(status.source_fault is not None),
        )
        yield GaugeMetricFamily(
            "nanonets_proxy_key_accepted",
            "1 while a key is usable; 0 while the upstream rejects every known key, or every request.",
            value=float(status.state == "serving" and not status.is_doubted),
        )
