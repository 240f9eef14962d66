"""Sends the metrics to a collector at an interval, on the event loop: the same as `/metrics`, by the same names.

Sums are cumulative from the start of the process. So an export that the collector does not take is dropped and
counted, and the next one has all that it had: nothing waits for a collector that is gone or hangs. Two thousand
series are encoded in slices, between which the event loop serves callers.
"""

import asyncio
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from nanonets_proxy.aio.events import wait_at_most
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.otlp.histogram import Buckets, DurationHistogram
from nanonets_proxy.telemetry.otlp.policy import MetricsPolicy
from nanonets_proxy.telemetry.otlp.protobuf import (
    attribute,
    double,
    fixed64,
    message,
    number,
    request,
    tag,
    text,
    varint,
    zigzag,
)
from nanonets_proxy.telemetry.otlp.sender import STOP_S, CollectorSender, finish
from nanonets_proxy.telemetry.scrape.request_metrics import QUEUE, TOTAL, UPSTREAM

_SLICE: Final = 20
_ADVICE: Final = "check otlp_metrics_endpoint and whether the collector runs; the next export has the same sums"
_UNITS: Final = {"_seconds": "s", "_bytes": "By"}
# Fields of `Metric`, and of the data points: those with a number, those of a histogram, and exponential ones.
_GAUGE, _SUM, _HISTOGRAM, _EXPONENTIAL = 5, 7, 9, 10
_ATTRIBUTES_OF_NUMBER, _ATTRIBUTES_OF_HISTOGRAM, _ATTRIBUTES_OF_EXPONENTIAL = 7, 9, 1
_CUMULATIVE: Final = number(2, 2)
_MONOTONIC: Final = number(3, 1)


@dataclass(frozen=True, slots=True)
class Source:
    """The metrics of one environment, or those of the process: then `environment` is empty."""

    environment: str
    registry: CollectorRegistry
    durations: Mapping[str, DurationHistogram]
    """The exponential histograms, which take the places of the registry's own histograms of these names."""


class RequestDurations:
    """The exponential histograms of the requests of one environment."""

    def __init__(self) -> None:
        self.by_name = {QUEUE: DurationHistogram(), UPSTREAM: DurationHistogram(), TOTAL: DurationHistogram()}
        self._queue, self._upstream, self._total = self.by_name.values()

    def count(self, queue_s: float, upstream_s: float | None, total_s: float) -> None:
        """Counts the durations of a request. Only those that waited are in a bucket of the queue."""
        if queue_s:
            self._queue.count(queue_s)
        if upstream_s is not None:
            self._upstream.count(upstream_s)
        self._total.count(total_s)


