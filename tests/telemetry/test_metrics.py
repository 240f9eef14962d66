"""The metrics after scripted requests."""

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from nanonets_proxy.telemetry.finished_request import FinishedRequest
from nanonets_proxy.telemetry.scrape.request_metrics import RequestMetrics
from support.eventually import until
from support.proxy_harness import RunningProxy, running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import OK, ScriptedUpstream
from support.telemetry.finished import Finished

TOO_MANY = b"HTTP/1.1 429 No\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n"
Samples = dict[tuple[str, ...], float]


async def _scrape(proxy: RunningProxy) -> Samples:
    """Returns values by name and label values, without the client library's own metrics."""
    async with await RawCaller.connect(proxy.admin_address) as admin:
        response = await admin.get(b"/metrics")
    assert response.value(b"Content-Type").startswith(b"text/plain; version=")
    return {
        (sample.name.removeprefix("nanonets_proxy_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
        if sample.name.startswith("nanonets_proxy_")
    }


async def test_counters_and_gauges_follow_the_requests() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, max_wait="60s") as proxy,
        await proxy.caller() as caller,
        await proxy.caller() as held,
        await proxy.caller() as gone,
    ):
        before = await _scrape(proxy)
        assert before["ready",] == 1
        assert before["upstream_throttled_total",] == before["upstream_retries_total",] == 0

        for _ in range(2):
            await caller.send(request(b"GET", b"/x"))
            await (await upstream.next_request()).respond(OK)
            await caller.response()
        assert (await _scrape(proxy))["idle_upstream_connections",] == 1
        await gone.send(request(b"PUT", b"/x", body=b"abc"))
        exchange = await upstream.next_request()
        assert (await _scrape(proxy))["in_flight",] == 1
        assert (await _scrape(proxy))["body_memory_bytes",] == 3
        gone.close()
        await exchange.read_to_end()
        await proxy.check_idle()

        await held.send(request(b"POST", b"/x", body=b"12345"))
        await (await upstream.next_request()).respond(TOO_MANY)
        await until(lambda: proxy.waiting == 1)
        during = await _scrape(proxy)
        assert (during["waiting",], during["in_flight",], during["closed_scopes",]) == (1, 0, 1)
        assert 10 < during["cooldown_seconds",] <= 30
        assert 10 < during["scope_cooldown_seconds", "account"] <= 30
        assert (during["scope_waiting", "account"], during["scope_in_flight", "account"]) == (1, 0)
        assert during["body_memory_bytes",] == 5
        assert during["upstream_throttled_total",] == 1

        await caller.send(request(b"GET", b"/x", b"Prefer: wait=0"))
        assert (await caller.response()).status == 429
        held.close()
        await proxy.check_idle()
        after = await _scrape(proxy)
        assert {key: value for key, value in after.items() if key[0] == "requests_total"} == {
            ("requests_total", "127.0.0.1", "GET", "/other", "2xx"): 2,
            ("requests_total", "127.0.0.1", "GET", "/other", "4xx"): 1,
            ("requests_total", "127.0.0.1", "PUT", "/other", "gone"): 1,
            ("requests_total", "127.0.0.1", "POST", "/other", "gone"): 1,
        }
        assert after["errors_total", "rate_limit_exceeded", "cannot_be_in_time"] == 1
        assert after["errors_total", "caller_gone", ""] == 2
        assert after["queue_seconds_count",] == 5
        assert after["upstream_seconds_count",] == 3  # the requests with a response head
        assert after["request_seconds_count",] == 5
        assert after["upstream_connections_opened_total",] == 2


async def test_a_retry_on_a_new_connection_is_counted() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/1"))
        await (await upstream.next_request()).respond(OK)
        await caller.response()
        await caller.send(request(b"GET", b"/2"))
        (await upstream.next_request()).close()
        await (await upstream.next_request()).respond(OK)
        await caller.response()
        assert (await _scrape(proxy))["upstream_retries_total",] == 1


