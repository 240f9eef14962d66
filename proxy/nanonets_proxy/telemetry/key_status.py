"""What may be seen of the keys: names, fingerprints, states and ages; and what Prometheus sees of that."""

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
    """`state` is the keyring's, `warnings` are sentences, `fault` is why the last reading failed if it did."""

    source: str
    state: str
    keys: tuple[KeyEntry, ...]
    warnings: tuple[str, ...]
    source_error: str | None
    candidate_rejected: bool

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"source": self.source, "state": self.state}
        shown["keys"] = [
            {"name": key.name, "fingerprint": key.fingerprint, "state": key.state, "age_s": round(key.age_s)}
            for key in self.keys
        ]
        if self.warnings:
            shown["warnings"] = list(self.warnings)
        if self.source_error is not None:
            shown["source_fault"] = self.source_error
        return shown


class KeyMetrics:
    """`read_status` is asked at each scrape."""

    def __init__(self, registry: CollectorRegistry, read_status: Callable[[], KeyStatus]) -> None:
        registry.register(_StatusCollector(read_status))
        self.rotations = Counter(
            "nanonets_proxy_key_rotations", "Times that another key became the active one.", registry=registry
        )
        self.rejections = Counter(
            "nanonets_proxy_key_refusals",
            "Keys that the upstream refused, by the state that they were in.",
            ["state"],
            registry=registry,
        )
        self.source_failures = Counter(
            "nanonets_proxy_key_source_failures", "Readings of the key's source that failed.", registry=registry
        )


class _StatusCollector(Collector):
    def __init__(self, read: Callable[[], KeyStatus]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        status = self._read()
        info = GaugeMetricFamily(
            "nanonets_proxy_key_info", "1 for each key that is known.", labels=["source", "fingerprint", "state"]
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
            "nanonets_proxy_key_candidate_refused",
            "1 while the source holds a key that the upstream refuses: it has to be looked at.",
            value=float(status.candidate_rejected),
        )
        yield GaugeMetricFamily(
            "nanonets_proxy_key_source_failing",
            "1 while the source of the key cannot be read.",
            value=float(status.source_error is not None),
        )
        yield GaugeMetricFamily(
            "nanonets_proxy_key_accepted",
            "0 while the upstream refuses every key that is known.",
            value=float(status.state == "serving"),
        )
