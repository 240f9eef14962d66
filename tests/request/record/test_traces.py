"""A request's trace: continued in the log, and upstream if a setting says so."""

import pytest

from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.scripted_upstream import OK, ScriptedUpstream, responding

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FIELDS = (f"Traceparent: 00-{TRACE}-{PARENT}-03".encode(), b"TraceState: a=1", b"tracestate: b=2")
UNAVAILABLE = b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n"


def traces(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if line.lower().startswith(b"trace")]


async def test_the_log_has_the_callers_trace_and_a_span_of_the_request() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.get(b"/x", *FIELDS)
            await caller.get(b"/x", *FIELDS)
            await caller.get(b"/x")
    first, second, without = log.events("request")
    assert (first["trace_id"], second["trace_id"]) == (TRACE, TRACE)
    assert len({first["span_id"], second["span_id"], PARENT}) == 3
    assert len(first["span_id"]) == 16
    assert "trace_id" not in without
    assert not traces(upstream.requests[0].lines), "off by default"


async def test_a_setting_sends_the_trace_upstream_with_the_span_of_the_request() -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(UNAVAILABLE, OK)) as upstream,
            running_proxy(upstream.origin, trace_upstream=True, retries=1, retry_backoff="1ms") as proxy,
            await proxy.caller() as caller,
        ):
            assert (await caller.get(b"/x", *FIELDS)).status == 200
            assert (await caller.get(b"/x")).status == 200
    span_id = log.events("request")[0]["span_id"]
    expected = [f"traceparent: 00-{TRACE}-{span_id}-03".encode(), b"tracestate: a=1,b=2"]
    assert [traces(sent.lines) for sent in upstream.requests] == [expected, expected, []]


@pytest.mark.parametrize("on", [True, False])
async def test_a_malformed_trace_ends_at_the_proxy(on: bool) -> None:
    with captured_log() as log:
        async with (
            ScriptedUpstream(responding(OK)) as upstream,
            running_proxy(upstream.origin, trace_upstream=on) as proxy,
            await proxy.caller() as caller,
        ):
            await caller.get(b"/x", b"traceparent: 00-0-0-01", b"tracestate: a=1")
    assert not traces(upstream.requests[0].lines)
    assert "trace_id" not in log.text()
