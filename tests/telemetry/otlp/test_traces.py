"""Traces for a collector: which requests, their spans, and a collector that is slow, broken or gone."""

import asyncio
import time
from collections.abc import Callable

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client import CollectorRegistry

from nanonets_proxy.core.http.trace_context import TraceContext
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.otlp import sender as sender_module
from nanonets_proxy.telemetry.otlp import traces as traces_module
from nanonets_proxy.telemetry.otlp.policy import TracesPolicy
from nanonets_proxy.telemetry.otlp.spans import SpanEncoder
from nanonets_proxy.telemetry.otlp.traces import MAX_QUEUED_BYTES, TraceExporter
from support.eventually import WAIT_S, until
from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.scripted_upstream import OK, ScriptedUpstream, responding
from support.telemetry.finished_trace import PARENT, TRACE, finished
from support.telemetry.otlp_collector import Collector, attributes, running_collector

SERVER, CLIENT, INTERNAL = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL
ERROR, UNSET = Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET
DOWN = b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"
UPSTREAM = Origin("https", "app.nanonets.com", 443)


async def test_the_spans_of_a_request_in_absolute_form_have_the_path_alone() -> None:
    async with (
        running_collector() as collector,
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin, otlp_endpoint=str(collector.origin)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(f"{upstream.origin}/api/v4/workflows".encode())).status == 200
        await until(lambda: len(collector.spans) == 2)
    own, attempt = collector.spans
    assert attributes(own)["url.path"] == "/api/v4/workflows"
    assert attributes(attempt)["url.full"] == f"{upstream.origin}/api/v4/workflows"


