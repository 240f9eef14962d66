"""The text of a scrape: its format, and how long it takes the event loop."""

import asyncio
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.registry import Collector

from nanonets_proxy.telemetry.metrics import combined_registry
from nanonets_proxy.telemetry.scrape.exposition import render
from nanonets_proxy.telemetry.scrape.later_samples import LaterSamples
from nanonets_proxy.telemetry.scrape.request_metrics import RequestMetrics
from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller
from support.scripted_upstream import ScriptedUpstream
from support.telemetry.finished import Finished

OPENMETRICS = "application/openmetrics-text"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;"
    "version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


class _ManySeries(Collector):
    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("many", "Many series,\nin two lines.", labels=["number"])
        for number in range(2000):
            family.add_metric([f'"{number}"\\'], number)
        yield family


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("empty", "No series.", ["label"], registry=registry)
    Counter("one", "One series.", registry=registry).inc()
    registry.register(_ManySeries())
    Histogram("durations", "A histogram.", registry=registry).observe(0.3)
    return registry


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/html,*/*;q=0.8", "text/plain;version=0.0.4", f"{OPENMETRICS};q=0", "," * 64 + OPENMETRICS],
)
async def test_prometheus_text_is_the_default(accept: str) -> None:
    registry = _registry()
    content_type, text = await render(registry, accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert text == generate_latest(registry)


@pytest.mark.parametrize(
    "accept",
    ["," * 63 + OPENMETRICS, OPENMETRICS, "text/plain, Application/OpenMetrics-Text; version=nonsense", PROMETHEUS],
)
async def test_openmetrics_is_sent_to_a_scraper_that_asks_for_it(accept: str) -> None:
    registry = _registry()
    content_type, text = await render(registry, accept)
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert text == openmetrics.generate_latest(registry)


async def test_a_scrape_leaves_turns_to_others() -> None:
    turns, rendering = 0, asyncio.create_task(render(_registry(), ""))
    while not rendering.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 2000 / 50


@pytest.mark.parametrize("names", [("",), ("a", "b")])
async def test_a_scrape_makes_its_samples_in_slices_and_shows_one_instant(names: tuple[str, ...]) -> None:
    environments = {name: RequestMetrics(most_series=500) for name in names}
    for own in environments.values():
        for number in range(100):
            own.observe(Finished(route=f"/{number}"))
    collected = {name: CollectorRegistry() for name in names}
    for name, own in environments.items():
        collected[name].register(own)
    families = list(combined_registry(CollectorRegistry(), collected).collect())
    for own in environments.values():
        own.observe(Finished(route="/0"))
    (requests,) = [family for family in families if family.name == "nanonets_proxy_requests"]
    assert isinstance(requests.samples, LaterSamples)
    assert (len(requests.samples), {sample.value for sample in requests.samples}) == (100 * len(names), {1})
    assert [sample.labels.get("environment", "") for sample in requests.samples[::100]] == list(names)
    assert requests.samples[0].labels["route"] == "/0"


async def test_the_admin_listener_sends_valid_openmetrics() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        response = await admin.get(b"/metrics", b"Accept: text/plain", b"Accept: " + OPENMETRICS.encode())
    assert response.value(b"Content-Type").startswith(b"application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(response.body.decode())}
    assert {"nanonets_proxy_requests", "nanonets_proxy_waiting", "nanonets_proxy"} <= names
