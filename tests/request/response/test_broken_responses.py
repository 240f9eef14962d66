"""An upstream that fails: before its head the caller gets an error response, after it a reset connection."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nanonets_proxy.core.net.addresses import Origin
from support.certificates import CertificateAuthority
from support.log_capture import captured_log
from support.proxy_harness import running_proxy
from support.raw_caller import RawResponse, chunked, request
from support.raw_upstream import RawUpstream, responding
from support.scripted_upstream import OK, Exchange, ScriptedUpstream

Failure = Callable[[Exchange], Awaitable[None]]


async def _send_garbage(exchange: Exchange) -> None:
    await exchange.send(b"not HTTP at all\r\n\r\n")


async def _close(exchange: Exchange) -> None:
    exchange.close()


async def _reset(exchange: Exchange) -> None:
    exchange.reset()


async def _send_half_a_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-")
    exchange.close()


async def _switch_protocols(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")


async def _send_too_large_a_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\n" + b"X-Padding: %b\r\n" % (b"p" * 7000) * 20)


async def _send_two_lengths(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok")


def _assert_error_response(response: RawResponse, status: int, code: str, proxy_error: bytes) -> None:
    assert response.status == status
    assert response.json()["code"] == code
    assert response.value(b"Proxy-Status").startswith(b"nanonets-proxy; error=" + proxy_error)
    assert response.json()["details"]["request_id"] == response.value(b"X-Request-Id").decode()


@pytest.mark.parametrize(
    ("failure", "code", "proxy_error"),
    [
        (_close, "upstream_closed", b"connection_terminated"),
        (_reset, "upstream_closed", b"connection_terminated"),
        (_send_half_a_head, "upstream_closed", b"connection_terminated"),
        (_send_garbage, "upstream_bad_reply", b"http_protocol_error"),
        (_send_two_lengths, "upstream_bad_reply", b"http_protocol_error"),
        (_switch_protocols, "upstream_upgraded", b"http_upgrade_failed"),
        (_send_too_large_a_head, "upstream_head_too_large", b"http_response_header_section_size"),
    ],
)
async def test_a_failure_before_the_head_is_a_502_and_the_connection_stays_open(
    failure: Failure, code: str, proxy_error: bytes
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", body=b"abc"))
        exchange = await upstream.next_request()
        await exchange.read_body()
        await failure(exchange)
        _assert_error_response(await caller.response(), 502, code, proxy_error)
        await proxy.check_idle()
        await caller.send(request(b"GET", b"/y"))
        await (await upstream.next_request()).respond(OK)
        assert (await caller.response()).body == b"ok"


async def test_an_upstream_that_refuses_the_connection_is_a_502() -> None:
    async with ScriptedUpstream() as upstream:
        port = upstream.origin.port
    async with running_proxy(Origin("http", "127.0.0.1", port)) as proxy, await proxy.caller() as caller:
        _assert_error_response(await caller.get(b"/x"), 502, "upstream_refused", b"connection_refused")
        assert (await caller.get(b"/x")).status == 502  # the caller's connection stays open


async def test_an_upstream_that_is_down_is_an_alert_with_the_address_tried() -> None:
    with captured_log() as log:
        async with ScriptedUpstream() as upstream:
            port = upstream.origin.port
        async with running_proxy(Origin("http", "127.0.0.1", port)) as proxy, await proxy.caller() as caller:
            for _ in range(3):
                assert (await caller.get(b"/x")).json()["details"]["reason"] == "ECONNREFUSED"
            (alert,) = proxy.proxy.alerts.to_json()
        (event,) = log.events("upstream_connection_failed")
        requests = log.events("request")
    assert (event["level"], event["code"], event["tried"]) == ("warning", "upstream_refused", [f"127.0.0.1:{port}"])
    assert event["upstream"] == f"http://127.0.0.1:{port}"
    assert (alert["event"], alert["times"]) == ("upstream_connection_failed", 3)
    details = {"reason": "ECONNREFUSED", "tried": [f"127.0.0.1:{port}"]}
    assert [(line["level"], line["details"]) for line in requests] == [("warning", details)] * 3


async def test_the_log_has_the_certificates_fault(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    with captured_log() as log:
        async with (
            RawUpstream(responding(OK), tls=authority.server()) as upstream,
            running_proxy(Origin("https", "127.0.0.1", upstream.port)) as proxy,
            await proxy.caller() as caller,
        ):
            body = (await caller.get(b"/x")).json()
        (event,) = log.events("request")
        (alert,) = log.events("upstream_connection_failed")
    assert body["code"] == "upstream_tls_certificate"
    assert event["details"]["reason"] == body["details"]["reason"] == alert["reason"]
    assert "certificate" in event["details"]["reason"]
    assert "ca_file" in alert["advice"]


async def test_an_upstream_that_does_not_begin_its_response_in_time_is_a_504() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, first_byte_timeout="100ms") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", body=b"abc"))
        exchange = await upstream.next_request()
        _assert_error_response(await caller.response(), 504, "upstream_timeout", b"http_response_timeout")
        await exchange.read_to_end()


async def test_a_caller_whose_upload_stops_gets_a_408() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin, idle_timeout="100ms") as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 10") + b"abc")
        exchange = await upstream.next_request()
        response = await caller.response()
        _assert_error_response(response, 408, "request_timeout", b"http_request_error")
        assert response.value(b"Connection") == b"close"
        await exchange.read_to_end()


BROKEN = {
    "length": b"Content-Length: 10\r\n\r\nabc",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"abc").removesuffix(b"0\r\n\r\n"),
}


@pytest.mark.parametrize("framing", BROKEN)
@pytest.mark.parametrize("end", [_close, _reset])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_a_body_that_breaks_off_resets_the_callers_connection(
    framing: str, end: Failure, version: bytes
) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", version=version))
        exchange = await upstream.next_request()
        await exchange.send(b"HTTP/1.1 200 OK\r\n" + BROKEN[framing])
        head = await caller.head()
        is_chunked = b"Transfer-Encoding: chunked" in head
        assert await caller.read(8 if is_chunked else 3) == (b"3\r\nabc\r\n" if is_chunked else b"abc")
        await end(exchange)
        # A clean end would make a body without length or chunks look complete.
        with pytest.raises(ConnectionResetError):
            await caller.read_to_end()
        await proxy.check_idle()


async def test_the_remainder_of_a_rejected_upload_is_not_read_as_a_request() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        smuggled = request(b"GET", b"/smuggled")
        await caller.send(request(b"POST", b"/x", b"Content-Length: %d" % (3 + len(smuggled))) + b"abc")
        exchange = await upstream.next_request()
        await exchange.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        response = await caller.response()
        assert response.status == 413
        assert response.value(b"Connection") == b"close"
        await caller.send(smuggled)
        assert await caller.read_to_end() == b""
        await exchange.read_to_end()
        assert len(upstream.requests) == 1


async def test_a_response_can_begin_before_the_upload_ends() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"POST", b"/x", b"Content-Length: 6") + b"abc")
        exchange = await upstream.next_request()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        assert (await caller.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        await caller.send(b"def")
        assert await exchange.read(6) == b"abcdef"
        await exchange.send(b"done")
        assert await caller.read(4) == b"done"
        await proxy.check_idle()