async def test_a_request_a_wait_and_each_attempt_are_spans_of_the_callers_trace() -> None:
    fields = f"traceparent: 00-{TRACE}-{PARENT}-03".encode(), b"tracestate: a=1"
    async with (
        running_collector() as collector,
        ScriptedUpstream(responding(DOWN, OK)) as upstream,
        running_proxy(
            upstream.origin,
            otlp_endpoint=str(collector.origin),
            trace_upstream=True,
            retries=1,
            retry_backoff="1ms",
        ) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/api/v4/workflows?key=secret", b"X-Request-Id: r-1", *fields)).status == 200
        lines = [line for exchange in upstream.requests for line in exchange.lines]
        await until(lambda: len(collector.spans) == 4)
    own, first, wait, second = collector.spans
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert len({span.span_id for span in collector.spans}) == 4
    assert (own.parent_span_id.hex(), own.trace_state, own.flags) == (PARENT, "a=1", 3)
    assert {span.parent_span_id for span in (wait, first, second)} == {own.span_id}
    assert [span.name for span in collector.spans] == ["GET /api/v4/workflows", "GET", "queue", "GET"]
    assert [span.kind for span in collector.spans] == [SERVER, CLIENT, INTERNAL, CLIENT]
    assert [line for line in lines if line.startswith(b"traceparent")] == [
        f"traceparent: 00-{TRACE}-{span.span_id.hex()}-03".encode() for span in (first, second)
    ]
    facts = attributes(own)
    assert (facts["http.request.method"], facts["http.route"], facts["http.response.status_code"]) == (
        "GET",
        "/api/v4/workflows",
        200,
    )
    assert (facts["url.path"], facts["url.scheme"]) == ("/api/v4/workflows", "http")
    assert facts["nanonets_proxy.request_id"] == "r-1"
    assert "secret" not in str(collector.spans), "values of the query are masked"
    assert facts["url.query"] == "key"
    assert attributes(first)["http.response.status_code"] == 503
    assert (attributes(first)["error.type"], first.status.code) == ("503", ERROR)
    assert attributes(second)["http.request.resend_count"] == 1
    assert attributes(second)["server.port"] == upstream.origin.port
    assert attributes(second)["url.full"] == f"{upstream.origin}/api/v4/workflows?key"
    assert second.status.code == own.status.code == UNSET
    for span in collector.spans:
        assert own.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= own.end_time_unix_nano
    assert abs(own.start_time_unix_nano / 1e9 - time.time()) < 600
    assert collector.resources[0]["service.name"] == "nanonets-proxy"
    assert collector.requests[0].startswith("POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_log_upstream_and_collector_get_the_same_ids_of_a_new_trace() -> None:
    with captured_log() as log:
        async with (
            running_collector() as collector,
            ScriptedUpstream(responding(DOWN, OK)) as upstream,
            running_proxy(
                upstream.origin,
                otlp_endpoint=str(collector.origin),
                trace_upstream=True,
                retries=1,
                retry_backoff="1ms",
            ) as proxy,
            await proxy.caller() as caller,
        ):
            assert (await caller.get(b"/x")).status == 200
            lines = [line for exchange in upstream.requests for line in exchange.lines]
            await until(lambda: len(collector.spans) == 4)
        (event,) = log.events("request")
    own, first, _, second = collector.spans
    assert (own.trace_id.hex(), own.span_id.hex()) == (event["trace_id"], event["span_id"])
    assert [line for line in lines if line.startswith(b"traceparent")] == [
        f"traceparent: 00-{own.trace_id.hex()}-{span.span_id.hex()}-03".encode() for span in (first, second)
    ]


async def test_a_lost_connection_is_an_attempt_with_an_error() -> None:
    async with (
        running_collector() as collector,
        running_proxy(Origin("http", "127.0.0.1", 1), otlp_endpoint=str(collector.origin)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b'/x"y')).status == 502
        await until(lambda: len(collector.spans) == 2)
    own, attempt = collector.spans
    assert (own.parent_span_id, own.flags) == (b"", 3), "a new trace with a random id"
    assert attributes(own)["error.type"] == attributes(attempt)["error.type"] == "upstream_refused"
    assert own.status.code == attempt.status.code == ERROR
    assert attributes(own)["url.path"] == '/x"y'
    assert (own.name, "http.route" in attributes(own)) == ("GET", False), "no known route"
    assert "http.response.status_code" not in attributes(attempt)


async def test_a_rejected_request_is_a_span_without_an_attempt_and_no_error_of_a_server() -> None:
    async with (
        running_collector() as collector,
        running_proxy(Origin("http", "127.0.0.1", 1), otlp_endpoint=str(collector.origin)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b"/x", b"Sec-Fetch-Site: cross-site")).status == 403
        await until(lambda: len(collector.spans) == 1)
    (own,) = collector.spans
    assert (attributes(own)["error.type"], own.status.code) == ("forbidden_origin", UNSET)


# --- the exporter alone ---------------------------------------------------------------------------


def make(collector: Origin, share: float = 1.0) -> tuple[TraceExporter, CollectorRegistry, Alerts]:
    registry = CollectorRegistry()
    alerts = Alerts(registry)
    encoder = SpanEncoder(UPSTREAM, "http")
    return (
        TraceExporter(TracesPolicy(collector, share), encoder, "eu", registry, alerts, bytes),
        registry,
        alerts,
    )


def dropped(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("nanonets_proxy_traces_dropped_total") or 0.0


async def test_the_callers_flag_decides_and_otherwise_the_share() -> None:
    every, _, _ = make(UPSTREAM)
    none, _, _ = make(UPSTREAM, share=0.0)
    sampled, unsampled = TraceContext(TRACE, PARENT, 1), TraceContext(TRACE, PARENT, 2)
    assert (every.samples(sampled), none.samples(sampled)) == (True, True)
    assert (every.samples(unsampled), none.samples(unsampled)) == (False, False)
    assert (every.samples(None), none.samples(None)) == (True, False)


@pytest.mark.parametrize("status", [429, 503, 0])
async def test_a_batch_that_the_collector_wants_later_is_sent_again(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces_module, "_BATCH_DELAY_S", 0.01)
    monkeypatch.setattr(traces_module, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(sender_module, "SEND_TIMEOUT_S", 0.2 if not status else 10.0)
    async with running_collector() as collector:
        collector.status = status
        exporter, registry, alerts = make(collector.origin)
        exporter.start()
        for number in range(3):
            exporter.observe(finished(number + 1))
        await until(lambda: len(collector.requests) >= 2)
        collector.status = 200
        await until(lambda: len(collector.spans) == 3)
        await exporter.stop()
        assert [span.span_id.hex() for span in collector.spans] == [f"{number:012x}0000" for number in (1, 2, 3)]
        assert dropped(registry) == 0
        assert alerts.to_json()[0]["event"] == "traces_not_sent"
        assert collector.resources[0]["deployment.environment.name"] == "eu"


async def test_a_batch_that_the_collector_rejects_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_module, "_BATCH_DELAY_S", 0.01)
    async with running_collector() as collector:
        collector.status = 400
        exporter, registry, _ = make(collector.origin)
        exporter.start()
        exporter.observe(finished())
        await until(lambda: dropped(registry) == 1)
        await exporter.stop()


async def test_batches_that_are_full_are_sent_without_a_delay_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces_module, "_BATCH_DELAY_S", 10 * WAIT_S)
    monkeypatch.setattr(traces_module, "_BATCH_BYTES", 1)
    async with running_collector() as collector:
        exporter, _, _ = make(collector.origin)
        for number in range(96):
            exporter.observe(finished(number + 1))
        exporter.start()
        await until(lambda: len(collector.spans) == 96)
        assert len(collector.requests) == 3
        await exporter.stop()


async def test_without_a_collector_the_queue_is_bounded_and_the_rest_is_counted() -> None:
    exporter, registry, _ = make(Origin("http", "127.0.0.1", 1))
    for number in range(3200):
        request = finished()
        request.caller = f"{number:05}" * 1000
        exporter.observe(request)
    assert MAX_QUEUED_BYTES / 2 < exporter._queued_bytes <= MAX_QUEUED_BYTES
    assert exporter._queued_bytes == sum(len(spans) for spans, _ in exporter._queue)
    assert dropped(registry) == 3200 - sum(requests for _, requests in exporter._queue) > 0
    exporter.start()
    await exporter.stop()


@pytest.mark.parametrize("end", [lambda _: None, lambda collector: setattr(collector, "status", 0)])
async def test_the_end_sends_what_is_queued_and_a_hanging_collector_delays_it_for_a_limited_time(
    end: Callable[[Collector], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "SEND_TIMEOUT_S", 10 * WAIT_S)
    async with running_collector() as collector:
        end(collector)
        exporter, registry, _ = make(collector.origin)
        exporter.start()
        exporter.observe(finished())
        with captured_log() as log:
            async with asyncio.timeout(WAIT_S):
                await exporter.stop()
        is_taken = collector.status == 200
        assert len(collector.spans) == is_taken
        lost = [(event["dropped"], event["collector"]) for event in log.events("traces_dropped")]
        assert lost == ([] if is_taken else [(1, str(collector.origin))])
        assert dropped(registry) == len(lost)


async def test_the_end_without_a_collector_logs_how_many_requests_have_lost_their_traces() -> None:
    exporter, registry, alerts = make(Origin("http", "127.0.0.1", 1))
    for _ in range(3):
        exporter.observe(finished())
    exporter.start()
    with captured_log() as log:
        await exporter.stop()
    assert [event["dropped"] for event in log.events("traces_dropped")] == [3] == [dropped(registry)]
    assert [alert["event"] for alert in alerts.to_json()] == ["traces_not_sent"]
