"""Health and metrics on the second listener."""

import pytest

from support.proxy_harness import running_proxy
from support.raw_caller import RawCaller, request
from support.scripted_upstream import ScriptedUpstream


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(b"GET", b"/livez"), 200),
        (request(b"HEAD", b"/readyz"), 200),
        (request(b"GET", b"/metrics"), 200),
        (request(b"GET", b"/elsewhere"), 404),
        (request(b"POST", b"/livez", body=b""), 405),
        (request(b"GET", b"/livez", b"Origin: https://evil.example"), 403),
        (request(b"GET", b"/livez", b"Sec-Fetch-Site: cross-site"), 403),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (request(b"TRACE", b"/livez"), 405),
    ],
)
async def test_the_admin_listener_answers_behind_the_guard(sent: bytes, status: int) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        await admin.send(sent)
        response = await admin.response(to_head=sent.startswith(b"HEAD"))
        assert response.status == status
        assert response.values(b"Server") == [b"nanonets-proxy"]
        assert upstream.connections == 0


async def test_a_refusal_has_the_shape_of_the_callers_listener() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await RawCaller.connect(proxy.admin_address) as admin,
    ):
        await admin.send(b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        response = await admin.response()
        assert response.json()["code"] == "forbidden_host"
        assert response.json()["details"] == {}
        assert not response.values(b"X-Request-Id")


async def test_the_admin_listener_can_be_switched_off() -> None:
    async with ScriptedUpstream() as upstream, running_proxy(upstream.origin, admin_listen="off") as proxy:
        assert proxy.program.admin_addresses == []


async def test_admin_paths_on_the_callers_listener_are_the_upstreams() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_proxy(upstream.origin) as proxy,
        await proxy.caller() as caller,
    ):
        await caller.send(request(b"GET", b"/metrics"))
        exchange = await upstream.next_request()
        assert exchange.lines[0] == b"GET /metrics HTTP/1.1"
        await exchange.respond(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        assert (await caller.response()).status == 404