async def test_a_request_that_is_sent_again_after_a_429_is_a_replay() -> None:
    refusal = TOO_MANY.replace(b"30", b"0")
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/1"))
        await (await upstream.next_request()).respond(refusal)
        await (await upstream.next_request()).respond(OK)
        await caller.response()
        samples = await _scrape(proxy)
    assert samples["upstream_replays_total", "throttled"] == 1
    assert samples["upstream_retries_total",] == 0


async def test_callers_cannot_create_labels() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for method in (b"PROPFIND", b"REPORT", b"LINK"):
            await caller.send(request(method, b"/api/v2/OCR/Model/" + method + b"/LabelFile/?async=true"))
            await (await upstream.next_request()).respond(b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n")
            await caller.response()
        await caller.send(b"rubbish\r\n\r\n")
        await caller.response()
        samples = await _scrape(proxy)
        assert {key for key in samples if key[0] == "requests_total"} == {
            ("requests_total", "127.0.0.1", "other", "/api/v2/OCR/Model/{model}/LabelFile", "5xx"),
            ("requests_total", "127.0.0.1", "other", "/other", "4xx"),
        }
        assert not any("LINK" in label for key in samples for label in key)


def test_durations_are_counted_as_in_the_librarys_histogram() -> None:
    metrics, registry = RequestMetrics(100), CollectorRegistry()
    registry.register(metrics)
    finite = [float(bound) for bound in _buckets(registry, "nanonets_proxy_queue_seconds") if bound != "+Inf"]
    queue = Histogram("queue_seconds", "", buckets=finite, registry=registry)
    upstream = Histogram("upstream_seconds", "", buckets=finite, registry=registry)
    total = Histogram("request_seconds", "", buckets=finite, registry=registry)
    beside_bounds = [bound + aside for bound in finite for aside in (-0.001, 0.0, 0.001)]
    for queue_s in [0.0] * 7 + beside_bounds:
        queue.observe(queue_s)
        total.observe(0.0)
        metrics.observe(Finished(wait_s=queue_s))
    for upstream_s in [0.0, *beside_bounds]:
        queue.observe(0.0)
        upstream.observe(upstream_s)
        total.observe(0.0)
        metrics.observe(Finished("odd", 0, upstream_s=upstream_s))
        for total_s in (upstream_s, upstream_s + 0.0015, 3 * upstream_s):
            queue.observe(0.0)
            upstream.observe(upstream_s)
            total.observe(total_s)
            metrics.observe(Finished(upstream_s=upstream_s, total_s=total_s))
    for name in ("queue_seconds", "upstream_seconds", "request_seconds"):
        assert _buckets(registry, f"nanonets_proxy_{name}") == _buckets(registry, name)
        for suffix in ("_count", "_sum"):
            counted = registry.get_sample_value(f"nanonets_proxy_{name}{suffix}")
            assert counted == pytest.approx(registry.get_sample_value(name + suffix))


def test_the_totals_have_all_requests_and_the_hook_gets_the_unusual_ones() -> None:
    metrics, unusual = RequestMetrics(100), list[FinishedRequest]()
    metrics.observe(Finished(status=500))  # without a hook
    metrics.on_unusual = unusual.append
    good = [Finished(status=status) for status in (200, 302)]
    bad = [
        *(Finished(status=status) for status in (404, 429, 502, 999)),
        Finished(status=0, code="caller_gone"),
        Finished(retried_after="upstream_closed"),
        Finished(status=200, code="upstream_closed", wait_s=0.5, upstream_s=2.0),
    ]
    for finished in (*good, *bad):
        metrics.observe(finished)
    assert unusual == bad
    assert metrics.totals() == (10, 0.5, 2.0, 1)


def _buckets(registry: CollectorRegistry, name: str) -> dict[str, float]:
    """Returns the cumulative count for each bound."""
    return {
        sample.labels["le"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name + "_bucket"
    }
