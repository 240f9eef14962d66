"""Metrics for a collector: the same as those of /metrics, and a collector that is slow, broken or gone."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE as CUMULATIVE
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.otlp import sender
from nanonets_proxy.telemetry.otlp.metrics import MetricsExporter, Source
from nanonets_proxy.telemetry.otlp.policy import MetricsPolicy
from nanonets_proxy.telemetry.redaction import Redactor
from support.eventually import WAIT_S, until
from support.proxy_harness import KEY, running_proxy
from support.scripted_upstream import OK, ScriptedUpstream, responding
from support.telemetry.otlp_collector import attributes, running_collector

NOBODY = Origin("http", "127.0.0.1", 1)


def points(metric: Metric) -> Any:
    return getattr(metric, metric.WhichOneof("data")).data_points


def values(metric: Metric) -> dict[tuple[Any, ...], float]:
    """Returns the values of a counter or gauge, by the values of its attributes."""
    return {tuple(attributes(point).values()): point.as_double for point in points(metric)}


def make(
    collector: Origin, interval_s: float = 60.0, registry: CollectorRegistry | None = None
) -> tuple[MetricsExporter, CollectorRegistry, Alerts]:
    registry = registry or CollectorRegistry()
    alerts = Alerts(CollectorRegistry())
    policy = MetricsPolicy(collector, interval_s)
    return (
        MetricsExporter(policy, [Source("eu", registry, {})], registry, alerts, Redactor().mask),
        registry,
        alerts,
    )


def dropped(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("nanonets_proxy_metric_exports_dropped_total") or 0.0


async def test_the_counts_of_requests_and_exponential_histograms_of_durations_are_sent() -> None:
    async with (
        running_collector() as collector,
        ScriptedUpstream(responding(*[OK] * 3)) as upstream,
        running_proxy(upstream.origin, otlp_metrics_endpoint=str(collector.origin)) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(3):
            assert (await caller.get(b"/api/v4/workflows")).status == 200
        await proxy.stop()
        (export,) = collector.exports
        total_s = proxy.proxy.metrics.requests._total.sum_s
    requests = export["nanonets_proxy_requests"]
    assert values(requests) == {("127.0.0.1", "GET", "/api/v4/workflows", "2xx"): 3}
    assert (requests.sum.is_monotonic, requests.sum.aggregation_temporality) == (True, CUMULATIVE)
    durations = export["nanonets_proxy_request_seconds"]
    assert (durations.unit, durations.exponential_histogram.aggregation_temporality) == ("s", CUMULATIVE)
    (point,) = points(durations)
    assert (point.count, sum(point.positive.bucket_counts), point.zero_count) == (3, 3, 0)
    assert point.sum == pytest.approx(total_s)
    step = 2**2**-point.scale
    assert step**point.positive.offset < total_s < step ** (point.positive.offset + 160) * 3
    assert point.start_time_unix_nano < point.time_unix_nano
    (queue,) = points(export["nanonets_proxy_queue_seconds"])
    assert (queue.count, queue.zero_count) == (3, 3), "none of them waited"
    assert export["nanonets_proxy_waiting"].WhichOneof("data") == "gauge"
    assert export["nanonets_proxy_event_loop_lag_seconds"].WhichOneof("data") == "histogram"
    assert [resource["service.name"] for resource in collector.resources] == ["nanonets-proxy"] * 2
    assert len({resource["service.instance.id"] for resource in collector.resources}) == 1
    assert collector.requests[0].startswith("POST /v1/metrics HTTP/1.1\r\n")


async def test_a_key_as_the_name_of_a_caller_is_masked() -> None:
    async with (
        running_collector() as collector,
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(
            upstream.origin, otlp_metrics_endpoint=str(collector.origin), caller_header="X-Caller"
        ) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x", b"X-Caller: " + KEY.encode())).status == 200
        await proxy.stop()
    ((name, *_),) = values(collector.exports[0]["nanonets_proxy_requests"])
    assert KEY not in name


async def test_each_metric_of_the_scrape_is_sent_with_the_same_value() -> None:
    registry = CollectorRegistry()
    counter = Counter("c", "A counter.", ["kind"], registry=registry)
    for number in range(120):
        counter.labels(f"k{number}").inc(number)
    Gauge("g_bytes", "A gauge.", registry=registry).set(-2.5)
    histogram = Histogram("h_seconds", "A histogram.", ["kind"], buckets=(0.5, 1.0), registry=registry)
    for kind, value in (("a", 0.1), ("a", 0.7), ("a", 5.0), ("b", 1.0)):
        histogram.labels(kind).observe(value)
    async with running_collector() as collector:
        exporter, _, _ = make(collector.origin, registry=registry)
        exporter.start()
        await exporter.stop()
        (export,) = collector.exports
    assert values(export["c"]) == {(f"k{number}",): number for number in range(120)}
    assert (values(export["g_bytes"]), export["g_bytes"].unit, export["g_bytes"].description) == (
        {(): -2.5},
        "By",
        "A gauge.",
    )
    a, b = points(export["h_seconds"])
    assert (attributes(a), list(a.explicit_bounds), list(a.bucket_counts)) == ({"kind": "a"}, [0.5, 1], [1, 1, 1])
    assert (a.count, a.sum, b.count, list(b.bucket_counts)) == (3, pytest.approx(5.8), 1, [0, 1, 0])
    assert collector.resources[0]["deployment.environment.name"] == "eu"


async def test_metrics_are_sent_at_the_interval_and_their_start_stays() -> None:
    async with running_collector() as collector:
        exporter, registry, _ = make(collector.origin, 0.01)
        counter = Counter("c", "A counter.", registry=registry)
        exporter.start()
        await until(lambda: len(collector.exports) >= 1)
        counter.inc()
        await until(lambda: values(collector.exports[-1]["c"]) == {(): 1.0})
        await exporter.stop()
    starts = {point.start_time_unix_nano for export in collector.exports for point in points(export["c"])}
    assert len(starts) == 1


@pytest.mark.parametrize("status", [400, 503])
async def test_an_export_that_is_not_taken_is_counted_and_the_next_one_has_its_sums(status: int) -> None:
    async with running_collector() as collector:
        collector.status = status
        exporter, registry, alerts = make(collector.origin, 0.01)
        Counter("c", "A counter.", registry=registry).inc(7)
        exporter.start()
        await until(lambda: dropped(registry) >= 2)
        collector.status = 200
        await until(lambda: bool(collector.exports))
        await exporter.stop()
        assert values(collector.exports[-1]["c"]) == {(): 7.0}
    assert alerts.to_json()[0]["event"] == "metrics_not_sent"


async def test_a_hanging_collector_delays_the_end_for_a_limited_time_with_traces_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "SEND_TIMEOUT_S", 10 * WAIT_S)
    async with (
        running_collector() as collector,
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(
            upstream.origin, otlp_endpoint=str(collector.origin), otlp_metrics_endpoint=str(collector.origin)
        ) as proxy,
        await proxy.caller() as caller,
    ):
        collector.status = 0
        assert (await caller.get(b"/x")).status == 200
        caller.close()
        async with asyncio.timeout(WAIT_S):
            await proxy.stop(0.1)
        assert len(collector.requests) == 2


async def test_two_thousand_series_are_encoded_in_slices() -> None:
    exporter, registry, _ = make(NOBODY)
    counter = Counter("c", "A counter.", ["kind"], registry=registry)
    for number in range(2000):
        counter.labels(f"k{number}").inc()
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(count_turns())
    encoded = await exporter._encode()
    other.cancel()
    assert turns >= 40
    assert len(encoded) < 8 * 2**20


def test_nothing_of_it_is_imported_without_a_collector() -> None:
    script = (
        "import sys, nanonets_proxy.process.serve, nanonets_proxy.app.program\n"
        "print([name for name in sys.modules if name.startswith('nanonets_proxy.telemetry.otlp.')])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "['nanonets_proxy.telemetry.otlp.policy']"
