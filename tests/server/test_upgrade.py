"""Every Upgrade is ignored, as RFC 9110 §7.8 allows: Java's HttpClient sends one with its first request."""

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, Exchange, ScriptedUpstream, responding

WEBSOCKET = (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13")


@pytest.mark.parametrize(
    "fields",
    [
        (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB"),
        (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", *WEBSOCKET),
        (b"Connection: Upgrade", b"Upgrade: TLS/1.0, HTTP/1.1"),
        (b"Upgrade: foo/2",),
    ],
)
async def test_a_request_with_an_upgrade_is_forwarded_without_it(fields: tuple[bytes, ...]) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for body in (b"", b"abc"):
            await caller.send(request(b"POST", b"/x", *fields, body=body))
            assert (await caller.response()).status == 200
        for exchange in upstream.requests:
            names = {line.partition(b":")[0].lower() for line in exchange.lines[1:]}
            assert names.isdisjoint({b"upgrade", b"http2-settings", b"connection"})
        assert [exchange.body for exchange in upstream.requests] == [b"", b"abc"]


async def test_an_http_1_0_request_with_an_upgrade_is_forwarded_without_it() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", b"Connection: Upgrade", b"Upgrade: h2c", version=b"HTTP/1.0"))
        assert (await caller.response()).status == 200


async def test_a_websocket_handshake_gets_the_upstreams_own_response() -> None:
    async def reject(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")

    async with (
        ScriptedUpstream(reject) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/x", b"Connection: Upgrade", b"Upgrade: websocket", *WEBSOCKET))
        response = await caller.response()
        assert (response.status, response.body) == (426, b"no")
