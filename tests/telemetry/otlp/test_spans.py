"""The encoding of spans: what OpenTelemetry's own messages read from it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from nanonets_proxy.core.http.trace_context import TraceContext
from nanonets_proxy.core.net.addresses import Origin
from nanonets_proxy.telemetry.otlp.protobuf import request
from nanonets_proxy.telemetry.otlp.spans import SpanEncoder
from support.telemetry.finished_trace import PARENT, TRACE, finished
from support.telemetry.otlp_collector import attributes

UPSTREAM = Origin("https", "app.nanonets.com", 443)


def decode(encoded: bytes) -> list[Span]:
    (resource,) = ExportTraceServiceRequest.FromString(request("eu", [encoded])).resource_spans
    assert attributes(resource.resource)["deployment.environment.name"] == "eu"
    (scope,) = resource.scope_spans
    assert scope.scope.name == "nanonets-proxy"
    return list(scope.spans)


def spans_of(*requests: Any, epoch_ns: int = 0) -> list[Span]:
    encoder = SpanEncoder(UPSTREAM, "https")
    return decode(b"".join(encoder.encode(each, epoch_ns) for each in requests))


@given(
    st.text(),
    st.text(st.characters(max_codepoint=255), max_size=300),
    st.binary(max_size=20),
    st.integers(0, 20_000),
)
def test_any_text_of_a_caller_is_decoded_as_it_was(path: str, caller: str, state: bytes, length: int) -> None:
    request_id = "r" * length
    trace = TraceContext(TRACE, PARENT, 1, state)
    (span,) = spans_of(finished(path=path, caller=caller, trace=trace, request_id=request_id))
    facts = attributes(span)
    assert (facts["nanonets_proxy.caller"], facts["nanonets_proxy.request_id"]) == (caller, request_id)
    assert span.trace_state == state.decode("latin-1")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)


def test_what_is_remembered_of_one_request_never_shows_in_another() -> None:
    requests = [
        finished(
            1 + number,
            method=("GET", "POST")[number % 2],
            route=f"/api/{number % 3}",
            path=f"/api/{number}",
            status=200 + number % 7,
            caller=f"c{number % 300}",
            scope=f"s{number % 5}",
            spans=[(200 + number % 11, "", 1, 2)],
        )
        for number in range(1000)
    ]
    spans = spans_of(*requests, *requests)
    for expected, own, attempt in zip(requests * 2, spans[::2], spans[1::2], strict=True):
        facts = attributes(own)
        assert own.name == f"{expected.method} {expected.route}"
        assert (facts["url.path"], facts["http.response.status_code"]) == (expected.path, expected.status)
        assert (facts["nanonets_proxy.caller"], facts["nanonets_proxy.scope"]) == (expected.caller, expected.scope)
        assert attributes(attempt)["url.full"] == f"https://app.nanonets.com{expected.path}"
        assert attributes(attempt)["http.response.status_code"] == expected.spans[0][0]
        assert (attempt.span_id.hex(), attempt.parent_span_id) == (f"{expected.ids[16:].hex()}0001", own.span_id)


def test_instants_are_nanoseconds_since_1970() -> None:
    epoch_ns = 1_795_000_000_000_000_000
    spans = [(None, "", 10_250_000_000, 11_000_000_000), (200, "", 11_000_000_000, 13_000_000_000)]
    own, wait, attempt = spans_of(finished(started_s=10.0, total_s=3.5, spans=spans), epoch_ns=epoch_ns)
    instants = [
        ((span.start_time_unix_nano - epoch_ns) / 1e9, (span.end_time_unix_nano - epoch_ns) / 1e9)
        for span in (own, wait, attempt)
    ]
    assert instants == [(10.0, 13.5), (10.25, 11.0), (11.0, 13.0)]


@pytest.mark.parametrize(
    ("status", "code", "error_type", "is_error"),
    [
        (200, "", None, False),
        (404, "", None, False),
        (429, "rate_limit_exceeded", "rate_limit_exceeded", False),
        (503, "", "503", True),
        (502, "upstream_refused", "upstream_refused", True),
        (200, "upstream_broke_off", "upstream_broke_off", True),
        (0, "caller_gone", "caller_gone", True),
    ],
)
def test_a_5xx_and_a_broken_response_are_errors_of_the_request(
    status: int, code: str, error_type: str | None, is_error: bool
) -> None:
    (span,) = spans_of(finished(status=status, code=code))
    facts = attributes(span)
    assert facts.get("error.type") == error_type
    assert (span.status.code == Status.STATUS_CODE_ERROR) == is_error
    assert facts.get("http.response.status_code", 0) == status


def test_an_invented_method_is_no_name_of_a_span() -> None:
    own, attempt = spans_of(finished(method="BREW", spans=[(200, "", 1, 2)]))
    assert (own.name, attempt.name) == ("HTTP", "HTTP")
    for span in (own, attempt):
        facts = attributes(span)
        assert (facts["http.request.method"], facts["http.request.method_original"]) == ("_OTHER", "BREW")
