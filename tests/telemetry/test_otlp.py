"""Traces for a collector: which requests, their spans, and a collector that is slow, broken or gone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from nanonets_proxy.core.http.trace_context import TraceContext
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.request.access_record import new_id
from nanonets_proxy.telemetry.alerts import Alerts
from nanonets_proxy.telemetry.otlp import exporter as exporter_module
from nanonets_proxy.telemetry.otlp.exporter import MAX_QUEUED_BYTES, STOP_S, TraceExporter
from nanonets_proxy.telemetry.otlp.policy import OtlpPolicy
from nanonets_proxy.telemetry.otlp.spans import RequestSpans, SpanEncoder
from support.eventually import until
from support.proxy_harness import running_proxy
from support.scripted_upstream import OK, ScriptedUpstream, responding

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
DOWN = b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"
UPSTREAM = Origin("https", "app.nanonets.com", 443)


class Collector:
    """Takes OTLP over HTTP, and keeps the spans. Responds with `status`; 0: never."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[str] = []
        self.resources: list[dict[str, Any]] = []
        self.spans: list[dict[str, Any]] = []
        self.origin = Origin("http", "127.0.0.1", 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            (length,) = [line.split()[1] for line in head.split("\r\n") if line.startswith("Content-Length:")]
            body = json.loads(await reader.readexactly(int(length)))
            self.requests.append(head)
            if not self.status:
                await reader.read()
                return
            if self.status == 200:
                for resource in body["resourceSpans"]:
                    self.resources.append(attributes(resource["resource"]))
                    self.spans += [span for scope in resource["scopeSpans"] for span in scope["spans"]]
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}" % self.status)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def attributes(item: dict[str, Any]) -> dict[str, Any]:
    """Returns attributes by their keys. OTLP's JSON has 64-bit integers as strings."""
    return {
        pair["key"]: int(pair["value"]["intValue"]) if "intValue" in pair["value"] else pair["value"]["stringValue"]
        for pair in item["attributes"]
    }


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    collector = Collector()
    server = await asyncio.start_server(collector.serve, "127.0.0.1", 0)
    collector.origin = Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield collector
    finally:
        server.close()


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
        assert (await caller.get(b"/api/v4/workflows?key=secret", *fields)).status == 200
        lines = [line for exchange in upstream.requests for line in exchange.lines]
        await until(lambda: len(collector.spans) == 4)
    own, wait, first, second = collector.spans
    assert {span["traceId"] for span in collector.spans} == {TRACE}
    assert len({span["spanId"] for span in collector.spans}) == 4
    assert (own["parentSpanId"], own["traceState"], own["flags"]) == (PARENT, "a=1", 3)
    assert {span["parentSpanId"] for span in (wait, first, second)} == {own["spanId"]}
    assert [span["name"] for span in collector.spans] == ["GET /api/v4/workflows", "queue", "GET", "GET"]
    assert [span["kind"] for span in collector.spans] == [2, 1, 3, 3]
    assert [line for line in lines if line.startswith(b"traceparent")] == [
        f"traceparent: 00-{TRACE}-{span['spanId']}-03".encode() for span in (first, second)
    ]
    facts = attributes(own)
    assert (facts["http.request.method"], facts["http.route"], facts["http.response.status_code"]) == (
        "GET",
        "/api/v4/workflows",
        200,
    )
    assert (facts["url.path"], facts["url.scheme"]) == ("/api/v4/workflows", "http")
    assert "secret" not in json.dumps(collector.spans), "values of the query are masked"
    assert facts["url.query"] == "key"
    assert attributes(first)["http.response.status_code"] == 503
    assert (attributes(first)["error.type"], first["status"]) == ("503", {"code": 2})
    assert attributes(second)["http.request.resend_count"] == 1
    assert attributes(second)["server.port"] == upstream.origin.port
    assert "status" not in second
    for span in collector.spans:
        assert int(own["startTimeUnixNano"]) <= int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
    assert abs(int(own["startTimeUnixNano"]) / 1e9 - time.time()) < 600
    assert collector.resources[0]["service.name"] == "nanonets-proxy"
    assert collector.requests[0].startswith("POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_lost_connection_is_an_attempt_with_an_error() -> None:
    async with (
        running_collector() as collector,
        running_proxy(Origin("http", "127.0.0.1", 1), otlp_endpoint=str(collector.origin)) as proxy,
        await proxy.caller() as caller,
    ):
        assert (await caller.get(b'/x"y')).status == 502
        await until(lambda: len(collector.spans) == 2)
    own, attempt = collector.spans
    assert (own["parentSpanId"], own["flags"]) == ("", 3), "a new trace with a random id"
    assert attributes(own)["error.type"] == attributes(attempt)["error.type"] == "upstream_refused"
    assert attributes(own)["url.path"] == '/x"y'
    assert "http.response.status_code" not in attributes(attempt)


# --- the exporter alone ---------------------------------------------------------------------------


def make(collector: Origin, share: float = 1.0) -> tuple[TraceExporter, CollectorRegistry, Alerts]:
    registry = CollectorRegistry()
    alerts = Alerts(registry)
    return TraceExporter(OtlpPolicy(collector, share), UPSTREAM, "eu", registry, alerts, new_id), registry, alerts


def finished(number: int = 0) -> Any:
    """Returns the facts of a sampled request without a wait and an attempt."""
    return SimpleNamespace(
        trace=TraceContext(TRACE, PARENT, 3),
        span_id=f"{number:016x}",
        spans=RequestSpans(),
        started_s=perf_counter(),
        total_s=0.1,
        method="GET",
        path="/x",
        route="/other",
        status=200,
        code="",
        caller="a",
        scope="account",
        request_id="r",
        scheme="http",
    )


def dropped(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("nanonets_proxy_traces_dropped_total") or 0.0


@given(st.text(), st.text(st.characters(max_codepoint=255)), st.binary(max_size=20))
def test_any_text_of_a_caller_is_valid_json(path: str, caller: str, state: bytes) -> None:
    request = finished()
    request.path, request.caller = path, caller
    request.trace = TraceContext(TRACE, PARENT, 1, state)
    (span,) = json.loads(b"[" + SpanEncoder(UPSTREAM, new_id).encode(request, 0.0) + b"]")
    assert attributes(span)["nanonets_proxy.caller"] == caller
    assert span.get("traceState", "") == state.decode("latin-1")


async def test_the_callers_flag_decides_and_otherwise_the_share() -> None:
    every, _, _ = make(UPSTREAM)
    none, _, _ = make(UPSTREAM, share=0.0)
    sampled, unsampled = TraceContext(TRACE, PARENT, 1), TraceContext(TRACE, PARENT, 2)
    assert (every.sample(sampled), none.sample(sampled)) == (sampled, sampled)
    assert (every.sample(unsampled), none.sample(unsampled), none.sample(None)) == (None, None, None)
    new = every.sample(None)
    assert new is not None
    assert (len(new.trace_id), new.parent_id, new.flags) == (32, "", 3)


async def test_a_request_that_is_not_sampled_is_not_sent() -> None:
    exporter, _, _ = make(UPSTREAM)
    request = finished()
    request.spans = None
    exporter.observe(request)
    assert not exporter._queue


@pytest.mark.parametrize("status", [429, 503, 0])
async def test_a_batch_that_the_collector_wants_later_is_sent_again(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_module, "_BATCH_DELAY_S", 0.01)
    monkeypatch.setattr(exporter_module, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(exporter_module, "_SEND_TIMEOUT_S", 0.2 if not status else 10.0)
    async with running_collector() as collector:
        collector.status = status
        exporter, registry, alerts = make(collector.origin)
        exporter.start()
        for number in range(3):
            exporter.observe(finished(number))
        await until(lambda: len(collector.requests) >= 2)
        collector.status = 200
        await until(lambda: len(collector.spans) == 3)
        await exporter.stop()
        assert [int(span["spanId"], 16) for span in collector.spans] == [0, 1, 2]
        assert dropped(registry) == 0
        assert alerts.to_json()[0]["event"] == "traces_not_sent"
        assert collector.resources[0]["deployment.environment.name"] == "eu"


async def test_a_batch_that_the_collector_rejects_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "_BATCH_DELAY_S", 0.01)
    async with running_collector() as collector:
        collector.status = 400
        exporter, registry, _ = make(collector.origin)
        exporter.start()
        exporter.observe(finished())
        await until(lambda: dropped(registry) == 1)
        await exporter.stop()


async def test_without_a_collector_the_queue_is_bounded_and_the_rest_is_counted() -> None:
    exporter, registry, _ = make(Origin("http", "127.0.0.1", 1))
    request = finished()
    request.caller = "c" * 100_000
    for _ in range(100):
        exporter.observe(request)
    assert exporter._queued_bytes <= MAX_QUEUED_BYTES
    assert dropped(registry) == 100 - len(exporter._queue)
    exporter.start()
    await exporter.stop()


@pytest.mark.parametrize("end", [lambda _: None, lambda collector: setattr(collector, "status", 0)])
async def test_the_end_sends_what_is_queued_and_a_hanging_collector_delays_it_by_two_seconds_at_most(
    end: Callable[[Collector], None],
) -> None:
    async with running_collector() as collector:
        end(collector)
        exporter, _, _ = make(collector.origin)
        exporter.start()
        exporter.observe(finished())
        began_s = time.monotonic()
        await exporter.stop()
        assert time.monotonic() - began_s < STOP_S + 3
        assert len(collector.spans) == (collector.status == 200)