class MetricsExporter:
    """Sends metrics from `start()` to `stop()`, which sends them a last time."""

    def __init__(
        self,
        policy: MetricsPolicy,
        sources: Iterable[Source],
        registry: CollectorRegistry,
        alerts: Alerts,
        mask: Callable[[bytes], bytes],
    ) -> None:
        """`mask` masks secrets and keeps the length: callers choose names, and may take a key for one."""
        self._interval_s = policy.interval_s
        self._sender = CollectorSender(policy.collector, b"/v1/metrics")
        self._sources = tuple(sources)
        self._alerts = alerts
        self._mask = mask
        self._started_ns = time.time_ns()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._dropped = Counter(
            "nanonets_proxy_metric_exports_dropped",
            "Exports of metrics that the collector did not take. The next export has the same sums.",
            registry=registry,
        )

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Sends the metrics, for at most `STOP_S`, and ends."""
        self._stopping.set()
        await finish(self._task, STOP_S)

    async def _run(self) -> None:
        is_last = False
        while not is_last:
            await wait_at_most(self._stopping, self._interval_s)
            is_last = self._stopping.is_set()
            fault = await self._sender.send(self._mask(await self._encode()))
            if fault is not None:
                self._dropped.inc()
                self._alerts.report("metrics_not_sent", _ADVICE, collector=str(self._sender.collector), error=fault)

    async def _encode(self) -> bytes:
        encoded = []
        for source in self._sources:
            times = fixed64(2, self._started_ns) + fixed64(3, time.time_ns())
            # At one instant, so that a histogram's count and its buckets agree.
            families = list(source.registry.collect())
            buckets = {name: durations.buckets() for name, durations in source.durations.items()}
            metrics = [await _metric(family, times, buckets.get(family.name)) for family in families]
            encoded.append(request(source.environment, metrics))
        return b"".join(encoded)


async def _metric(family: Metric, times: bytes, buckets: Buckets | None) -> bytes:
    """Encodes a family as a field of `ScopeMetrics`, in slices."""
    make = _points(family, times, buckets)
    points = []
    for made, point in enumerate(make, start=1):
        points.append(message(1, point))
        if made % _SLICE == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    unit = next((unit for suffix, unit in _UNITS.items() if family.name.endswith(suffix)), "")
    head = text(1, family.name) + text(2, family.documentation) + text(3, unit)
    if buckets is not None:
        data = message(_EXPONENTIAL, *points, _CUMULATIVE)
    elif family.type == "histogram":
        data = message(_HISTOGRAM, *points, _CUMULATIVE)
    elif family.type == "counter":
        data = message(_SUM, *points, _CUMULATIVE, _MONOTONIC)
    else:
        data = message(_GAUGE, *points)
    return message(2, head, data)


def _points(family: Metric, times: bytes, buckets: Buckets | None) -> Iterator[bytes]:
    if family.type != "histogram":
        for sample in family.samples:
            yield _labels(_ATTRIBUTES_OF_NUMBER, sample.labels) + times + double(4, sample.value)
    elif buckets is not None:
        yield _exponential_point(family.samples, times, buckets)
    else:
        for labels, samples in _series(family.samples):
            yield _histogram_point(labels, samples, times)


def _labels(field: int, labels: Mapping[str, str]) -> bytes:
    return b"".join([_attribute(field, name, value) for name, value in labels.items()])


# The series of one environment have few names and values between them.
_attribute: Final = lru_cache(1024)(attribute)


def _series(samples: Iterable[Sample]) -> Iterator[tuple[dict[str, str], list[Sample]]]:
    """Groups the samples of a histogram by their labels without the bucket's bound."""
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        series.setdefault(labels, []).append(sample)
    for labels, found in series.items():
        yield dict(labels), found


def _histogram_point(labels: Mapping[str, str], samples: Iterable[Sample], times: bytes) -> bytes:
    bounds, counts, before, sum_value = [], [], 0, 0.0
    for sample in samples:
        if "le" in sample.labels:
            counts.append(int(sample.value) - before)
            before = int(sample.value)
            bounds.append(float(sample.labels["le"]))
        elif sample.name.endswith("_sum"):
            sum_value = sample.value
    bounds.pop()  # the last one is infinite, which OTLP leaves out
    return b"".join(
        (
            _labels(_ATTRIBUTES_OF_HISTOGRAM, labels),
            times,
            fixed64(4, before),
            double(5, sum_value),
            message(6, struct.pack(f"<{len(counts)}q", *counts)),
            message(7, struct.pack(f"<{len(bounds)}d", *bounds)),
        )
    )


def _exponential_point(samples: Iterable[Sample], times: bytes, buckets: Buckets) -> bytes:
    """Encodes the only series of a histogram. The durations that are in no bucket were 0."""
    values = {sample.name.rpartition("_")[2]: sample.value for sample in samples if "le" not in sample.labels}
    count = int(values["count"])
    positive = tag(1, 0) + zigzag(buckets.offset) + message(2, *map(varint, buckets.counts))
    return b"".join(
        (
            times,
            fixed64(4, count),
            double(5, values["sum"]),
            tag(6, 0) + zigzag(buckets.scale),
            fixed64(7, count - sum(buckets.counts)),
            message(8, positive),
        )
    )
