"""Header fields that are not forwarded, and fields that no caller can remove."""

import pytest

from support.proxy_harness import AUTHORIZATION, VIA, running_proxy
from support.raw_caller import request
from support.scripted_upstream import OK, ScriptedUpstream, responding

DROPPED = [
    b"Authorization: Basic d3Jvbmc6",
    b"authorization: Bearer token",
    b"Authorization: garbage",
    b"Proxy-Authorization: Basic d3Jvbmc6",
    b"Forwarded: for=10.0.0.1",
    b"X-Forwarded-For: 10.0.0.1",
    b"X-FORWARDED-Host: evil.example",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Client-Cert: x",
    b"X-Real-IP: 10.0.0.1",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"TE: trailers",
    b"Trailer: X-Sum",
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
]


@pytest.mark.parametrize("line", DROPPED)
async def test_hop_by_hop_credentials_and_forwarding_fields_are_dropped(line: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.get(b"/x", b"Before: 1", line, b"After: 2")
        assert upstream.requests[0].lines[2:] == [b"Before: 1", b"After: 2", VIA, AUTHORIZATION]


@pytest.mark.parametrize("connection", [b"Connection: close, X-Hop", b"CONNECTION: x-hop ,,keep-alive"])
async def test_fields_that_connection_nominates_are_dropped(connection: bytes) -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.get(
            b"/x", b"X-Hop: 1", b"Kept: 1", connection, b"x-HOP: 2", b"Connection: X-Other", b"x-other: 3"
        )
        assert upstream.requests[0].lines[2:] == [b"Kept: 1", VIA, AUTHORIZATION]


async def test_connection_cannot_remove_the_credential_host_or_the_framing() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        lines = (
            b"Connection: authorization, host, content-length, transfer-encoding",
            b"Authorization: Basic eDo=",
        )
        await caller.send(request(b"POST", b"/x", *lines, body=b"abc"))
        assert (await caller.response()).status == 200
        host = b"Host: " + upstream.origin.authority.encode()
        assert upstream.requests[0].lines[1:] == [host, b"Content-Length: 3", VIA, AUTHORIZATION]
        assert upstream.requests[0].body == b"abc"


async def test_the_key_is_injected_exactly_once() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        for _ in range(3):
            await caller.get(b"/x", AUTHORIZATION, AUTHORIZATION.lower())
        for exchange in upstream.requests:
            assert exchange.head.lower().count(b"\r\nauthorization:") == 1
            assert exchange.lines[-1] == AUTHORIZATION


async def test_no_response_contains_the_key() -> None:
    async with (
        ScriptedUpstream(responding(OK)) as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        response = await caller.get(b"/x")
        assert AUTHORIZATION.removeprefix(b"Authorization: Basic ") not in response.head
        assert b"\r\nAuthorization" not in response.head
